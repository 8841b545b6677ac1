/** One node, put together. The order in which its parts start and stop is all that this file decides. */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { startApi } from '@holdfast/api'
import { programArguments } from '@holdfast/attach'
import {
  type Coordinator,
  HoldfastError,
  incarnation,
  type Random,
  type Scheduler,
} from '@holdfast/base'
import { SharedCoordinator } from '@holdfast/coordinator/shared'
import { nativeChecksum, openDisk } from '@holdfast/disk'
import { createEngine, type Engine, type EngineSelf } from '@holdfast/engine'
import { createPeerNetwork, type HandedLink, type ListeningPeerNetwork } from '@holdfast/peer-link'
import { keepAwakeMetric, type NbdHandle, openCoordinator, openKeepAwake, startNbd } from './adapters.ts'
import { formatAddress, type ListenAddress } from './address.ts'
import { findClusterId } from './cluster-id.ts'
import type { NodeConfig } from './config.ts'
import { claimDataDir, lockDataDir } from './data-dir.ts'
import type { KeepAwake } from './keep-awake.ts'
import { LateEngine } from './late-engine.ts'
import { LateMounts, openHostVolumes } from './host-volumes.ts'
import { createLog, type NodeLog } from './logger.ts'
import { cryptoRandom, systemClock, systemScheduler } from './production-ports.ts'
import { Shards } from './shards.ts'

const BOOT_ID_PATH = '/proc/sys/kernel/random/boot_id'
const INCARNATION_DIGITS = 16
const READY_POLL_MS = 10
/** Who asked the API gets this long to see the answer. */
const API_CLOSE_MS = 2_000

/** `host:port`, with the real port where 0 was asked for. */
export interface NodeAddresses {
  readonly nbd: string
  readonly api: string
  readonly peer: string
}

export interface StorageNode {
  /** Resolves when the node takes requests; rejects when it can't start or is closed before. */
  readonly serving: Promise<void>
  /** Known once it serves. */
  addresses(): NodeAddresses
  /** Hands primaries over, flushes, gives everything back. Idempotent; never rejects for a failed start. */
  close(): Promise<void>
}

/** @throws HoldfastError that says what is in the way: directory, addresses, another cluster. */
export async function startStorageNode(
  config: NodeConfig,
  log: NodeLog = createLog(config.logLevel, config.name),
): Promise<{ readonly addresses: NodeAddresses; close(): Promise<void> }> {
  const node = openStorageNode(config, log)
  try {
    await node.serving
  } catch (error) {
    await node.close()
    throw error
  }
  return { addresses: node.addresses(), close: () => node.close() }
}

/** Begins to start a node; for those who want to be able to stop it meanwhile. */
export function openStorageNode(config: NodeConfig, log: NodeLog): StorageNode {
  return new Assembly(config, log)
}

class Assembly implements StorageNode {
  readonly serving: Promise<void>
  readonly #config: NodeConfig
  readonly #log: NodeLog
  readonly #scheduler: Scheduler = systemScheduler
  readonly #random: Random = cryptoRandom
  readonly #late: LateEngine
  readonly #mounts = new LateMounts()
  readonly #bootId: string
  /** What was opened, in that order; closed from the end. */
  readonly #opened: (() => Promise<void>)[] = []
  #addresses: NodeAddresses | undefined
  #closed: Promise<void> | undefined
  #cancelWait = (): void => {}
  #nbd: NbdHandle | undefined
  #keepAwake: KeepAwake | undefined
  /** The others than the first, if there are any. */
  #shards: Shards | undefined

  constructor(config: NodeConfig, log: NodeLog) {
    this.#config = config
    this.#log = log
    this.#late = new LateEngine(config.name)
    this.#bootId = readBootId(this.#random)
    this.serving = this.#start()
    // Whoever closes early need not also listen here.
    this.serving.catch(() => {})
  }

  addresses(): NodeAddresses {
    if (this.#addresses === undefined)
      throw new HoldfastError('HF_UNAVAILABLE', 'the node does not serve yet')
    return this.#addresses
  }

  close(): Promise<void> {
    this.#closed ??= this.#closeAll()
    return this.#closed
  }

  async #closeAll(): Promise<void> {
    this.#cancelWait()
    await this.serving.catch(() => {})
    for (;;) {
      const close = this.#opened.pop()
      if (close === undefined) return
      await close()
    }
  }

