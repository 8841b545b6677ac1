/**
 * Docker hosts on a switch, and an etcd apart from them that outlives any host. Needs root, and nothing of
 * the machine's own: no interface, rule or socket outside the bed is used. `close` leaves nothing behind.
 */
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Box, BoxProgram, command, type CommandResult, loopDevices, waitUntil } from './box.ts'
import { DockerHost, type Wire } from './docker-host.ts'
import { buildImages, findProgram, importImage } from './images.ts'

const PROGRAMS = [
  ['dockerd', 'docker', 'docker-registry', 'busybox', 'etcd', 'etcdctl'],
  ['nbdfuse', 'losetup', 'nsenter', 'unshare', 'ip'],
].flat()
const PREFIX = '10.78.0'
const ETCD_ADDRESS = `${PREFIX}.250`
const CGROUPS = '/sys/fs/cgroup'
/** What a node is told so that Docker finds it. */
export const PLUGIN = ['--docker-plugin', '/run/docker/plugins/holdfast.sock']

/** Why these tests can't run here; undefined if they can. */
export function whyNot(...more: readonly string[]): string | undefined {
  if (process.getuid?.() !== 0) return 'namespaces and mounts need root'
  for (const device of ['/dev/fuse', '/dev/loop-control']) {
    if (!existsSync(device)) return `there is no ${device}`
  }
  const missing = [...PROGRAMS, ...more].filter((name) => findProgram(name) === undefined)
  return missing.length === 0 ? undefined : `not installed: ${missing.join(', ')}`
}

/** The same, said aloud. */
export function reasonToSkip(...more: readonly string[]): string | undefined {
  const reason = whyNot(...more)
  if (reason !== undefined) console.log(`skipped: ${reason}`)
  return reason
}

export interface DockerBedOptions {
  readonly hosts: readonly string[]
  readonly etcdMembers?: 1 | 3
  readonly leaseSeconds?: number
  readonly dockerd?: readonly string[]
  readonly node?: readonly string[]
}

export class DockerBed {
  readonly folder = mkdtempSync(join(tmpdir(), 'holdfast-docker-'))
  readonly #id = randomUUID().slice(0, 8)
  readonly #hosts = new Map<string, DockerHost>()
  #switch: Box | undefined
  #etcdBox: Box | undefined
  #etcd: BoxProgram[] = []
  #endpoints: string[] = []

  static async start(options: DockerBedOptions): Promise<DockerBed> {
    const bed = new DockerBed()
    try {
      await bed.#start(options)
      return bed
    } catch (error) {
      console.log(bed.logs())
      await bed.close().catch((other: Error) => console.log(other.message))
      throw error
    }
  }

  get hosts(): DockerHost[] {
    return [...this.#hosts.values()]
  }

  host(name: string): DockerHost {
    const host = this.#hosts.get(name)
    if (host === undefined) throw new Error(`no host ${name} in this bed`)
    return host
  }

  async #start(options: DockerBedOptions): Promise<void> {
    const images = buildImages(join(this.folder, 'images'))
    this.#switch = await Box.start('switch', this.folder, randomUUID())
    await this.#inSwitch('link', 'add', 'bridge0', 'type', 'bridge')
    await this.#inSwitch('link', 'set', 'bridge0', 'up')
    await this.#startEtcd(options.etcdMembers ?? 1)
    const wire: Wire = {
      connect: (box, address) => this.#connect(box, address),
      up: (name) => this.#inSwitch('link', 'set', 'dev', name, 'up').then(() => undefined),
      down: (name) => this.#inSwitch('link', 'set', 'dev', name, 'down').then(() => undefined),
    }
    options.hosts.forEach((name, index) => {
      const host = new DockerHost({
        ...{ name, address: `${PREFIX}.${index + 1}`, folder: this.folder, wire },
        coordinator: this.coordinator,
        ...{ leaseSeconds: options.leaseSeconds ?? 3, cgroup: `/holdfast-${this.#id}` },
        ...{ dockerdArguments: options.dockerd ?? [], nodeArguments: options.node ?? PLUGIN },
      })
      this.#hosts.set(name, host)
    })
    const built = await images
    await Promise.all(
      this.hosts.map(async (host) => {
        await host.start()
        for (const image of built) await importImage(host, image)
      }),
    )
  }

  get coordinator(): string {
    return `etcd://${this.#endpoints.join(',')}`
  }

