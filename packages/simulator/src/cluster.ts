/** A cluster of production engines in one process: nodes that crash, clients that check what they read. */
import {
  type Checksum,
  type ExportSession,
  incarnation,
  type NodeId,
  nodeId,
  type VolumeView,
} from '@holdfast/base'
import { createEngine, type Engine } from '@holdfast/engine'
import { RegisterChecker } from './register-checker.ts'
import { SimCoordinatorStore } from './sim-coordinator.ts'
import { SimPlatter } from './sim-disk.ts'
import { type SimEndpoint, SimNetwork } from './sim-network.ts'
import { Life, type SeededRandom, World } from './world.ts'

const BLOCK = 4096

export interface ClusterOptions {
  readonly seed: number
  readonly checksum: Checksum
  readonly nodeCount: number
  readonly leaseTtlMs?: number
  /** Keeps the timeline for people. */
  readonly verbose?: boolean
}

export interface SimNode {
  readonly name: NodeId
  readonly platter: SimPlatter
  life: Life
  engine: Engine | undefined
  endpoint: SimEndpoint | undefined
  bootId: string
  lives: number
}

export class SimCluster {
  readonly world: World
  readonly random: SeededRandom
  readonly network: SimNetwork
  readonly coordinator: SimCoordinatorStore
  readonly nodes: SimNode[]
  readonly checker = new RegisterChecker()
  readonly violations: string[] = []
  readonly #options: ClusterOptions

  constructor(options: ClusterOptions) {
    this.#options = options
    this.world = new World(options.seed)
    this.random = this.world.random.child()
    this.network = new SimNetwork(this.world)
    this.coordinator = new SimCoordinatorStore(this.world)
    this.nodes = Array.from({ length: options.nodeCount }, (_, index) => ({
      name: nodeId(`n${index + 1}`),
      platter: new SimPlatter({ world: this.world, checksum: options.checksum }),
      life: new Life(),
      engine: undefined,
      endpoint: undefined,
      bootId: 'boot-1',
      lives: 0,
    }))
    for (const node of this.nodes) this.start(node)
  }