  async #start(): Promise<void> {
    const config = this.#config
    const lock = lockDataDir(config.dataDir)
    this.#opened.push(async () => lock.release())
    const coordinator = await this.#openCoordinator()
    this.#stopIfClosed()
    const cluster = await this.#clusterId(coordinator)
    claimDataDir(config.dataDir, { cluster, node: config.name })
    const self = {
      node: config.name,
      incarnation: incarnation(this.#random.hex(INCARNATION_DIGITS)),
      cluster,
    }
    const shared = this.#startShards(coordinator, cluster)
    const network = await this.#openNetwork(self)
    this.#stopIfClosed()
    const api = await this.#openApi()
    const nbd = await this.#openNbd()
    await this.#openDockerPlugin()
    this.#stopIfClosed()
    const ports = { peerPort: network.address.port, apiPort: api.port, nbdPort: nbd.port }
    this.#addresses = {
      nbd: formatAddress(nbd),
      api: formatAddress(api),
      peer: formatAddress({ host: config.peer.host, port: network.address.port }),
    }
    const { advertise, labels } = config
    const { node, incarnation: life } = self
    const engineSelf = { node, incarnation: life, ...ports, host: advertise, labels }
    const engine = this.#createEngine(engineSelf, network, shared?.local() ?? coordinator)
    await this.#untilReady(engine)
    await this.#openHostVolumes(engine)
    this.#openKeepAwake(network)
    this.#log.event('info', 'serving', {
      ...this.#addresses,
      cluster,
      incarnation: self.incarnation,
    })
  }

  #stopIfClosed(): void {
    if (this.#closed !== undefined)
      throw new HoldfastError('HF_UNAVAILABLE', 'stopped before it served')
  }

  async #openCoordinator(): Promise<Coordinator> {
    const coordinator = await openCoordinator(this.#config, this.#log)
    let open = true
    this.#opened.push(async () => {
      if (open) await new Promise<void>((done) => coordinator.close(done))
    })
    return {
      holdLease: (ttlMs, handler) => coordinator.holdLease(ttlMs, handler),
      leaseValidUntil: () => coordinator.leaseValidUntil(),
      range: (prefix, done) => coordinator.range(prefix, done),
      transact: (transaction, done) => coordinator.transact(transaction, done),
      watch: (prefix, handler) => coordinator.watch(prefix, handler),
      // The engine closes it when it stops; without an engine we do.
      close: (done) => {
        open = false
        coordinator.close(done)
      },
    }
  }

  /** Their threads begin now, and what they do when the main thread's engine starts. */
  #startShards(coordinator: Coordinator, cluster: string): SharedCoordinator | undefined {
    const { shardCount: count, name: node, logLevel, dataDir, keepAwake } = this.#config
    if (count === 1) return undefined
    const shared = new SharedCoordinator(coordinator)
    const birth = { node, logLevel, dataDir, bootId: this.#bootId, cluster, settings: this.#engineSettings, keepAwake }
    const shards = new Shards({ count, birth, coordinator: shared, nbdClosed: () => this.#nbd?.returned() })
    this.#opened.push(() => shards.abandon())
    this.#shards = shards
    return shared
  }

  get #engineSettings() {
    const { leaseTtlMs, replaceAfterMs } = this.#config
    return { leaseTtlMs, replaceAfterMs }
  }

  async #clusterId(coordinator: Coordinator): Promise<string> {
    const search = findClusterId({
      coordinator,
      random: this.#random,
      scheduler: this.#scheduler,
      events: this.#log,
    })
    this.#cancelWait = search.cancel
    const id = await search.id
    this.#stopIfClosed()
    return id
  }

  async #openNetwork(
    self: Parameters<typeof createPeerNetwork>[0]['self'],
  ): Promise<ListeningPeerNetwork> {
    const { peer, shardCount: count } = this.#config
    const handOver = (handed: HandedLink): void => this.#shards?.handLink(handed)
    const network = await listening('peer', peer, () =>
      createPeerNetwork({ self, listen: peer, events: this.#log, shard: { index: 0, count }, handOver }),
    )
    this.#opened.push(() => network.close())
    return network
  }

  async #openApi(): Promise<ListenAddress> {
    const { api, apiToken } = this.#config
    const handle = await startApi({
      ...api,
      admin: this.#late.admin,
      mounts: this.#mounts,
      statistics: () => this.#late.statistics(),
      extraMetrics: () => [...(this.#nbd?.metrics() ?? []), keepAwakeMetric(this.#awakeCount)],
      refresh: async () => this.#shards?.refresh(),
      events: this.#log,
      token: apiToken,
    })
    this.#opened.push(() => withinMs(API_CLOSE_MS, handle.close()))
    return handle
  }

  async #openNbd(): Promise<ListenAddress> {
    const handle = await startNbd(this.#config, this.#late.exports, this.#shards, this.#log)
    this.#nbd = handle
    this.#opened.push(() => handle.close())
    return handle.address
  }

  #openKeepAwake(network: ListeningPeerNetwork): void {
    const { keepAwake, shardCount: count } = this.#config
    if (!keepAwake) return
    const work = (): number => (this.#nbd?.requests() ?? 0) + network.received
    const opened = openKeepAwake({ index: 0, count }, work, this.#scheduler, this.#log)
    this.#keepAwake = opened
    this.#opened.push(async () => opened?.close())
  }

  get #awakeCount(): number {
    return Number(this.#keepAwake?.awake ?? false) + (this.#shards?.awakeCount ?? 0)
  }

  async #openDockerPlugin(): Promise<void> {
    const { dockerPlugin: socketPath } = this.#config
    if (socketPath === undefined) return
    const { startDockerPlugin } = await import('@holdfast/docker-plugin')
    const { admin } = this.#late
    const plugin = await startDockerPlugin({
      socketPath,
      nodeSocketPath: join(dirname(this.#config.deviceSocket), 'docker.sock'),
      programArguments,
      admin,
      mounts: this.#mounts,
      ready: () => this.#mounts.ready(),
      events: this.#log,
    })
    this.#opened.push(() => plugin.close())
  }

  async #openHostVolumes(engine: Engine): Promise<void> {
    const mounts = await openHostVolumes(this.#config, engine, this.#bootId, this.#log)
    this.#mounts.set(mounts)
    this.#opened.push(() => mounts.close())
    this.#stopIfClosed()
  }

  #createEngine(self: EngineSelf, network: ListeningPeerNetwork, coordinator: Coordinator): Engine {
    const shards = this.#shards
    const shard = { index: 0, count: this.#config.shardCount }
    const engine = createEngine({
      self,
      bootId: this.#bootId,
      shard,
      ports: {
        clock: systemClock,
        scheduler: this.#scheduler,
        random: this.#random,
        disk: openDisk(this.#config.dataDir, shard),
        checksum: nativeChecksum,
        network,
        coordinator,
        events: this.#log,
      },
      settings: this.#engineSettings,
    })
    // Before the servers' own entries: they close first, so that nothing new comes while it stops.
    this.#opened.splice(this.#config.dockerPlugin === undefined ? -2 : -3, 0, async () => {
      // Together: the coordinator is given back when the last of them has closed it.
      await Promise.all([new Promise<void>((done) => engine.stop(done)), shards?.stop()])
    })
    engine.start()
    shards?.start(self)
    this.#late.set(engine, shards)
    return engine
  }

  #untilReady(engine: Engine): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        if (engine.admin.readiness().ready && this.#shards?.ready !== false) resolve()
        else cancel = this.#scheduler.after(READY_POLL_MS, look)
      }
      let cancel = (): void => {}
      this.#cancelWait = () => {
        cancel()
        reject(new HoldfastError('HF_UNAVAILABLE', 'stopped before it served'))
      }
      look()
    })
  }
}

/** Where there is none, each start counts as one after a crash of the machine, which is the safe side. */
function readBootId(random: Random): string {
  return existsSync(BOOT_ID_PATH) ? readFileSync(BOOT_ID_PATH, 'utf8').trim() : random.hex(32)
}

async function listening<T>(
  flag: string,
  address: ListenAddress,
  open: () => Promise<T>,
): Promise<T> {
  try {
    return await open()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (typeof code !== 'string' || !code.startsWith('E')) throw error
    const where = formatAddress(address)
    const reason = code === 'EADDRINUSE' ? 'it is in use' : code
    throw new HoldfastError(
      'HF_CONFLICT',
      `can't listen on ${where}: ${reason}: choose another address with --${flag}`,
      {},
      { cause: error },
    )
  }
}

function withinMs(ms: number, work: Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms)
    work.finally(() => clearTimeout(timer)).then(resolve, reject)
  })
}
