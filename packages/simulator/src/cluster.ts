/** A cluster of production engines in one process under one seed: nodes that come, crash and go, and what they serve. */
import { type Checksum, type Coordinator, incarnation, keys, nodeId, type VolumeRecord } from '@holdfast/base'
import { createEngine, type Engine, type EngineSettings } from '@holdfast/engine'
import type { LogSettings } from '@holdfast/volume-log'
import { Invariants } from './invariants.ts'
import type { ObservedCluster, SimNode } from './observed.ts'
import { RegisterChecker } from './register-checker.ts'
import { SimCoordinatorStore } from './sim-coordinator.ts'
import { SimPlatter } from './sim-disk.ts'
import { type SimEndpoint, SimNetwork } from './sim-network.ts'
import { stallThreads, threadCoordinators, ThreadedEngine } from './sim-threads.ts'
import type { WireVersion } from './wire-versions.ts'
import { Life, NodeClock, type SeededRandom, World } from './world.ts'

const BLOCK = 4096
/** Invariants are looked at after so many events. */
const EVENTS_PER_LOOK = 16

interface KnownRecord {
  readonly key: string
  value: string | undefined
  record: VolumeRecord | undefined
}

export interface ClusterOptions {
  readonly seed: number
  readonly checksum: Checksum
  readonly nodeCount: number
  readonly leaseTtlMs?: number
  readonly replaceAfterMs?: number
  /** Milliseconds of a host per millisecond of the world, per node; 1 where absent. */
  readonly clockRates?: readonly number[]
  /** Send messages through the codec, in that version; objects travel where absent. */
  readonly wire?: WireVersion | undefined
  /** Threads of each node; 1 where absent. */
  readonly shards?: readonly number[] | undefined
  /** Labels of each node, for placement. */
  readonly labels?: ((index: number) => Readonly<Record<string, string>>) | undefined
  /** Keeps the timeline for people. */
  readonly verbose?: boolean
  /** Small segments, and the log's own settings, so that it goes through many of them in a short time. */
  readonly log?: SimLog | undefined
}

/** Of all logs of a run. */
export interface SimLog {
  readonly segmentBlocks: number
  readonly settings: Partial<LogSettings>
  readonly maintenanceMs: number
  /** Share of the flushes that clients ask for where this is absent. */
  readonly flushShare: number
}

export class SimCluster implements ObservedCluster {
  readonly world: World
  readonly random: SeededRandom
  readonly network: SimNetwork
  readonly coordinator: SimCoordinatorStore
  readonly nodes: SimNode[] = []
  readonly invariants: Invariants
  readonly violations: string[] = []
  /** Errors that clients got; whether they are allowed depends on the faults. */
  readonly clientErrors: string[] = []
  /** Single threads of nodes that have several are held up. */
  threadsStall = true
  readonly #checkers = new Map<string, RegisterChecker>()
  /** Parsed once per change: it is looked at all the time. */
  readonly #records = new Map<string, KnownRecord>()
  readonly #options: ClusterOptions
  #events = 0

  constructor(options: ClusterOptions) {
    this.#options = options
    this.world = new World(options.seed)
    this.random = this.world.random.child()
    this.network = new SimNetwork(this.world)
    this.coordinator = new SimCoordinatorStore(this.world)
    this.invariants = new Invariants(this)
    for (let index = 0; index < options.nodeCount; index++) this.addNode()
  }

  /** A node joins; returns it. */
  addNode(): SimNode {
    const index = this.nodes.length
    const { checksum, clockRates, wire, labels } = this.#options
    const node: SimNode = {
      name: nodeId(`n${index + 1}`),
      platter: new SimPlatter({ world: this.world, checksum }),
      clock: new NodeClock(this.world, clockRates?.[index] ?? 1),
      labels: labels?.(index) ?? {},
      life: new Life(),
      engine: undefined,
      endpoints: [],
      threads: [],
      wire,
      bootId: 'boot-1',
      lives: 0,
      stopping: undefined,
    }
    this.nodes.push(node)
    this.start(node)
    return node
  }