  async #startEtcd(members: number): Promise<void> {
    const box = await Box.start('etcd', this.folder, randomUUID())
    this.#etcdBox = box
    await this.#connect(box, ETCD_ADDRESS)
    const plans = Array.from({ length: members }, (_, i) => ({
      name: `m${i}`,
      client: `${ETCD_ADDRESS}:${2379 + 10 * i}`,
      peer: `http://${ETCD_ADDRESS}:${2380 + 10 * i}`,
    }))
    const cluster = plans.map(({ name, peer }) => `${name}=${peer}`).join(',')
    this.#endpoints = plans.map(({ client }) => client)
    await Promise.all(
      plans.map(async ({ name, client, peer }) => {
        const args = [
          ['etcd', '--name', name, '--data-dir', join(this.folder, `etcd-${name}`), '--logger', 'zap'],
          ['--listen-client-urls', `http://${client}`, '--advertise-client-urls', `http://${client}`],
          ['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer, '--initial-cluster', cluster],
          ['--heartbeat-interval', '100', '--election-timeout', '1000', '--log-level', 'warn'],
        ].flat()
        const program = new BoxProgram(`etcd ${name}`, join(this.folder, `etcd-${name}.log`))
        this.#etcd.push(program)
        const health = ['--endpoints', client, 'endpoint', 'health']
        const serves = async (): Promise<boolean> => (await this.#etcdctl(health, 5000)).code === 0
        await program.start(box, args, serves)
      }),
    )
  }

  async #inSwitch(...args: readonly string[]): Promise<string> {
    return await command('nsenter', '-t', String(this.#switch?.pid), '-n', 'ip', ...args)
  }

  async #connect(box: Box, address: string): Promise<void> {
    // The other end of a host that was killed goes with its namespace, but not at once.
    await this.#inSwitch('link', 'delete', 'dev', box.name).catch(() => undefined)
    const pair = ['type', 'veth', 'peer', 'name', 'eth0', 'netns', String(box.pid)]
    await this.#inSwitch('link', 'add', 'name', box.name, ...pair)
    await this.#inSwitch('link', 'set', 'dev', box.name, 'master', 'bridge0', 'up')
    await box.sh(['ip', 'addr', 'add', `${address}/24`, 'dev', 'eth0'])
    await box.sh(['ip', 'link', 'set', 'eth0', 'up'])
  }

  async #etcdctl(args: readonly string[], timeoutMs = 10_000): Promise<CommandResult> {
    if (this.#etcdBox === undefined) throw new Error('etcd is off')
    return await this.#etcdBox.run(['etcdctl', ...args], timeoutMs, { ETCDCTL_API: '3' })
  }

  /** Keys of the cluster in etcd, sorted. */
  async coordinatorKeys(): Promise<string[]> {
    const where = ['--endpoints', this.#endpoints.join(',')]
    const everything = ['get', '--prefix', 'holdfast/', '--keys-only']
    const { code, stdout, stderr } = await this.#etcdctl([...where, ...everything])
    if (code !== 0) throw new Error(`etcd gives no list of keys: ${stderr}`)
    return stdout.split('\n').filter((line) => line !== '').toSorted()
  }

  async loopDevices(): Promise<string[]> {
    return await loopDevices(this.folder)
  }

  /** Ends with an Error when something is left that `close` could not or should not have had to remove. */
  async close(): Promise<void> {
    for (const host of this.#hosts.values()) await host.close()
    await this.#etcdBox?.kill()
    await this.#switch?.kill()
    const removeGroups = (): boolean => removeControlGroups(`holdfast-${this.#id}`)
    const problems: string[] = []
    const note = (error: Error): void => void problems.push(error.message)
    await waitUntil('the control groups to be empty', 5000, removeGroups).catch(note)
    // A host that dies between attaching and mounting leaves one; a real one would boot without it.
    for (const line of await this.loopDevices()) {
      await command('losetup', '-d', line.split(' ')[0] ?? '').catch(() => undefined)
    }
    await waitUntil('the loop devices to go', 10_000, async () => {
      const left = await this.loopDevices()
      if (left.length > 0) throw new Error(left.join('\n'))
      return true
    }).catch(note)
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n')
    problems.push(...mounts.filter((line) => line.includes(this.folder)))
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 })
    if (problems.length > 0) throw new Error(`the bed left something behind: ${problems.join('; ')}`)
  }

  /** The end of every log, for a test that failed. */
  logs(): string {
    return this.hosts.map((host) => host.logs()).join('\n')
  }

  /** A folder of a host's own disk that a container can be given as well. */
  scratch(host: DockerHost, name: string): string {
    const path = join(host.folder, name)
    mkdirSync(path, { recursive: true })
    return path
  }
}

/** True when they are gone; an engine that is killed leaves its containers' behind. */
function removeControlGroups(name: string): boolean {
  const roots = [CGROUPS, ...list(CGROUPS).map((controller) => join(CGROUPS, controller))]
  return roots.map((root) => removeGroup(join(root, name))).every((gone) => gone)
}

function removeGroup(path: string): boolean {
  if (!existsSync(path)) return true
  for (const name of list(path)) removeGroup(join(path, name))
  try {
    rmdirSync(path)
    return true
  } catch {
    return !existsSync(path)
  }
}

function list(folder: string): string[] {
  try {
    const entries = readdirSync(folder, { withFileTypes: true })
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name)
  } catch {
    return []
  }
}
