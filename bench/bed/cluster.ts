/** Real `holdfast node` processes, and a real etcd where there are several, on loopback. */
import { ApiClient, type VolumeObject } from '@holdfast/api/client'
import { startEtcdForTests } from '@holdfast/coordinator/testing'
import { type Host, type Running, until } from './host.ts'

/** Of a checkout, seen from its root. */
export const PROGRAM_PATH = 'packages/cli/bin/holdfast.js'
const PROGRAM = new URL(`../../${PROGRAM_PATH}`, import.meta.url).pathname
/** As deploy/systemd/holdfast.service starts a node. */
const RUNTIME_OPTIONS = ['--use-largepages=silent', '--min-semi-space-size=16', '--no-memory-reducer']
/** Longer than the default, so that a node on a crowded machine keeps its lease. */
const LEASE_TTL_SECONDS = '30'

export interface BenchNode {
  readonly name: string
  readonly socket: string
  readonly process: Running
  readonly api: ApiClient
}

export interface BenchCluster {
  readonly nodes: readonly BenchNode[]
  /** Every process of it, etcd's too. */
  readonly pids: readonly number[]
  readonly api: ApiClient
}

/** The checkout whose program runs, where it is not this one, and what is set in its environment. */
export interface Build {
  readonly program: string
  readonly env?: Readonly<Record<string, string>> | undefined
  /** Further options of the runtime. */
  readonly runtime?: readonly string[] | undefined
}

/** Starts nodes named `PREFIX-0`…; one alone has its embedded coordinator. */
export async function startCluster(
  host: Host,
  prefix: string,
  nodeCount: number,
  build: Build = { program: PROGRAM },
): Promise<BenchCluster> {
  const etcd = nodeCount > 1 ? await startEtcdForTests() : undefined
  if (etcd !== undefined) host.defer(() => etcd.close())
  const names = Array.from({ length: nodeCount }, (_, i) => `${prefix}-${i}`)
  const nodes = await Promise.all(names.map((name) => startNode(host, name, etcd?.url ?? 'embedded', build)))
  const api = (nodes[0] ?? unreachable(prefix)).api
  await until(`${nodeCount} nodes of ${prefix}`, async () => {
    return (await api.nodes()).filter(({ state }) => state === 'up').length === nodeCount
  })
  const etcdPids = (etcd?.members ?? []).map(({ pid }) => pid).filter((pid) => pid !== undefined)
  return { nodes, api, pids: [...nodes.map((node) => node.process.pid), ...etcdPids] }
}

/** The data of a node of this name are kept when it is started again. */
export async function startNode(
  host: Host,
  name: string,
  coordinator: string,
  { program, env, runtime = [] }: Build = { program: PROGRAM },
): Promise<BenchNode> {
  const socket = host.path(`${name}.sock`)
  const own = ['--name', name, '--data-dir', host.path(name), '--coordinator', coordinator]
  const addresses = ['--nbd', '127.0.0.1:0', '--api', '127.0.0.1:0', '--peer', '127.0.0.1:0']
  const rest = ['--nbd-socket', socket, '--lease-ttl', LEASE_TTL_SECONDS, '--log-level', 'warn']
  const args = [...RUNTIME_OPTIONS, ...runtime, program, 'node', ...own, ...addresses, ...rest]
  const running = host.run(process.execPath, args, { env })
  await until(`node ${name}`, () => /^ready .*api=/m.test(running.stdout), running)
  const api = new ApiClient({ url: `http://${/^ready .*api=(\S+)/m.exec(running.stdout)?.[1]}` })
  return { name, socket, process: running, api }
}

export interface Served {
  readonly volume: VolumeObject
  /** Over the unix socket of the node that is the primary. */
  readonly uri: string
}

/** Creates a volume and waits until all its copies are in sync. */
export async function createVolume(
  cluster: BenchCluster,
  name: string,
  replicas: number,
  size: number,
): Promise<Served> {
  const id = { namespace: 'default', name }
  await cluster.api.createVolume({ ...id, size, replicas })
  let volume = await cluster.api.volume(id)
  await until(`volume ${name}`, async () => {
    volume = await cluster.api.volume(id)
    return volume.state === 'healthy' && volume.inSync.length === replicas && volume.primary !== null
  })
  const primary = cluster.nodes.find((node) => node.name === volume.primary) ?? unreachable(name)
  return { volume, uri: `nbd+unix:///${volume.export}?socket=${primary.socket}` }
}

function unreachable(name: string): never {
  throw new Error(`${name} has no node`)
}
