/**
 * The brain of one node, or of one of its shards: opens the replicas the coordinator says it holds, routes messages
 * between them and the peers, keeps the beacons going, and answers the administrator.
 */
import {
  type AliveRecord,
  type ClusterAdmin,
  type EngineStatistics,
  type ExportCatalog,
  keys,
  type NodeId,
  type NodeRecord,
  ONLY_SHARD,
  type SessionId,
  type Shard,
  shardOf,
  timestamp,
  type VolumeId,
} from '@holdfast/base'
import { BatchPool, CrcCache, SummaryCache, WordPool } from '@holdfast/volume-log'
import type { PeerMessage, VolumeEpoch } from '@holdfast/wire'
import { Admin } from './admin.ts'
import { Attachments } from './attachments.ts'
import { ClusterView } from './cluster-view.ts'
import {
  defaultEngineSettings,
  derivedTimes,
  type EnginePorts,
  type EngineSelf,
  type EngineSettings,
  type NodeContext,
} from './context.ts'
import { ControllerHost } from './controller-host.ts'
import { Exports } from './exports.ts'
import { GrantGiver, GrantSeeker } from './grants.ts'
import { type Link, PeerTable, type Side } from './peer-table.ts'
import { RelayedSession } from './relay.ts'
import { Replica } from './replica.ts'
import { RestRation } from './rest-ration.ts'
import { Statistics } from './statistics.ts'

const ALIVE_REFRESH_MS = 30_000
/** A resting copy is looked at once in so many ticks. */
const RESTING_TICKS = 120
/** A node on which all copies rest and that nobody is connected to ticks once in so many. */
const QUIET_TICKS = 4
const CRC_CACHE_BYTES = 32 * 1024 * 1024
const SUMMARY_CACHE_BYTES = 16 * 1024 * 1024
const WORD_POOL_BYTES = 8 * 1024 * 1024

export interface EngineOptions {
  readonly self: EngineSelf
  readonly bootId: string
  readonly ports: EnginePorts
  readonly settings?: Partial<EngineSettings> | undefined
  /**
   * Which of the node's threads this is. An engine works only on the volumes of its shard; what the node does once
   * (saying who it is, the controller) is done by the first. Default: the only one.
   */
  readonly shard?: Shard | undefined
}

export interface Engine {
  readonly admin: ClusterAdmin
  readonly exports: ExportCatalog
  readonly attachments: Attachments
  start(): void
  statistics(): EngineStatistics
  /**
   * Hands primaries over where another copy is in sync, flushes, marks the logs as cleanly stopped. Who asks again
   * meanwhile hears of the same end.
   */
  stop(done: () => void): void
  /** Copies on this node, for tests and the simulator's checkers. */
  readonly replicas: ReadonlyMap<VolumeId, Replica>
}

export function createEngine(options: EngineOptions): Engine {
  return new NodeEngine(options)
}

class NodeEngine implements Engine {
  readonly replicas = new Map<VolumeId, Replica>()
  readonly admin: Admin
  readonly exports: Exports
  readonly attachments: Attachments
  readonly #context: NodeContext
  readonly #giver: GrantGiver
  readonly #seeker: GrantSeeker
  readonly #controller: ControllerHost
  readonly #relayed = new Map<Link, Map<SessionId, RelayedSession>>()
  readonly #removing = new Set<VolumeId>()
  /** Copies on the disk that were not opened so far: this node may have been replaced while it was away. */
  readonly #unopened = new Set<VolumeId>()
  /** Copies that want every tick. Added to by `#wake`. */
  readonly #awake = new Set<Replica>()
  /** Of `QUIET_TICKS` or 1, how many the tick that comes next stands for. */
  #nextTicks = 1
  #cancelTick: () => void = () => {}
  /** Where the round of all copies is, and how many are due. */
  #round: Iterator<Replica> = this.replicas.values()
  #roundDue = 0
  #stopWatching: () => void = () => {}
  #lastBeaconAt = Number.NEGATIVE_INFINITY
  #lastAliveAt = Number.NEGATIVE_INFINITY
  #started = false
  #stopping = false
  #ended = false
  /** Who asked for the end and has not heard of it yet. */
  readonly #stopped: (() => void)[] = []
  #registered = false