  start(node: SimNode): void {
    const { world } = this
    node.life = new Life()
    node.lives++
    const life = incarnation(`${node.name}-${node.lives}`)
    node.endpoint = { node: node.name, incarnation: life, life: node.life, accept: undefined }
    const { name } = node
    node.engine = createEngine({
      self: {
        node: name,
        incarnation: life,
        host: name,
        peerPort: 1,
        apiPort: 1,
        nbdPort: 1,
        labels: {},
      },
      bootId: node.bootId,
      ports: {
        clock: world.clock(),
        scheduler: world.scheduler(node.life),
        random: this.random.child(),
        disk: node.platter.attach(node.life),
        checksum: this.#options.checksum,
        network: this.network.attach(node.endpoint),
        coordinator: this.coordinator.client(name, node.life),
        events: {
          event: (level, message, fields) => {
            if (this.#options.verbose === true) {
              world.note(`${name} ${level} ${message} ${JSON.stringify(fields ?? {})}`)
            }
          },
        },
      },
      settings: { leaseTtlMs: this.#options.leaseTtlMs ?? 2_000 },
    })
    world.note(`${name} starts`)
    node.engine.start()
  }

  /** kill -9: the page cache stays, the connections close. */
  crash(node: SimNode): void {
    if (!node.life.alive) return
    this.world.note(`${node.name} crashes`)
    node.life.alive = false
    node.engine = undefined
    if (node.endpoint !== undefined) this.network.processEnded(node.endpoint)
  }

  /** The host loses power: unsynced pages go too. */
  crashHost(node: SimNode): void {
    this.crash(node)
    this.world.note(`${node.name} loses its page cache`)
    node.platter.hostCrashed()
    node.bootId = `boot-${node.lives + 1}`
  }

  restart(node: SimNode): void {
    if (!node.life.alive) this.start(node)
  }

  /** SIGSTOP for a while. */
  pause(node: SimNode, ms: number): void {
    this.world.note(`${node.name} stops for ${ms.toFixed(0)} ms`)
    // Never shorter than a stop under way: what was put off until then would come out of order.
    node.life.pausedUntil = Math.max(node.life.pausedUntil, this.world.now + ms)
  }

  get alive(): SimNode[] {
    return this.nodes.filter((node) => node.life.alive)
  }

  run(ms: number, stop?: () => boolean): void {
    this.world.run(this.world.now + ms, () => this.violations.length > 0 || stop?.() === true)
  }

  /** Runs until it holds; false when it does not within `ms`. */
  runUntil(ms: number, holds: () => boolean): boolean {
    const end = this.world.now + ms
    while (this.world.now < end && this.violations.length === 0) {
      if (holds()) return true
      this.world.run(Math.min(end, this.world.now + 20))
    }
    return holds()
  }

  createVolume(name: string, replicaCount: number, blocks: number): void {
    let created: VolumeView | undefined
    let problem: unknown
    let asking = false
    const done = this.runUntil(60_000, () => {
      const engine = this.alive[0]?.engine
      const ready = this.alive.every((node) => node.engine?.admin.readiness().ready === true)
      const seen = engine?.admin.nodes().filter(({ alive }) => alive !== undefined).length
      if (!asking && ready && seen === this.nodes.length && engine !== undefined) {
        asking = true
        const sizeBytes = blocks * BLOCK
        const request = { name, namespace: 'default', sizeBytes, replicaCount, labels: {} }
        engine.admin.createVolume(request).then(
          (view) => {
            created = view
          },
          (error: unknown) => {
            problem = error
          },
        )
      }
      return this.alive.some((node) => node.engine?.admin.volume('default', name)?.state === 'healthy')
    })
    if (!done) this.violations.push(`volume ${name} was not created: ${String(problem ?? created)}`)
  }

  primaryOf(name: string): SimNode | undefined {
    return this.nodes.find((node) => {
      const view = node.engine?.admin.volume('default', name)
      return view !== undefined && node.engine?.replicas.get(view.record.id)?.primary?.serving === true
    })
  }

  /** True when every copy is in sync and somebody serves. */
  healthy(name: string): boolean {
    const primary = this.primaryOf(name)
    return primary?.engine?.admin.volume('default', name)?.state === 'healthy'
  }
}

/**
 * One client on one node. It alone writes its blocks, one write per block at a time; it reads those of the others too,
 * which is what shows a primary that serves although another was elected.
 */
export class SimClient {
  readonly #cluster: SimCluster
  readonly #volume: string
  readonly #blocks: readonly number[]
  readonly #readable: readonly number[]
  readonly #random: SeededRandom
  readonly #pending = new Map<number, (error: number) => void>()
  readonly #busy = new Set<number>()
  #session: ExportSession | undefined
  #life: Life | undefined
  #token = 0
  stopped = false
  operations = 0
  errors = 0

  constructor(
    cluster: SimCluster,
    volume: string,
    blocks: readonly number[],
    readable: readonly number[] = blocks,
  ) {
    this.#readable = readable
    this.#cluster = cluster
    this.#volume = volume
    this.#blocks = blocks
    this.#random = cluster.random.child()
    this.#loop()
  }

  /** Nothing is unanswered, or the node that would answer is gone and with it the question. */
  get idle(): boolean {
    return this.#busy.size === 0 || this.#life?.alive !== true
  }