  start(node: SimNode): void {
    const { world } = this
    node.life = new Life()
    node.clock.wakeUp()
    node.lives++
    const life = incarnation(`${node.name}-${node.lives}`)
    const { name, wire } = node
    const count = this.#options.shards?.[this.nodes.indexOf(node)] ?? 1
    node.threads = Array.from({ length: count }, (_, index) => (index === 0 ? node.life : new Life()))
    node.endpoints = node.threads.map((thread, shard) => {
      return { node: name, incarnation: life, shard, life: thread, wire, accept: undefined }
    })
    const real = this.coordinator.client(name, node.life, node.clock)
    const coordinators = count === 1 ? [real] : threadCoordinators(world, this.random.child(), real, node.threads)
    const settings: Partial<EngineSettings> = {
      segmentBlocks: this.#options.log?.segmentBlocks,
      log: this.#options.log?.settings,
      ...(this.#options.log === undefined ? {} : { maintenanceMs: this.#options.log.maintenanceMs }),
      leaseTtlMs: this.#options.leaseTtlMs ?? 2_000,
      ...(this.#options.replaceAfterMs === undefined ? {} : { replaceAfterMs: this.#options.replaceAfterMs }),
    }
    const engines = node.threads.map((thread, index) => {
      return createEngine({
        self: { node: name, incarnation: life, host: name, peerPort: 1, apiPort: 1, nbdPort: 1, labels: node.labels },
        bootId: node.bootId,
        shard: { index, count },
        ports: {
          clock: node.clock,
          scheduler: world.scheduler(thread, node.clock),
          random: this.random.child(),
          disk: node.platter.attach(thread),
          checksum: this.#options.checksum,
          network: this.network.attach(node.endpoints[index] as SimEndpoint),
          coordinator: coordinators[index] as Coordinator,
          events: {
            event: (level, message, fields) => {
              if (this.#options.verbose === true) {
                world.note(`${name}${index === 0 ? '' : `.${index}`} ${level} ${message} ${JSON.stringify(fields ?? {})}`)
              }
            },
          },
        },
        settings,
      })
    })
    node.engine = count === 1 ? (engines[0] as Engine) : new ThreadedEngine(engines)
    world.note(`${name} starts`)
    node.engine.start()
    if (count > 1) stallThreads(world, this.random.child(), node.threads, () => this.threadsStall)
  }

  /** kill -9: the page cache stays, the connections close. */
  crash(node: SimNode): void {
    if (!node.life.alive) return
    this.world.note(`${node.name} crashes`)
    for (const thread of [node.life, ...node.threads]) thread.alive = false
    node.engine = undefined
    if (node.platter.flipped) this.invariants.expectLosses()
    for (const endpoint of node.endpoints) this.network.processEnded(endpoint)
  }

  /** Hosts lose power at the same moment: unsynced pages go too. */
  crashHosts(nodes: readonly SimNode[]): void {
    for (const node of nodes) this.crash(node)
    this.invariants.hostsLost(nodes)
    for (const node of nodes) {
      this.world.note(`${node.name} loses its page cache`)
      node.platter.hostCrashed()
      node.bootId = `boot-${node.lives + 1}`
    }
  }

  /** SIGTERM, and the next life with another version of the wire format perhaps. */
  restartCleanly(node: SimNode, wire: WireVersion | undefined): void {
    const { engine, life } = node
    if (!life.alive || engine === undefined) return
    this.world.note(`${node.name} is asked to stop`)
    node.stopping = life
    engine.stop(() => {
      if (!life.alive) return
      this.world.note(`${node.name} has stopped`)
      this.crash(node)
      if (node.wire !== undefined) node.wire = wire
      this.start(node)
    })
  }

  restart(node: SimNode): void {
    if (!node.life.alive) this.start(node)
  }

  /** SIGSTOP for a while. */
  pause(node: SimNode, ms: number): void {
    this.world.note(`${node.name} stops for ${ms.toFixed(0)} ms`)
    // Never shorter than a stop under way: what was put off until then would come out of order.
    for (const thread of node.threads) thread.pausedUntil = Math.max(thread.pausedUntil, this.world.now + ms)
  }

  /** The machine sleeps for a while. Not while it is stopped or asleep already. */
  sleep(node: SimNode, ms: number): void {
    if (!node.life.alive || node.threads.some(({ pausedUntil }) => pausedUntil > this.world.now)) return
    this.world.note(`the machine of ${node.name} sleeps for ${ms.toFixed(0)} ms`)
    this.world.sleep(node.threads, node.clock, ms)
  }

  get alive(): SimNode[] {
    return this.nodes.filter((node) => node.life.alive)
  }

  checker(volume: string): RegisterChecker {
    let checker = this.#checkers.get(volume)
    if (checker === undefined) {
      checker = new RegisterChecker()
      this.#checkers.set(volume, checker)
    }
    return checker
  }
  get checkers(): ReadonlyMap<string, RegisterChecker> {
    return this.#checkers
  }

  violation(text: string): void {
    this.violations.push(text)
    this.world.note(`violation: ${text}`)
  }

  clientError(text: string): void {
    this.clientErrors.push(text)
    this.world.note(text)
  }

  run(ms: number): void {
    this.#runTo(this.world.now + ms)
  }

  /** Runs until it holds; false when it does not within `ms`. */
  runUntil(ms: number, holds: () => boolean): boolean {
    const end = this.world.now + ms
    while (this.world.now < end && this.violations.length === 0) {
      if (holds()) return true
      this.#runTo(Math.min(end, this.world.now + 20))
    }
    return holds()
  }

  #runTo(end: number): void {
    try {
      this.world.run(end, () => {
        if (++this.#events % EVENTS_PER_LOOK === 0) this.invariants.look()
        return this.violations.length > 0
      })
    } catch (error) {
      this.violation(`an engine threw: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`)
    }
  }

  createVolume(name: string, replicaCount: number, blocks: number): void {
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
        engine.admin.createVolume(request).catch((error: unknown) => {
          problem = error
        })
      }
      return this.alive.some((node) => node.engine?.admin.volume('default', name)?.state === 'healthy')
    })
    if (!done) this.violation(`volume ${name} was not created: ${String(problem)}`)
  }

  /** As the coordinator has it, whoever has heard of it. */
  record(name: string): VolumeRecord | undefined {
    let known = this.#records.get(name)
    if (known === undefined) {
      known = { key: keys.volume('default', name), value: undefined, record: undefined }
      this.#records.set(name, known)
    }
    const value = this.coordinator.get(known.key)
    if (known.value === value) return known.record
    known.value = value
    known.record = value === undefined ? undefined : (JSON.parse(value) as VolumeRecord)
    return known.record
  }

  primaryOf(name: string): SimNode | undefined {
    const id = this.record(name)?.id
    return this.nodes.find((node) => id !== undefined && node.engine?.replicas.get(id)?.primary?.serving === true)
  }

  /** Nobody can serve: the log of an in-sync copy has a hole, and no other in-sync copy is surely complete. */
  isDamaged(name: string): boolean {
    const record = this.record(name)
    if (record === undefined || this.primaryOf(name) !== undefined) return false
    const logs = record.inSync.map((member) => {
      return this.nodes.find((one) => one.name === member)?.engine?.replicas.get(record.id)?.log
    })
    return logs.some((log) => log?.state === 'damaged') && logs.every((log) => log?.suspect === true || log?.state === 'damaged')
  }

  /** True when every copy is in sync and somebody serves. */
  healthy(name: string): boolean {
    return this.primaryOf(name)?.engine?.admin.volume('default', name)?.state === 'healthy'
  }
}
