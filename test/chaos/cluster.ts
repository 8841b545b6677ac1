/** Storage hosts and etcd of one run. */
import { createServer, type AddressInfo } from 'node:net'
import { mkdirSync } from 'node:fs'
import { type EtcdMember, startEtcd } from './etcd.ts'
import { StorageHost, type VolumeObject } from './hosts.ts'
import { Network, type Place } from './network.ts'
import { message } from './shell.ts'
import { sleep, waitUntil } from '../support/waiting.ts'

const DATA_DISK_MEBIBYTES = 3072
const ETCD_MEMBERS = 3
export const LEASE_SECONDS = 3

export interface ClusterOptions {
  readonly nodes: number
  readonly namespaces: boolean
  readonly folder: string
  readonly logs: string
  readonly program: string
  /** A node ended and nobody had asked for it. */
  readonly onEnd: (host: StorageHost, how: string) => void
}

export class Cluster {
  readonly network: Network | undefined
  readonly etcd: readonly EtcdMember[]
  readonly hosts: readonly StorageHost[]

  private constructor(network: Network | undefined, etcd: readonly EtcdMember[], hosts: readonly StorageHost[]) {
    this.network = network
    this.etcd = etcd
    this.hosts = hosts
  }

  static async start(options: ClusterOptions): Promise<Cluster> {
    const { folder, logs, namespaces } = options
    mkdirSync(logs, { recursive: true })
    const network = namespaces ? await Network.create() : undefined
    const place = async (name: string): Promise<Place> =>
      network === undefined ? { name, address: '127.0.0.1', namespace: undefined } : await network.add(name)
    // Alone in a namespace every port is free.
    const count = ETCD_MEMBERS * 2 + options.nodes * 3
    const ports = namespaces ? Array.from({ length: count }, (_, i) => 5000 + i) : await freePorts(count)
    const port = (): number => ports.pop() as number
    const places = []
    for (let i = 1; i <= ETCD_MEMBERS; i++) {
      places.push({ place: await place(`etcd${i}`), ports: { client: port(), peer: port() } })
    }
    const etcd = await startEtcd(places, folder, logs)
    const coordinator = `etcd://${etcd.map(({ endpoint }) => endpoint).join(',')}`
    const hosts: StorageHost[] = []
    for (let i = 1; i <= options.nodes; i++) {
      const host = new StorageHost({
        ...{ place: await place(`host${i}`), ports: { nbd: port(), api: port(), peer: port() }, coordinator },
        ...{ folder, logs, program: options.program, leaseSeconds: LEASE_SECONDS, onEnd: options.onEnd },
      })
      if (namespaces) await host.makeDisk(DATA_DISK_MEBIBYTES)
      hosts.push(host)
    }
    await Promise.all(hosts.map((host) => host.start()))
    return new Cluster(network, etcd, hosts)
  }

  host(name: string): StorageHost {
    const found = this.hosts.find((host) => host.name === name)
    if (found === undefined) throw new Error(`no host ${name}`)
    return found
  }

  others(host: StorageHost): StorageHost[] {
    return this.hosts.filter((one) => one !== host)
  }

  async createVolume(name: string, sizeBytes: number, replicas: number): Promise<void> {
    const [host] = this.hosts
    await host?.api('POST', '/v1/volumes', { name, size: sizeBytes, replicas }, 20_000)
  }

  /** As the first host of `via` that answers knows it. */
  async volume(name: string, via: readonly StorageHost[] = this.hosts): Promise<VolumeObject> {
    let problem = 'nobody was asked'
    for (const host of via) {
      try {
        return (await host.api('GET', `/v1/volumes/${name}`)) as VolumeObject
      } catch (error) {
        problem = message(error)
      }
    }
    throw new Error(problem)
  }

  async primaryOf(name: string, via?: readonly StorageHost[]): Promise<StorageHost> {
    const { primary } = await this.volume(name, via)
    if (primary === undefined || primary === null) throw new Error(`volume ${name} has no primary`)
    return this.host(primary)
  }

  /** Another primary than `old`, as the others see it. */
  async takenOver(name: string, old: StorageHost, ms = 30_000): Promise<void> {
    await waitUntil(`another primary of ${name}`, ms, async () => {
      const { primary, state } = await this.volume(name, this.others(old))
      return typeof primary === 'string' && primary !== old.name && state !== 'unavailable'
    })
  }

  /** Moves the primary; waits until everybody knows. */
  async movePrimary(volume: string, to: StorageHost): Promise<void> {
    if ((await this.primaryOf(volume)) === to) return
    await to.api('POST', `/v1/volumes/${volume}/move-primary`, { to: to.name }, 15_000)
    await waitUntil(`${to.name} to be primary of ${volume}`, 15_000, async () => {
      const views = await Promise.all(this.hosts.map((host) => this.volume(volume, [host])))
      return views.every(({ primary }) => primary === to.name)
    })
  }

  /** What keeps the cluster from being whole; undefined when all hosts agree that every volume is healthy. */
  async unhealthy(): Promise<string | undefined> {
    let first: string | undefined
    for (const host of this.hosts) {
      try {
        const volumes = await host.volumes()
        const bad = volumes.find(({ state, inSync, replicas }) => state !== 'healthy' || inSync.length < replicas.length)
        if (bad !== undefined) return `${bad.name} is ${bad.state} for ${host.name}: in sync ${bad.inSync.join(', ')}`
        const view = volumes.map(({ name, epoch, primary }) => `${name} ${epoch} ${primary}`).sort().join('; ')
        first ??= view
        if (first !== view) return `hosts do not agree: ${first} / ${view}`
      } catch (error) {
        return `${host.name} does not answer: ${message(error)}`
      }
    }
    return undefined
  }

  /** Resolves with undefined when whole (and `also` finds nothing), with the reason when it is not after `ms`. */
  async whole(ms: number, also: () => string | undefined = () => undefined): Promise<string | undefined> {
    const end = performance.now() + ms
    for (;;) {
      const problem = (await this.unhealthy()) ?? also()
      if (problem === undefined || performance.now() > end) return problem
      await sleep(100)
    }
  }

  async stop(): Promise<void> {
    await Promise.all(this.hosts.map((host) => host.program.stop('SIGKILL')))
    await Promise.all(this.etcd.map(({ program }) => program.stop('SIGKILL')))
    for (const host of this.hosts) await host.removeDisk()
  }
}

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer())
  await Promise.all(servers.map((server) => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))))
  const ports = servers.map((server) => (server.address() as AddressInfo).port)
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}
