/** A host with a Docker engine and a storage node, both real, in namespaces of its own. */
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Box, BoxProgram, type BoxProcess, type CommandResult, waitUntil } from './box.ts'
import { findProgram, SYSTEM_PATH } from './images.ts'

const PROGRAM =
  process.env['HOLDFAST_PROGRAM'] ?? new URL('../../packages/cli/bin/holdfast.js', import.meta.url).pathname
/** Nothing that the test machine keeps for its own engine. */
const DOCKER = existsSync('/usr/bin/docker') ? '/usr/bin/docker' : (findProgram('docker') ?? 'docker')

const ENGINE = /^(\S*\/)?(dockerd|containerd|docker|containerd-shim\S*) /
const FRONT = /\/front-main\.js /

/** The cable to the other hosts. */
export interface Wire {
  connect(box: Box, address: string): Promise<void>
  up(name: string): Promise<void>
  down(name: string): Promise<void>
}

export interface DockerHostOptions {
  readonly name: string
  readonly address: string
  /** Of the whole bed. */
  readonly folder: string
  readonly coordinator: string
  readonly leaseSeconds: number
  /** Below which the engine's control groups are. */
  readonly cgroup: string
  readonly wire: Wire
  readonly dockerdArguments: readonly string[]
  readonly nodeArguments: readonly string[]
}

/** Fields of `volume inspect -o json` that are used here. */
export interface VolumeObject {
  readonly name: string
  readonly state: string
  readonly primary?: string | null
  readonly inSync: readonly string[]
  readonly replicas: readonly string[]
}

export class DockerHost {
  readonly name: string
  readonly address: string
  readonly folder: string
  readonly dockerd: BoxProgram
  readonly node: BoxProgram
  readonly #options: DockerHostOptions
  #box: Box | undefined
  #storageDriver = 'overlay2'

  constructor(options: DockerHostOptions) {
    this.#options = options
    this.name = options.name
    this.address = options.address
    this.folder = join(options.folder, options.name)
    mkdirSync(this.folder, { recursive: true })
    this.dockerd = new BoxProgram(`dockerd on ${this.name}`, join(this.folder, 'dockerd.log'))
    this.node = new BoxProgram(`node ${this.name}`, join(this.folder, 'node.log'))
  }