  /** Reads every block once; `done` when all have answered. */
  readAll(done: () => void): void {
    let left = this.#blocks.length
    for (const block of this.#blocks) {
      this.#read(block, () => {
        if (--left === 0) done()
      })
    }
  }

  connect(): boolean {
    if (this.#session !== undefined && this.#life?.alive === true) return true
    this.#session = undefined
    this.#pending.clear()
    this.#busy.clear()
    const { alive } = this.#cluster
    const node = alive[this.#random.below(alive.length)]
    if (node?.engine?.exports.find(this.#volume) === undefined) return false
    this.#life = node.life
    this.#session = node.engine.exports.open(this.#volume, (token, error) => {
      const done = this.#pending.get(token)
      this.#pending.delete(token)
      done?.(error)
    })
    return true
  }

  #loop(): void {
    const { world } = this.#cluster
    world.schedule(this.#random.between(0.5, 8), undefined, () => {
      if (this.stopped) return
      const gone = this.#life !== undefined && !this.#life.alive
      if (gone) {
        // What the old session had sent may still be on its way: a client that moves takes longer than that.
        this.#life = undefined
        this.#session = undefined
        this.#busy.clear()
        this.#pending.clear()
        world.schedule(50, undefined, () => this.#loop())
        return
      }
      if (this.connect()) this.#operate()
      this.#loop()
    })
  }

  #operate(): void {
    const free = this.#blocks.filter((block) => !this.#busy.has(block))
    const block = free[this.#random.below(Math.max(1, free.length))]
    if (block === undefined) return
    this.operations++
    const kind = this.#random.fraction()
    const any = this.#readable[this.#random.below(this.#readable.length)] ?? block
    if (kind < 0.5) this.#write(block)
    else if (kind < 0.65) this.#read(block, () => {})
    else if (kind < 0.9) this.#read(any, () => {})
    else this.#flush()
  }

  #write(block: number): void {
    const session = this.#session
    if (session === undefined) return
    const { checker } = this.#cluster
    const version = checker.issue(block)
    const fua = this.#random.chance(0.1)
    this.#busy.add(block)
    const token = this.#expect((error) => {
      this.#busy.delete(block)
      if (error === 0) checker.acknowledged(block, version)
      else this.errors++
    })
    session.write(token, block * BLOCK, blockOf(block, version), 0, BLOCK, fua)
  }

  #read(block: number, then: () => void): void {
    const session = this.#session
    if (session === undefined) return
    const { checker, violations } = this.#cluster
    const floor = checker.floor(block)
    const target = new Uint8Array(BLOCK)
    const own = !this.#busy.has(block)
    if (own) this.#busy.add(block)
    const check = (error: number): void => {
      if (own) this.#busy.delete(block)
      if (error !== 0) this.errors++
      else {
        const version = versionOf(target, block)
        const wrong =
          version === undefined ? `block ${block}: contents of no version` : checker.read(block, version, floor)
        if (wrong !== undefined) {
          violations.push(wrong)
          this.#cluster.world.note(`violation: ${wrong}`)
        }
      }
      then()
    }
    const token = this.#expect(check)
    if (!session.read(token, block * BLOCK, BLOCK, target, 0)) return
    this.#pending.delete(token)
    check(0)
  }

  #flush(): void {
    this.#session?.flush(this.#expect(() => {}))
  }

  #expect(done: (error: number) => void): number {
    const token = ++this.#token
    this.#pending.set(token, done)
    return token
  }
}

/** Contents that name block and version at both ends. */
function blockOf(block: number, version: number): Uint8Array {
  const bytes = new Uint8Array(BLOCK)
  const view = new DataView(bytes.buffer)
  for (const at of [0, BLOCK - 8]) {
    view.setUint32(at, block)
    view.setUint32(at + 4, version)
  }
  return bytes
}

function versionOf(bytes: Uint8Array, block: number): number | undefined {
  const view = new DataView(bytes.buffer)
  const version = view.getUint32(4)
  if (view.getUint32(BLOCK - 4) !== version) return undefined
  if (version === 0) return view.getUint32(0) === 0 ? 0 : undefined
  return view.getUint32(0) === block && view.getUint32(BLOCK - 8) === block ? version : undefined
}