  constructor({ self, bootId, ports, settings: given, shard = ONLY_SHARD }: EngineOptions) {
    const settings = { ...defaultEngineSettings, ...given }
    const view = new ClusterView(ports.coordinator, ports.events)
    const peers = new PeerTable(self.node, ports.network, view, ports.clock, {
      opened: () => this.#evaluateAll(),
      message: (link, message, side) => this.#message(link, message, side),
      closed: (link, side) => this.#linkClosed(link, side),
    })
    this.#context = {
      ...ports,
      self,
      bootId,
      shard,
      settings,
      times: derivedTimes(settings.leaseTtlMs),
      lease: { held: false, serial: 0 },
      view,
      peers,
      statistics: new Statistics(),
      crcCache: new CrcCache(CRC_CACHE_BYTES / shard.count),
      summaryCache: new SummaryCache(SUMMARY_CACHE_BYTES / shard.count),
      wordPool: new WordPool(WORD_POOL_BYTES / shard.count),
      batchPool: new BatchPool((bytes) => ports.disk.allocate(bytes)),
      rests: new RestRation(),
    }
    this.#giver = new GrantGiver((volume, until) => {
      return this.replicas.get(volume.volume)?.promise(volume, until) ?? false
    })
    this.#seeker = new GrantSeeker((node, volume, until) => {
      const primary = this.replicas.get(volume.volume)?.primary
      if (primary?.scope.epoch === volume.epoch) primary.granted(node, until)
    })
    this.exports = new Exports(this.#context, (id) => this.replicas.get(id)?.primary)
    this.attachments = new Attachments(this.#context)
    this.admin = new Admin(this.#context, this.replicas)
    this.#controller = new ControllerHost(this.#context)
    view.onChange(() => this.#viewChanged())
  }

  start(): void {
    const { coordinator, lease, view, settings } = this.#context
    this.#started = true
    for (const id of this.#context.disk.list('volumes')) if (this.#works(id as VolumeId)) this.#unopened.add(id as VolumeId)
    coordinator.holdLease(settings.leaseTtlMs, {
      gained: () => {
        lease.held = true
        lease.serial++
        this.#wakeReplicas()
        this.#registered = false
        this.#announce()
        this.#evaluateAll()
      },
      lost: () => {
        lease.held = false
        this.#wakeReplicas()
        this.#context.events.event('warn', 'the lease at the coordinator is lost')
      },
    })
    this.#stopWatching = view.start()
    this.#tickLater()
  }

  statistics(): EngineStatistics {
    return this.#context.statistics.snapshot()
  }

  stop(done: () => void): void {
    if (this.#ended) {
      this.#context.scheduler.soon(done)
      return
    }
    this.#stopped.push(done)
    if (this.#stopping) return
    this.#stopping = true
    let left = 1
    const closeAll = (): void => {
      let open = 1
      const closed = (): void => {
        if (--open === 0) this.#end()
      }
      for (const replica of this.replicas.values()) {
        open++
        replica.close(true, closed)
      }
      closed()
    }
    const handedOver = (): void => {
      if (--left === 0) closeAll()
    }
    for (const replica of this.replicas.values()) {
      const record = this.#context.view.byId.get(replica.volume)?.record
      const to = record?.inSync.find((node) => this.#isAliveElsewhere(node))
      if (replica.primary === undefined || to === undefined) continue
      left++
      let counted = false
      const once = (): void => {
        if (!counted) handedOver()
        counted = true
      }
      replica.handOverTo(to, once)
      this.#whenNotPrimary(replica, once)
    }
    handedOver()
  }

  #isAliveElsewhere(node: NodeId): boolean {
    return node !== this.#context.self.node && this.#context.view.alive.has(node)
  }

  #whenNotPrimary(replica: Replica, then: () => void): void {
    if (replica.primary === undefined) then()
    else this.#context.scheduler.after(10, () => this.#whenNotPrimary(replica, then))
  }

  #end(): void {
    this.#started = false
    this.#stopWatching()
    this.exports.close()
    this.#context.peers.close()
    this.#context.coordinator.close(() => {
      this.#ended = true
      for (const done of this.#stopped.splice(0)) done()
    })
  }

  // --- what the coordinator tells

  #viewChanged(): void {
    const { view, self } = this.#context
    if (!view.synced) return
    for (const versioned of view.volumes.values()) {
      const { record } = versioned
      const mine = record.replicas.includes(self.node) && this.#works(record.id)
      const replica = this.replicas.get(record.id)
      if (mine && replica === undefined && !this.#removing.has(record.id) && !this.#stopping) {
        const opened = new Replica(this.#context, versioned, {
          roleChanged: (id) => this.exports.retarget(id),
          // One that was removed meanwhile is nobody's to tick.
          woken: (woken) => this.replicas.get(woken.volume) === woken && this.#wake(woken),
        })
        this.replicas.set(record.id, opened)
        this.#wake(opened)
      } else if (!mine && replica !== undefined && view.primaries.has(record.id)) {
        // A new primary works with a set that we are not in: our copy is surplus.
        this.#remove(record.id, 'this copy is no longer wanted')
      }
    }
    this.#removeDeleted()
    this.#removeUnopened()
    this.#evaluateAll()
    this.attachments.viewChanged()
    if (this.#isFirst) this.#controller.viewChanged()
  }

  /** Whether this shard works on the volume. */
  #works(id: VolumeId): boolean {
    const { index, count } = this.#context.shard
    return shardOf(id, count) === index
  }

  get #isFirst(): boolean {
    return this.#context.shard.index === 0
  }

  /** Data goes only on an explicit tombstone, never because a record is missing. */
  #removeDeleted(): void {
    const { view, self, coordinator } = this.#context
    for (const { key, modRevision, record } of view.tombstones.values()) {
      if (view.byId.has(record.id) || !this.#works(record.id)) continue
      if (this.replicas.has(record.id)) this.#remove(record.id, 'the volume was removed')
      if (this.#removing.has(record.id) || !record.holders.includes(self.node)) continue
      const left = { ...record, holders: record.holders.filter((node) => node !== self.node) }
      const compares = [{ key, modRevision }]
      this.#context.disk.remove(`volumes/${record.id}`)
      const put = { op: 'put', key, value: JSON.stringify(left) } as const
      coordinator.transact({ compares, operations: [put] }, () => {})
    }
  }

  /** Nor those of which nobody has heard: they stay until somebody knows better. */
  #removeUnopened(): void {
    const { view, disk, events, self } = this.#context
    for (const id of this.#unopened) {
      if (this.replicas.has(id) || this.#removing.has(id)) {
        this.#unopened.delete(id)
        continue
      }
      const record = view.byId.get(id)?.record
      const surplus = record !== undefined && !record.replicas.includes(self.node) && view.primaries.has(id)
      const deleted = record === undefined && view.tombstones.has(id)
      if (!surplus && !deleted) continue
      this.#unopened.delete(id)
      const reason = surplus ? 'it was replaced' : 'its volume was removed'
      events.event('info', `removing the local copy: ${reason} while this node was away`, { volume: id })
      disk.remove(`volumes/${id}`)
    }
  }

  #remove(id: VolumeId, reason: string): void {
    const replica = this.replicas.get(id)
    if (replica === undefined) return
    this.replicas.delete(id)
    this.#awake.delete(replica)
    this.#removing.add(id)
    const { view, disk, events, coordinator, self, statistics } = this.#context
    events.event('info', `removing the local copy: ${reason}`, { volume: id })
    replica.close(false, () => {
      disk.remove(`volumes/${id}`)
      this.#removing.delete(id)
      const holder = view.primaries.get(id)
      if (holder?.record.node === self.node) {
        const { key, modRevision } = holder
        const operations = [{ op: 'delete', key } as const]
        coordinator.transact({ compares: [{ key, modRevision }], operations }, () => {})
      }
      const tombstone = view.tombstones.get(id)?.record
      if (tombstone !== undefined) statistics.forget(`${tombstone.namespace}/${tombstone.name}`)
      this.#viewChanged()
    })
  }

  #evaluateAll(): void {
    for (const replica of this.replicas.values()) replica.evaluate()
    this.exports.retargetAll()
  }

  /** Says who we are and that we live. */
  #announce(): void {
    const { self, coordinator, disk, clock, lease, view, scheduler, shard } = this.#context
    if (!lease.held || this.#stopping || !this.#isFirst) return
    this.#lastAliveAt = clock.now()
    const known = view.nodes.get(self.node)?.record
    const record: NodeRecord = {
      name: self.node,
      host: self.host,
      peerPort: self.peerPort,
      apiPort: self.apiPort,
      nbdPort: self.nbdPort,
      labels: self.labels,
      draining: known?.draining ?? false,
      ...(shard.count === 1 ? {} : { shards: shard.count }),
    }
    const alive: AliveRecord = {
      name: self.node,
      incarnation: self.incarnation,
      ...disk.space(),
      since: timestamp(clock.wallMs()),
    }
    const compares = known === undefined ? [] : [{ key: keys.node(self.node), modRevision: view.nodes.get(self.node)?.modRevision ?? 0 }]
    coordinator.transact(
      {
        compares: view.synced ? compares : [{ key: keys.node(self.node), modRevision: 0 }],
        operations: [
          { op: 'put', key: keys.node(self.node), value: JSON.stringify(record) },
          { op: 'put', key: keys.aliveNode(self.node), value: JSON.stringify(alive), leased: true },
        ],
      },
      (result) => {
        if (result.kind === 'ok') this.#registered = true
        else scheduler.after(100, () => this.#registered || this.#announce())
      },
    )
  }

  // --- time

  #tickLater(): void {
    const quiet = this.#awake.size === 0 && this.exports.idle
    const ticks = quiet ? QUIET_TICKS : 1
    this.#nextTicks = ticks
    this.#cancelTick = this.#context.scheduler.after(ticks * this.#context.times.tickMs, () => {
      // From here on the next one is not put off, whoever wakes.
      this.#nextTicks = 1
      if (!this.#started) return
      this.#tick(ticks)
      this.#tickLater()
    })
  }

  #wake(replica: Replica): void {
    this.#awake.add(replica)
    if (this.#nextTicks === 1 || !this.#started) return
    this.#cancelTick()
    this.#tickLater()
  }

  /** Stands for so many ticks. */
  #tick(ticks: number): void {
    const { clock, times, lease } = this.#context
    const now = clock.now()
    if (now - this.#lastBeaconAt >= times.beaconMs) {
      this.#lastBeaconAt = now
      this.#sendBeacons()
    }
    this.#context.rests.refill(ticks)
    this.#tickReplicas(ticks)
    this.exports.tick()
    if (this.#isFirst) this.#controller.tick()
    if (lease.held && now - this.#lastAliveAt > ALIVE_REFRESH_MS) this.#announce()
  }

  #wakeReplicas(): void {
    for (const replica of this.replicas.values()) replica.resting = false
  }

  /** Resting copies take turns: thousands of idle volumes cost a node next to nothing. */
  #tickReplicas(ticks: number): void {
    for (const replica of this.#awake) {
      replica.tick()
      if (replica.resting) this.#awake.delete(replica)
    }
    this.#roundDue += (ticks * this.replicas.size) / RESTING_TICKS
    for (; this.#roundDue >= 1; this.#roundDue--) {
      let next = this.#round.next()
      if (next.done === true) {
        this.#round = this.replicas.values()
        next = this.#round.next()
      }
      if (next.done !== true && next.value.resting) next.value.tick()
    }
  }

  /** Asks every shard that a primary here depends on for serving grants (I8). */
  #sendBeacons(): void {
    const { peers, clock } = this.#context
    const scopes = new Map<string, { readonly node: NodeId; readonly scope: VolumeEpoch[] }>()
    for (const replica of this.replicas.values()) {
      const { primary } = replica
      if (primary === undefined || primary.machine.record.replicas.length === 1) continue
      for (const node of primary.machine.record.replicas) {
        if (node === this.#context.self.node) continue
        if (primary.members.feed(node) === undefined && !primary.machine.record.inSync.includes(node)) continue
        const key = `${node}/${peers.shardAt(node, replica.volume)}`
        const known = scopes.get(key)
        if (known === undefined) scopes.set(key, { node, scope: [primary.scope] })
        else known.scope.push(primary.scope)
      }
    }
    for (const { node, scope } of scopes.values()) {
      const [{ volume }] = scope as [VolumeEpoch]
      const link = peers.ensure(node, 'control', volume)
      if (link !== undefined) this.#seeker.ask(link, scope, clock.sinceBoot())
    }
  }

  // --- what peers tell

  #message(link: Link, message: PeerMessage, side: Side): void {
    const { clock, times } = this.#context
    switch (message.type) {
      case 'grant-scope':
        this.#giver.scope(link, message)
        break
      case 'grant-request':
        this.#giver.request(link, message.seq, message.scopeVersion, times.grantMs, clock.now())
        break
      case 'grant':
        this.#seeker.answered(link, message)
        break
      case 'status-request':
        this.#answerStatus(link, message.volume)
        break
      case 'status':
        this.replicas.get(message.volume)?.statusAnswered(link.node, message)
        break
      case 'request':
        this.#relayedRequest(link, message)
        break
      case 'session-close':
        this.#relayed.get(link)?.get(message.session)?.close()
        this.#relayed.get(link)?.delete(message.session)
        break
      case 'replies':
      case 'read-reply':
        this.exports.replied(link, message)
        break
      default:
        this.#replicaMessage(link, message, side)
    }
  }

  #replicaMessage(
    link: Link,
    message: Extract<PeerMessage, { readonly volume: VolumeId }>,
    side: Side,
  ): void {
    const replica = this.replicas.get(message.volume)
    if (replica === undefined) {
      if (message.type !== 'subscribe') return
      const { volume, epoch } = message
      link.send({ type: 'refused', volume, epoch, reason: 'unknown-volume' })
      return
    }
    const { primary } = replica
    switch (message.type) {
      case 'subscribe':
        replica.subscribe(link, message)
        break
      case 'ack':
        if (primary?.scope.epoch === message.epoch) {
          primary.members.acknowledged(link, message.appendedLsn, message.durableLsn)
        }
        break
      case 'rebuild-progress':
        if (primary?.scope.epoch === message.epoch) {
          primary.members.rebuildProgress(link, message.receivedBytes, message.installed)
        }
        break
      case 'block-fetch':
        replica.fetchBlock(link, message.seq, message.lsn, message.blockCount)
        break
      case 'block-data':
        primary?.repairs.answered(link, message)
        break
      case 'refused':
        if (side === 'dialled') replica.fromPrimary(link, message)
        else if (primary?.scope.epoch === message.epoch) primary.members.refused(link, message.reason)
        break
      case 'accepted':
      case 'append':
      case 'commit':
      case 'flush':
      case 'rebuild':
      case 'segment-data':
      case 'checkpoint-data':
        replica.fromPrimary(link, message)
        break
      default:
        break
    }
  }

  #answerStatus(link: Link, volume: VolumeId): void {
    const status = this.replicas.get(volume)?.status()
    if (status !== undefined) link.send(status)
  }

  #relayedRequest(link: Link, message: Extract<PeerMessage, { type: 'request' }>): void {
    let sessions = this.#relayed.get(link)
    if (sessions === undefined) {
      sessions = new Map()
      this.#relayed.set(link, sessions)
    }
    let session = sessions.get(message.session)
    if (session === undefined || session.epoch !== message.epoch) {
      session?.close()
      session = new RelayedSession(this.#context, link, message.session, message.epoch)
      sessions.set(message.session, session)
    }
    const primary = this.replicas.get(message.volume)?.primary
    session.request(message, primary?.scope.epoch === message.epoch ? primary : undefined)
  }

  #linkClosed(link: Link, _side: Side): void {
    this.#giver.closed(link)
    this.#seeker.closed(link)
    for (const replica of this.replicas.values()) replica.linkClosed(link)
    for (const session of this.#relayed.get(link)?.values() ?? []) session.close()
    this.#relayed.delete(link)
    this.exports.linkClosed(link)
  }
}