  get box(): Box {
    if (this.#box === undefined) throw new Error(`host ${this.name} is off`)
    return this.#box
  }

  get dataFolder(): string {
    return join(this.folder, 'data')
  }

  get api(): string {
    return `http://${this.address}:5705`
  }

  /** Power on, nothing started yet. */
  async boot(): Promise<void> {
    this.#box = await Box.start(this.name, this.#options.folder, randomUUID())
    await this.#options.wire.connect(this.#box, this.address)
  }

  /** Power on, the node, the engine. */
  async start(): Promise<void> {
    await this.boot()
    await this.startNode()
    await this.startDockerd()
  }

  async startNode(): Promise<void> {
    const { address, name } = this
    const command = [
      [process.execPath, PROGRAM, 'node', '--name', name, '--data-dir', this.dataFolder],
      ['--coordinator', this.#options.coordinator, '--lease-ttl', String(this.#options.leaseSeconds)],
      ['--nbd', `${address}:10809`, '--nbd-socket', '/run/holdfast/nbd.sock'],
      ['--api', `${address}:5705`],
      ['--peer', `${address}:5710`, '--advertise', address],
      this.#options.nodeArguments,
    ].flat()
    await this.node.start(this.box, command, (output) => /^ready /m.test(output))
  }

  async startDockerd(extra: readonly string[] = []): Promise<void> {
    try {
      await this.#startDockerd(extra)
    } catch (error) {
      if (this.#storageDriver === 'vfs' || !this.dockerd.tail(20).includes('overlay')) throw error
      this.#storageDriver = 'vfs'
      await this.#startDockerd(extra)
    }
  }

  async #startDockerd(extra: readonly string[]): Promise<void> {
    // Nothing but the plugins is kept in there, and a killed engine leaves a file of its process behind.
    const config = join(this.folder, 'daemon.json')
    writeFileSync(config, '{}')
    const command = [
      [findProgram('dockerd') ?? 'dockerd', '--config-file', config],
      ['--data-root', join(this.folder, 'docker')],
      ['--exec-root', '/run/docker', '--pidfile', '/run/docker.pid', '-H', 'unix:///run/docker.sock'],
      ['--storage-driver', this.#storageDriver],
      ['--iptables=false', '--ip6tables=false', '--ip-masq=false'],
      ['--bridge', 'none', '--cgroup-parent', this.#options.cgroup, '--shutdown-timeout', '3'],
      ['--log-level', 'warn'],
      [...this.#options.dockerdArguments, ...extra],
    ].flat()
    const serves = async (): Promise<boolean> => (await this.tryDocker(['version'], 5000)).code === 0
    await this.dockerd.start(this.box, command, serves, { PATH: SYSTEM_PATH })
  }

  /** Runs `docker` here, to its end; never throws for what it says. */
  async tryDocker(args: readonly string[], timeoutMs = 60_000): Promise<CommandResult> {
    const env = { DOCKER_HOST: 'unix:///run/docker.sock', DOCKER_CONFIG: join(this.folder, 'docker-config') }
    return await this.box.run([DOCKER, ...args], timeoutMs, env)
  }

  /** Its stdout; throws with what it said. */
  async docker(args: readonly string[], timeoutMs = 60_000): Promise<string> {
    const { code, stdout, stderr } = await this.tryDocker(args, timeoutMs)
    if (code === 0) return stdout.trim()
    const what = args.join(' ').slice(0, 300)
    throw new Error(`docker ${what} failed on ${this.name} (${code}): ${stderr.trim()}`)
  }

  async compose(args: readonly string[], timeoutMs = 60_000): Promise<CommandResult> {
    const env = { DOCKER_HOST: 'unix:///run/docker.sock', COMPOSE_API_VERSION: 'auto' }
    return await this.box.run(['docker-compose', ...args], timeoutMs, env)
  }

  /** The command line against this host's node. */
  async tryHoldfast(args: readonly string[], timeoutMs = 30_000): Promise<CommandResult> {
    return await this.box.run([process.execPath, PROGRAM, ...args, '--api', this.api], timeoutMs)
  }

  async holdfast(args: readonly string[], timeoutMs = 30_000): Promise<string> {
    const { code, stdout, stderr } = await this.tryHoldfast(args, timeoutMs)
    if (code === 0) return stdout.trim()
    throw new Error(`holdfast ${args.join(' ')} failed on ${this.name} (${code}): ${stderr.trim()}`)
  }

  async volume(name: string): Promise<VolumeObject> {
    return JSON.parse(await this.holdfast(['volume', 'inspect', name, '-o', 'json'])) as VolumeObject
  }

  /** Names of all volumes of the cluster. */
  async volumes(): Promise<string[]> {
    const found = JSON.parse(await this.holdfast(['volume', 'ls', '-o', 'json'])) as readonly VolumeObject[]
    return found.map(({ name }) => name).toSorted()
  }

  async healthy(name: string, replicas: number, ms = 30_000): Promise<void> {
    await waitUntil(`volume ${name} to have ${replicas} copies in sync`, ms, async () => {
      const { inSync, state } = await this.volume(name)
      return state === 'healthy' && inSync.length === replicas
    }, 100)
  }

  /** Without warning: the network goes first, so that nobody is told, then everything. */
  async kill(): Promise<void> {
    await this.partition()
    await this.box.kill()
    this.#box = undefined
  }

  async partition(): Promise<void> {
    await this.#options.wire.down(this.name)
  }

  async heal(): Promise<void> {
    await this.#options.wire.up(this.name)
  }

  /** Mount points of volumes: whatever lies below the node's folder. */
  volumeMounts(): string[] {
    return this.box.mounts().filter((path) => path.startsWith(this.dataFolder))
  }

  /**
   * Processes here that are neither the node nor the engine's: containers, and what the node has started. One
   * keeper of the plugin's socket, which outlives nodes, is part of the node; a second one is listed.
   */
  helpers(): BoxProcess[] {
    const node = this.node.running ? this.node.pid : undefined
    const others = this.box.processes().filter(({ pid, line }) => pid !== node && !ENGINE.test(`${line} `))
    const front = others.find(({ line }) => FRONT.test(line))
    return others.filter((one) => one !== front)
  }

  /** Throws with what e2fsck says unless the filesystem of a volume that is not in use is clean. */
  async fsck(volume: string): Promise<void> {
    const folder = '/run/fsck'
    const uri = `nbd+unix:///${volume}?socket=/run/holdfast/nbd.sock`
    const check = `mkdir -p ${folder} && nbdfuse -r ${folder} '${uri}' & fuse=$!
      while [ ! -e ${folder}/nbd ] && kill -0 $fuse; do sleep 0.05; done
      e2fsck -n -f ${folder}/nbd; code=$?
      fusermount3 -u ${folder} || fusermount -u ${folder} || umount ${folder}; wait; exit $code`
    const { code, stdout, stderr } = await this.box.run(['sh', '-c', check], 60_000)
    if (code !== 0) throw new Error(`the filesystem of ${volume} is damaged: ${stdout} ${stderr}`)
  }

  /** Ends everything, also what is off already. */
  async close(): Promise<void> {
    await this.#box?.kill()
    this.#box = undefined
  }

  logs(): string {
    return [this.node, this.dockerd].map((one) => `--- ${one.name}\n${one.tail()}`).join('\n')
  }

  /** Text of a file of this host's folder, '' if there is none. */
  read(path: string): string {
    try {
      return readFileSync(join(this.folder, path), 'utf8')
    } catch {
      return ''
    }
  }
}
