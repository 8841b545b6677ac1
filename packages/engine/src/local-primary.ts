/**
 * The primary of one volume in one epoch: requests in, batches to the log and to the members, answers out.
 *
 * The hot path. One batch per turn of the event loop gathers every write that came in it; it is
 * sent to the members and appended here at the end of the turn, and its requests are answered when it commits.
 *
 * Invariants:
 * - Mutations reach the log in the order in which they came.
 * - I1, I3: by `Primary`. I2: reads see the committed block map only. I8: no read is answered
 *   after `#permission` ran out.
 * - After `close` no request is answered with success; each is returned to its session.
 */
import {
  type BlockStatusExtent,
  BLOCK_BYTES,
  BLOCK_SHIFT,
  copyBytes,
  type Errno,
  errno,
  type Instant,
  instant,
  type LogPosition,
  type Lsn,
  lsn,
  type NodeId,
  type VolumeRecord,
} from '@holdfast/base'
import { PIECE_BYTES_MAX, type PieceSink, type VolumeTarget } from '@holdfast/frontend'
import { Primary, ServingPermission } from '@holdfast/replication'
import type { Batch, ReplicaLog } from '@holdfast/volume-log'
import type { SubscribeMessage, VolumeEpoch } from '@holdfast/wire'
import { AttachmentGuard } from './attachment-guard.ts'
import type { NodeContext } from './context.ts'
import { FlushPattern } from './flush-pattern.ts'
import { FlushRounds } from './flush-rounds.ts'
import { type BatchRequests, InFlight, type InFlightBatch } from './in-flight.ts'
import { type FeedOwner, MemberFeed } from './member-feed.ts'
import type { Link } from './peer-table.ts'
import { type RelocationHost, Relocations } from './relocation.ts'
import { type ReadOutcome, RepairDesk } from './repair-desk.ts'
import type { VolumeCounters } from './statistics.ts'

/** Payload blocks of the batch that gathers small writes. */
const TURN_BATCH_BLOCKS = 128
/** Writes at least this large make a batch of their own, without a copy. */
const OWN_BATCH_BYTES = 64 * 1024
/** Long enough to see that there is nothing left to compact. */
const QUIET_AFTER_TICKS = 40
/** A full disk is reported this often, not once per refused write. */
const NO_SPACE_SAID_MS = 10_000

export interface LocalPrimaryOwner {
  changeRecord(record: VolumeRecord, expectedModRevision: number): void
  /** The role ends; the log stays. */
  steppedDown(reason: string): void
  /** The local disk failed: this copy is out. */
  failed(reason: string): void
  /** Something is under way again: ticks are wanted. */
  woken(): void
  /** Says by `leaseValid` how long the lease holds now. */
  renewLease(): void
}

export class LocalPrimary implements VolumeTarget, FeedOwner, RelocationHost {
  readonly scope: VolumeEpoch
  readonly log: ReplicaLog
  readonly inFlight = new InFlight()
  readonly segmentBlocks: number
  readonly windowBytes: number
  readonly #turnBlocks: number
  readonly machine: Primary
  readonly permission = new ServingPermission()
  readonly #context: NodeContext
  readonly #owner: LocalPrimaryOwner
  readonly #counters: VolumeCounters
  readonly #feeds = new Map<NodeId, MemberFeed>()
  /** Members that need what can't be read in our log: what is damaged there may be dead, and in no checkpoint. */
  readonly #unreadableFor = new Set<NodeId>()
  readonly #flushes: FlushRounds
  readonly #flushPattern = new FlushPattern()
  readonly #repairs: RepairDesk
  readonly #relocations: Relocations
  #batch: Batch | undefined
  #requests: BatchRequests | undefined
  #turnScheduled = false
  readonly #reserved = new Map<Uint8Array, Batch>()
  /** Mutations that must wait: for room, for an unaligned write before them, for the epoch to begin. */
  #queue: Queued[] = []
  #blockedBy: 'nothing' | 'start' | 'room' | 'unaligned' = 'start'
  /** A planned move: no mutation is admitted, whatever else they wait for. */
  #quiescing = false
  /** Unaligned writes whose edges can't be read, flushes of what is lost, writes of who may not; told at the end of the turn. */
  readonly #failures: Failure[] = []
  readonly #guard: AttachmentGuard
  /** Requests sent again whose first sending is in the log already. */
  readonly #lateWaiters: LateWaiter[] = []
  #waitingReads: WaitingRead[] = []
  #serving = false
  /** The reign has begun: its first record is committed. */
  #opened = false
  #servingFromLsn: Lsn = lsn(0)
  #servingUntil: Instant = instant(Number.NEGATIVE_INFINITY)
  #closed = false
  #tooFewSince: Instant | undefined
  #announcedCommit: Lsn = lsn(0)
  #noSpaceSaidAt: number = Number.NEGATIVE_INFINITY
  /** Where the log ended at the last tick, and for how many ticks it has. */
  #quietLsn: Lsn = lsn(0)
  #quietTicks = 0
  #resting = false

  constructor(
    context: NodeContext,
    log: ReplicaLog,
    record: VolumeRecord,
    modRevision: number,
    owner: LocalPrimaryOwner,
  ) {
    this.#context = context
    this.log = log
    this.#owner = owner
    this.windowBytes = context.settings.catchUpWindowBytes
    this.scope = { volume: record.id, epoch: record.epoch }
    this.#counters = context.statistics.volume(`${record.namespace}/${record.name}`)
    const { writtenLsn: appendedLsn, durableLsn, committedLsn } = log
    this.segmentBlocks = record.segmentBlocks
    this.#turnBlocks = Math.min(TURN_BATCH_BLOCKS, record.segmentBlocks >> 1)
    const self = context.self.node
    const now = context.clock.now()
    this.machine = new Primary(
      { self, record, modRevision, appendedLsn, durableLsn, committedLsn, now },
      context.times.primary,
      {
        committed: (position) => this.#committed(position),
        durable: (position) => this.#flushes.durable(position),
        changeRecord: (changed, revision) => {
          // Who is about to be added can be elected from the moment the coordinator has it, whenever we hear of that.
          this.#renewPermission()
          owner.changeRecord(changed, revision)
        },
        flushMember: (node) => this.#sendFlush(node, this.log.appendedLsn),
        stepDown: (reason) => context.scheduler.soon(() => owner.steppedDown(reason)),
        event: (level, message, node) => {
          if (message.startsWith('dropping')) context.statistics.membersDropped++
          if (message === 'in sync') context.statistics.membersAdded++
          context.events.event(level, message, { volume: record.name, epoch: record.epoch, node })
        },
      },
    )
    this.#flushes = new FlushRounds(this.#counters, context.clock, {
      flushAll: (target) => this.#flushAll(target),
      durableLsn: () => this.machine.durableLsn,
      committedLsn: () => this.machine.committedLsn,
      mayAnswer: () => this.answersReads,
    })
    this.#guard = new AttachmentGuard(context, this.machine, {
      settle: () => {
        this.#sealTurnBatch()
        return this.#blockedBy === 'unaligned' ? undefined : this.log.appendedLsn
      },
      serving: () => this.serving,
    })
    const links = (): Iterable<Link | undefined> => this.#repairLinks()
    this.#relocations = new Relocations(log, context.scheduler, record.segmentBlocks, this)
    this.#repairs = new RepairDesk(context, this.scope, log, links, (reason) => owner.failed(reason))
  }

  /** Begins the reign: the `epoch` record, whose commit opens the volume (I6). */
  start(): void {
    if (this.#closed) return
    const room = this.log.canAppend(0, true)
    if (room === 'opening') {
      this.log.onRoom(() => this.start())
      return
    }
    if (room === 'no-space') {
      const { volume, epoch } = this.scope
      this.#context.events.event('error', 'no space to begin the epoch: free some', { volume, epoch })
      this.#context.scheduler.after(1_000, () => this.start())
      return
    }
    const batch = this.log.newBatch(0)
    batch.addEpoch(this.scope.epoch)
    this.#sealAndSend(batch, this.inFlight.takeRequests())
    this.#servingFromLsn = batch.endLsn
    if (this.machine.committedLsn >= this.#servingFromLsn) this.#open()
  }

  get serving(): boolean {
    return this.#serving && !this.#closed
  }

  /** Whether a read that came now would be answered (I8). */
  get answersReads(): boolean {
    return this.serving && this.#permitted(this.#context.clock.now())
  }

  /** At rest nobody tells us how long the lease holds: then it is asked for. */
  #permitted(now: Instant): boolean {
    if (now < this.#servingUntil) return true
    if (!this.#resting) return false
    this.#wake()
    this.#owner.renewLease()
    return now < this.#servingUntil
  }

  committedLsn(): Lsn {
    return this.machine.committedLsn
  }

  /** Nothing is under way, owed or to be tidied up. */
  get #quiet(): boolean {
    const calm = this.#quietTicks >= QUIET_AFTER_TICKS && this.log.appendedLsn === this.#quietLsn
    if (!calm || !this.serving || this.#mustWait || this.#batch !== undefined || !this.inFlight.empty) return false
    if (this.#waitingReads.length > 0 || this.#lateWaiters.length > 0 || this.#flushes.waiting) return false
    if (this.#relocations.busy || this.#guard.confirming || this.#announcedCommit < this.machine.committedLsn) return false
    return this.machine.settled
  }

  feed(node: NodeId): MemberFeed | undefined {
    return this.#feeds.get(node)
  }

  // --- requests

  read(
    sink: PieceSink,
    seq: number,
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
  ): boolean {
    const now = this.#context.clock.now()
    if (this.#serving && !this.#closed && this.#permitted(now)) {
      if (this.log.tryRead(offset, length, target, targetOffset)) {
        const counter = this.#counters.read
        counter.add(length, this.#context.clock.now() - now)
        return true
      }
      this.#readSlowly({ sink, seq, offset, length, target, targetOffset, startedAt: now })
      return false
    }
    this.#wake()
    this.#waitingReads.push({ sink, seq, offset, length, target, targetOffset, startedAt: now })
    if (this.#closed) this.#context.scheduler.soon(() => this.#returnReads())
    return false
  }

  write(
    sink: PieceSink,
    seq: number,
    offset: number,
    source: Uint8Array,
    sourceStart: number,
    length: number,
    fua: boolean,
  ): void {
    if (this.#guard.refuses(sink)) {
      this.#refuse(sink, seq, copyBytes(source, sourceStart, sourceStart + length))
      this.unreserve(source)
      return
    }
    if (this.#mustWait) {
      const payload = copyBytes(source, sourceStart, sourceStart + length)
      this.#wait({ kind: 'write', sink, seq, offset, length, fua, payload })
      this.unreserve(source)
      return
    }
    const applied = this.log.isApplied(sink.session, seq)
    if (applied !== undefined) {
      const payload = copyBytes(source, sourceStart, sourceStart + length)
      this.unreserve(source)
      this.#answerLater({ lsn: applied, sink, seq, fua, payload })
      return
    }
    if (((offset | length) & (BLOCK_BYTES - 1)) !== 0) {
      const payload = copyBytes(source, sourceStart, sourceStart + length)
      this.unreserve(source)
      this.#writeUnaligned(sink, seq, offset, payload, fua)
      return
    }
    const startedAt = this.#context.clock.now()
    const blockCount = length >>> BLOCK_SHIFT
    const logicalBlock = offset / BLOCK_BYTES
    if (length >= OWN_BATCH_BYTES) {
      this.#writeOwnBatch(sink, seq, logicalBlock, blockCount, source, sourceStart, fua, startedAt)
      return
    }
    const batch = this.#room(1, blockCount)
    if (batch === undefined) {
      const payload = copyBytes(source, sourceStart, sourceStart + length)
      this.#wait({ kind: 'write', sink, seq, offset, length, fua, payload })
      return
    }
    const start = batch.addWrite(sink.session, seq, logicalBlock, blockCount)
    batch.buffer.set(source.subarray(sourceStart, sourceStart + length), start)
    this.#requests?.add(sink, seq, start, length, fua, startedAt)
  }

  zero(
    sink: PieceSink,
    seq: number,
    offset: number,
    length: number,
    options: { readonly fua: boolean; readonly keepAllocated: boolean },
  ): void {
    const { fua } = options
    if (this.#guard.refuses(sink)) {
      this.#refuse(sink, seq, undefined)
      return
    }
    if (this.#mustWait) {
      this.#wait({ kind: 'zero', sink, seq, offset, length, fua, payload: undefined })
      return
    }
    const applied = this.log.isApplied(sink.session, seq)
    if (applied !== undefined) {
      this.#answerLater({ lsn: applied, sink, seq, fua, payload: undefined })
      return
    }
    const first = Math.ceil(offset / BLOCK_BYTES)
    const end = Math.floor((offset + length) / BLOCK_BYTES)
    const aligned = first * BLOCK_BYTES === offset && end * BLOCK_BYTES === offset + length
    if (!aligned && end - first < 1) {
      this.#writeUnaligned(sink, seq, offset, new Uint8Array(length), fua)
      return
    }
    if (!aligned) {
      this.#zeroUnaligned(sink, seq, offset, length, fua)
      return
    }
    const startedAt = this.#context.clock.now()
    const batch = this.#room(1, 0)
    if (batch === undefined) {
      this.#wait({ kind: 'zero', sink, seq, offset, length, fua, payload: undefined })
      return
    }
    batch.addZero(sink.session, seq, first, end - first)
    this.#requests?.add(sink, seq, -1, length, fua, startedAt)
  }

  flush(sink: PieceSink, seq: number, acknowledged: readonly LogPosition[]): void {
    if (this.#closed) {
      this.#context.scheduler.soon(() => sink.pieceReturned(seq, undefined))
      return
    }
    const missing = acknowledged.find((position) => !this.log.holds(position))
    if (missing !== undefined) {
      const { volume, epoch } = this.scope
      // Only of a primary that certainly is one the word is final; one of an older epoch is not.
      if (missing.epoch > epoch || !this.answersReads) {
        this.#context.scheduler.soon(() => sink.pieceReturned(seq, undefined))
        return
      }
      const fields = { volume, epoch, acknowledgedIn: missing.epoch, acknowledgedTo: missing.lsn }
      this.#context.events.event('error', 'a flush failed: acknowledged writes are lost with their copies', fields)
      this.#failures.push({ sink, seq, payload: undefined, error: errno.EIO })
      this.#scheduleTurn()
      return
    }
    // Before the reign has begun anything in our log may have been acknowledged by the last primary (I6).
    const end = this.#serving ? this.machine.committedLsn : this.log.appendedLsn
    this.#flushPattern.flushed()
    this.#flushes.wait(end, sink, seq)
    this.#scheduleTurn()
  }

  position(): LogPosition | undefined {
    // Before that it may be that nobody else has heard of this epoch.
    if (!this.#opened) return undefined
    return { epoch: this.scope.epoch, lsn: this.machine.committedLsn }
  }

  blockStatus(
    offset: number,
    length: number,
    extentCountMax: number,
    done: (error: Errno | -1, extents: readonly BlockStatusExtent[]) => void,
  ): void {
    this.#context.scheduler.soon(() => {
      if (!this.answersReads) done(-1, [])
      else done(errno.OK, this.log.blockStatus(offset, length, extentCountMax))
    })
  }

  reserve(length: number): Uint8Array {
    if (length % BLOCK_BYTES !== 0 || length < OWN_BATCH_BYTES || length > PIECE_BYTES_MAX) {
      return new Uint8Array(length)
    }
    const batch = this.log.newBatch(length / BLOCK_BYTES)
    const start = batch.buffer.length - batch.capacityBlocks * BLOCK_BYTES
    const view = batch.buffer.subarray(start, start + length)
    this.#reserved.set(view, batch)
    return view
  }

  received(reserved: Uint8Array, bytes: number): void {
    const batch = this.#reserved.get(reserved)
    if (batch !== undefined) this.log.checksumAhead(batch, bytes >>> BLOCK_SHIFT)
  }

  unreserve(reserved: Uint8Array): void {
    this.#reserved.get(reserved)?.release()
    this.#reserved.delete(reserved)
  }

  detach(sink: PieceSink): void {
    this.#waitingReads = this.#waitingReads.filter((read) => read.sink !== sink)
  }

  // --- members

  /** A replica asks to follow. */
  subscribe(link: Link, message: SubscribeMessage): void {
    this.#wake()
    const { record } = this.machine
    const refuse = (reason: 'not-a-replica' | 'stale-epoch'): void =>
      link.send({ type: 'refused', ...this.scope, reason })
    if (!record.replicas.includes(link.node)) return refuse('not-a-replica')
    if (message.epoch !== this.scope.epoch) return refuse('stale-epoch')
    this.#feeds.get(link.node)?.end()
    const fork = this.log.forkPoint(message.epochTable, message.appendedLsn)
    this.machine.subscribed(link.node, fork, message.durableLsn, this.#context.clock.now())
    const feed = new MemberFeed(this, link, fork)
    this.#feeds.set(link.node, feed)
    feed.start(message, this.#unreadableFor.delete(link.node))
  }

  acknowledged(link: Link, appendedLsn: Lsn, durableLsn: Lsn): void {
    const feed = this.#feeds.get(link.node)
    if (feed === undefined || feed.link !== link || this.#closed) return
    this.machine.acknowledged(link.node, appendedLsn, durableLsn, this.#context.clock.now())
    feed.acknowledged(appendedLsn)
  }

  rebuildProgress(link: Link, receivedBytes: number, installed: boolean): void {
    const feed = this.#feeds.get(link.node)
    if (feed?.link !== link) return
    this.machine.heardFrom(link.node, this.#context.clock.now())
    feed.rebuildProgress(receivedBytes, installed)
  }

  linkClosed(link: Link): void {
    const feed = this.#feeds.get(link.node)
    if (feed?.link === link) this.#endFeed(feed)
    this.#repairs.linkClosed(link)
  }

  granted(node: NodeId, until: Instant): void {
    this.permission.granted(node, until)
    this.machine.heardFrom(node, this.#context.clock.now())
    this.#renewPermission()
  }

  leaseValid(until: Instant): void {
    this.permission.leaseValid(until)
    this.#renewPermission()
  }

  get repairs(): RepairDesk {
    return this.#repairs
  }

  feedLive(node: NodeId): void {
    this.machine.live(node)
  }
  feedLagging(node: NodeId): void {
    this.machine.lagging(node)
  }
  repair(position: Lsn, blockCount: number, done: (ok: boolean) => void): void {
    this.#repairs.repair(position, blockCount, done)
  }

  mayRebuild(node: NodeId): boolean {
    return this.machine.mayRebuild(node, this.#context.clock.now())
  }

  feedFailed(node: NodeId, reason: string): void {
    this.#context.events.event('warn', `a member can't be fed: ${reason}`, { ...this.scope, node })
    const feed = this.#feeds.get(node)
    if (feed !== undefined) {
      feed.link.send({ type: 'refused', ...this.scope, reason: 'stale-epoch' })
      this.#endFeed(feed)
    }
  }

  feedUnreadable(node: NodeId): void {
    this.#unreadableFor.add(node)
    this.feedFailed(node, 'our own log is damaged there, and no other copy is whole')
  }

  // --- time and end

  tick(): void {
    if (this.#closed) return
    const now = this.#context.clock.now()
    if (this.log.appendedLsn === this.#quietLsn) this.#quietTicks++
    else this.#quietTicks = 0
    this.#quietLsn = this.log.appendedLsn
    this.machine.tick(now)
    this.#renewPermission()
    for (const feed of this.#feeds.values()) feed.pump()
    if (this.#flushes.retry()) {
      for (const feed of this.#feeds.values()) this.#sendFlush(feed.node, this.log.appendedLsn)
    }
    if (this.#announcedCommit < this.machine.committedLsn) {
      this.#announcedCommit = this.machine.committedLsn
      for (const feed of this.#feeds.values()) feed.committed(this.machine.committedLsn)
    }
    this.#guard.advance()
    this.#failForWantOfCopies(now)
    this.#relocations.begin()
    this.#resting = this.#quiet
  }

  /** One tick in many is enough until `woken` of the owner is called. */
  get resting(): boolean {
    return this.#resting
  }

  #wake(): void {
    if (!this.#resting) return
    this.#resting = false
    this.#quietTicks = 0
    this.#owner.woken()
  }

  recordChanged(record: VolumeRecord, modRevision: number): void {
    if (modRevision !== this.machine.modRevision) this.#wake()
    this.machine.recordChanged(record, modRevision, this.#context.clock.now())
    if (this.#guard.confirming) this.#guard.advance()
    for (const [node, feed] of this.#feeds) {
      if (record.replicas.includes(node)) continue
      // It may hear of this only when it is in again: then it must ask anew.
      feed.link.send({ type: 'refused', ...this.scope, reason: 'not-a-replica' })
      this.#endFeed(feed)
    }
    this.#renewPermission()
  }

  /** Stops admitting mutations, for a planned move. `ready` once all is committed on `successor`. */
  quiesce(): void {
    this.#wake()
    this.#quiescing = true
    this.#endTurn()
  }

  /** Answers no read any more; they wait. Undone by `resume`. */
  stopServing(): void {
    this.#serving = false
  }

  get quiescent(): boolean {
    return this.#quiescing && this.#blockedBy !== 'unaligned' && this.inFlight.empty && this.#batch === undefined
  }

  /** The planned move is off. */
  resume(): void {
    if (this.#closed) return
    this.#serving = true
    this.#renewPermission()
    this.#quiescing = false
    if (this.#blockedBy === 'nothing') this.#unblock()
  }

  /** A member says that it can't go on. */
  memberRefused(link: Link, reason: string): void {
    const feed = this.#feeds.get(link.node)
    if (feed?.link !== link) return
    const { volume, epoch } = this.scope
    this.#context.events.event('warn', `a member gave up: ${reason}`, { volume, epoch, node: link.node })
    this.#endFeed(feed)
  }

  /** Ends the reign: every unanswered request is returned to its session. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#serving = false
    for (const feed of this.#feeds.values()) feed.end()
    this.#feeds.clear()
    const batch = this.#batch
    const requests = this.#requests
    this.#batch = undefined
    this.#requests = undefined
    this.#context.scheduler.soon(() => {
      for (let entry = this.inFlight.shift(); entry !== undefined; entry = this.inFlight.shift()) {
        returnRequests(entry.batch, entry.requests)
        entry.batch.release()
      }
      if (batch !== undefined && requests !== undefined) returnRequests(batch, requests)
      batch?.release()
      for (const waiter of this.#lateWaiters.splice(0)) waiter.sink.pieceReturned(waiter.seq, waiter.payload)
      for (const { sink, seq, payload } of this.#failures.splice(0)) sink.pieceReturned(seq, payload)
      this.#flushes.returnAll()
      this.#returnReads()
      for (const queued of this.#queue.splice(0)) queued.sink.pieceReturned(queued.seq, queued.payload)
      this.#repairs.close()
    })
  }

  // --- inside

  #writeOwnBatch(
    sink: PieceSink,
    seq: number,
    logicalBlock: number,
    blockCount: number,
    source: Uint8Array,
    sourceStart: number,
    fua: boolean,
    startedAt: number,
  ): void {
    const length = blockCount * BLOCK_BYTES
    this.#sealTurnBatch()
    if (!this.#mayAppend(blockCount)) {
      const payload = copyBytes(source, sourceStart, sourceStart + length)
      this.unreserve(source)
      const offset = logicalBlock * BLOCK_BYTES
      this.#wait({ kind: 'write', sink, seq, offset, length, fua, payload })
      return
    }
    const reserved = this.#reserved.get(source)
    const batch = reserved ?? this.log.newBatch(blockCount)
    const start = batch.addWrite(sink.session, seq, logicalBlock, blockCount)
    if (reserved === undefined) {
      batch.buffer.set(source.subarray(sourceStart, sourceStart + length), start)
    } else {
      this.#reserved.delete(source)
    }
    const requests = this.inFlight.takeRequests()
    requests.add(sink, seq, start, length, fua, startedAt)
    this.#sealAndSend(batch, requests)
  }

  /** The turn's batch with room for that much, or undefined when mutations must wait. */
  #room(records: number, blocks: number): Batch | undefined {
    let batch = this.#batch
    if (batch !== undefined && batch.fits(records, blocks)) return batch
    if (batch !== undefined) this.#sealTurnBatch()
    if (blocks === 0 && this.log.canAppend(0, true) === 'yes') {
      // Trims may use the reserve: they are how a full volume becomes less full.
      batch = this.log.newBatch(0)
    } else {
      if (!this.#mayAppend(Math.max(blocks, this.#turnBlocks))) return undefined
      batch = this.log.newBatch(Math.max(blocks, this.#turnBlocks))
    }
    this.#batch = batch
    this.#requests = this.inFlight.takeRequests()
    this.#scheduleTurn()
    return batch
  }

  #mayAppend(blocks: number): boolean {
    const room = this.log.canAppend(blocks)
    if (room === 'yes') return true
    this.#blockedBy = 'room'
    if (room === 'opening') {
      this.log.onRoom(() => {
        if (this.#blockedBy === 'room') this.#unblock()
      })
    } else {
      // Whoever waits is told at the end of the turn; the next request asks for room again.
      this.#context.scheduler.soon(() => this.#failForSpace())
    }
    return false
  }

  #failForSpace(): void {
    if (this.#blockedBy !== 'room' || this.#closed) return
    const now = this.#context.clock.now()
    if (now >= this.#noSpaceSaidAt + NO_SPACE_SAID_MS) {
      this.#noSpaceSaidAt = now
      const { volume } = this.scope
      this.#context.events.event('error', 'no space for the log: writes get ENOSPC until there is some', { volume })
    }
    for (const queued of this.#queue.splice(0)) queued.sink.pieceDone(queued.seq, errno.ENOSPC)
    this.#blockedBy = 'nothing'
  }

  get #mustWait(): boolean {
    return this.#blockedBy !== 'nothing' || this.#quiescing || this.#closed
  }

  #wait(queued: Queued): void {
    this.#wake()
    this.#queue.push(queued)
    if (this.#closed) {
      this.#context.scheduler.soon(() => {
        for (const left of this.#queue.splice(0)) left.sink.pieceReturned(left.seq, left.payload)
      })
    }
  }

  #unblock(): void {
    this.#blockedBy = 'nothing'
    const queue = this.#queue
    this.#queue = []
    for (const { kind, sink, seq, offset, length, fua, payload } of queue) {
      if (kind === 'zero') this.zero(sink, seq, offset, length, { fua, keepAllocated: false })
      else if (payload !== undefined) this.write(sink, seq, offset, payload, 0, length, fua)
    }
  }

  /** A primary that may have been deposed can't know who has the volume now: its word would not be final. */
  #refuse(sink: PieceSink, seq: number, payload: Uint8Array | undefined): void {
    if (this.answersReads) {
      this.#failures.push({ sink, seq, payload, error: errno.EPERM })
      this.#scheduleTurn()
    } else this.#context.scheduler.soon(() => sink.pieceReturned(seq, payload))
  }

  #answerLater(waiter: LateWaiter): void {
    this.#lateWaiters.push(waiter)
    this.#scheduleTurn()
  }

  /** Read-modify-write of the blocks at the edges; mutations behind it wait if they must be read from disk. */
  #writeUnaligned(
    sink: PieceSink,
    seq: number,
    offset: number,
    payload: Uint8Array,
    fua: boolean,
  ): void {
    const { length } = payload
    const first = Math.floor(offset / BLOCK_BYTES)
    const end = Math.ceil((offset + length) / BLOCK_BYTES)
    // The newest version of an edge block may lie in the batch that is being filled.
    this.#sealTurnBatch()
    const blockBytes = new Uint8Array((end - first) * BLOCK_BYTES)
    const lastAt = (end - first - 1) * BLOCK_BYTES
    const headCut = offset % BLOCK_BYTES !== 0 || end - first === 1
    const tailCut = (offset + length) % BLOCK_BYTES !== 0 && end - first > 1
    const append = (): void => {
      blockBytes.set(payload, offset - first * BLOCK_BYTES)
      const batch = this.#room(1, end - first)
      if (batch === undefined) {
        this.#queue.unshift({ kind: 'write', sink, seq, offset, length, fua, payload })
        return
      }
      const start = batch.addWrite(sink.session, seq, first, end - first)
      batch.buffer.set(blockBytes, start)
      const requests = this.#requests
      requests?.originals.set(requests.count, payload)
      requests?.add(sink, seq, -1, length, fua, this.#context.clock.now())
      this.#sealTurnBatch()
    }
    const headHere = !headCut || this.log.readLatest(first, blockBytes, 0)
    const tailHere = !tailCut || this.log.readLatest(end - 1, blockBytes, lastAt)
    if (headHere && tailHere) {
      append()
      return
    }
    this.#blockedBy = 'unaligned'
    const failed = (outcome: ReadOutcome): void => {
      if (this.#closed || outcome === 'elsewhere') {
        sink.pieceReturned(seq, payload)
        if (this.#closed) return
      } else {
        this.#failures.push({ sink, seq, payload, error: errno.EIO })
        this.#scheduleTurn()
      }
      if (this.#blockedBy === 'unaligned') this.#unblock()
    }
    const finish = (): void => {
      if (this.#closed) {
        sink.pieceReturned(seq, payload)
        return
      }
      this.#blockedBy = 'nothing'
      append()
      if (this.#blockedBy === 'nothing') this.#unblock()
    }
    const then = (next: () => void) => (outcome: ReadOutcome): void => {
      if (outcome === 'read') next()
      else failed(outcome)
    }
    const readTail = (): void => {
      if (!tailCut) finish()
      else this.#repairs.readLatest(end - 1, blockBytes, lastAt, then(finish))
    }
    if (!headCut) readTail()
    else this.#repairs.readLatest(first, blockBytes, 0, then(readTail))
  }

  /** Edges by read-modify-write under no number of their own, then the middle under the piece's. */
  #zeroUnaligned(sink: PieceSink, seq: number, offset: number, length: number, fua: boolean): void {
    const firstWhole = Math.ceil(offset / BLOCK_BYTES) * BLOCK_BYTES
    const endWhole = Math.floor((offset + length) / BLOCK_BYTES) * BLOCK_BYTES
    const options = { fua, keepAllocated: false }
    const parts: (() => void)[] = []
    const edge = new EdgeSink(sink, seq, () => parts.shift()?.())
    const head = firstWhole - offset
    const tail = offset + length - endWhole
    if (head > 0) parts.push(() => this.write(edge, 0, offset, new Uint8Array(head), 0, head, false))
    if (tail > 0) parts.push(() => this.write(edge, 0, endWhole, new Uint8Array(tail), 0, tail, false))
    parts.push(() => this.zero(sink, seq, firstWhole, endWhole - firstWhole, options))
    parts.shift()?.()
  }

  #scheduleTurn(): void {
    if (this.#turnScheduled) return
    this.#turnScheduled = true
    this.#wake()
    this.#context.scheduler.soon(this.#endTurn)
  }

  readonly #endTurn = (): void => {
    this.#turnScheduled = false
    if (this.#closed) return
    this.#sealTurnBatch()
    if (this.#failures.length > 0) for (const { sink, seq, error } of this.#failures.splice(0)) sink.pieceDone(seq, error)
    this.#answerLateWaiters()
    this.#flushes.run()
  }

  #sealTurnBatch(): void {
    const batch = this.#batch
    const requests = this.#requests
    if (batch === undefined || requests === undefined) return
    this.#batch = undefined
    this.#requests = undefined
    this.#sealAndSend(batch, requests, this.#flushPattern.batchSealed() || requests.anyFua)
  }

  #sealAndSend(batch: Batch, requests: BatchRequests, flushExpected = false): void {
    this.#wake()
    const start = this.log.seal(batch, this.scope.epoch)
    const { endLsn } = batch
    const flushFollows = flushExpected && this.#flushes.anticipate(endLsn)
    const entry = { batch, lsn: start, endLsn, requests, written: false }
    this.inFlight.push(entry)
    this.#sendToMembers(entry, flushFollows)
    const atOnce = this.log.append(batch, (error) => {
      if (error !== undefined) {
        this.#owner.failed(`the log can't be written: ${error.message}`)
        return
      }
      entry.written = true
      if (this.#closed) return
      if (flushFollows) this.#flushOwn()
      this.#advanceWritten()
    })
    if (!atOnce) return
    entry.written = true
    // Our disk works while the answers leave.
    if (flushFollows) this.#flushOwn()
    if (this.inFlight.head === entry) this.machine.appended(endLsn)
    else this.#advanceWritten()
  }

  #sendToMembers({ batch, lsn, endLsn }: InFlightBatch, flushFollows: boolean): void {
    for (const [node, feed] of this.#feeds) {
      const withFlush = flushFollows && this.machine.member(node)?.required === true
      feed.batchSealed(batch, lsn, endLsn, withFlush)
      if (withFlush) this.#sendFlush(node, endLsn)
    }
  }

  #advanceWritten(): void {
    let end: Lsn | undefined
    for (const entry of this.inFlight) {
      if (!entry.written) break
      end = entry.endLsn
    }
    if (end !== undefined) this.machine.appended(end)
  }

  #committed(position: Lsn): void {
    if (this.#closed) return
    this.log.commitTo(position)
    const now = this.#context.clock.now()
    for (;;) {
      const entry = this.inFlight.head
      if (entry === undefined || entry.endLsn > position) break
      this.inFlight.shift()
      this.#answer(entry, now)
      this.inFlight.recycle(entry.requests)
      entry.batch.release()
    }
    if (this.#lateWaiters.length > 0) this.#answerLateWaiters()
    if (this.#guard.confirming) this.#guard.advance()
    if (!this.#serving && this.#servingFromLsn > 0 && position >= this.#servingFromLsn) this.#open()
  }

  #answer({ batch, requests, endLsn }: InFlightBatch, now: number): void {
    const { sinks, seqs, fuas, lengths, startedAt, payloadStarts } = requests
    for (let at = 0; at < requests.count; at++) {
      const sink = sinks[at] as PieceSink
      const seq = seqs[at] as number
      const isZero = payloadStarts[at] === -1 && !requests.originals.has(at)
      const counter = isZero ? this.#counters.zero : this.#counters.write
      counter.add(lengths[at] as number, now - (startedAt[at] as number))
      if (fuas[at] === true) {
        this.#flushes.wait(endLsn, sink, seq, payloadOf(batch, requests, at))
        this.#scheduleTurn()
      } else {
        sink.pieceDone(seq, errno.OK)
      }
    }
  }

  #answerLateWaiters(): void {
    const committed = this.machine.committedLsn
    const ready = this.#lateWaiters.filter((waiter) => waiter.lsn <= committed)
    if (ready.length === 0) return
    const left = this.#lateWaiters.filter((waiter) => waiter.lsn > committed)
    this.#lateWaiters.splice(0, this.#lateWaiters.length, ...left)
    for (const { sink, seq, fua, payload } of ready) {
      if (fua) this.#flushes.wait(committed, sink, seq, payload)
      else sink.pieceDone(seq, errno.OK)
    }
  }

  #open(): void {
    this.#serving = true
    this.#opened = true
    const { volume, epoch } = this.scope
    this.#context.events.event('info', 'serving as primary', { volume, epoch })
    this.#renewPermission()
    this.#scheduleTurn()
    if (this.#blockedBy === 'start') this.#context.scheduler.soon(() => this.#blockedBy === 'start' && this.#unblock())
  }

  #renewPermission(): void {
    this.#servingUntil = this.permission.until(this.machine.othersInSync())
    if (!this.answersReads) return
    if (this.#flushes.waiting) this.#scheduleTurn()
    if (this.#waitingReads.length === 0) return
    const reads = this.#waitingReads
    this.#waitingReads = []
    for (const read of reads) this.#readSlowly(read)
  }

  #readSlowly(request: WaitingRead): void {
    const { sink, seq, offset, length, target, targetOffset, startedAt } = request
    this.#repairs.read(offset, length, target, targetOffset, (outcome) => {
      if (outcome === 'elsewhere' || this.#closed) {
        sink.pieceReturned(seq, undefined)
        return
      }
      const ok = outcome === 'read'
      this.#counters.read.add(length, this.#context.clock.now() - startedAt)
      if (!ok) this.#counters.read.errors++
      sink.pieceDone(seq, ok ? errno.OK : errno.EIO)
    })
  }

  #returnReads(): void {
    for (const { sink, seq } of this.#waitingReads.splice(0)) sink.pieceReturned(seq, undefined)
  }

  #flushAll(target: Lsn): void {
    // The others first: their disks work while ours does.
    for (const node of this.machine.othersInSync()) this.#sendFlush(node, target)
    this.#flushOwn()
  }

  #flushOwn(): void {
    this.log.flush((error, durableLsn) => {
      if (error !== undefined) this.#owner.failed(`the log can't be flushed: ${error.message}`)
      else if (!this.#closed) this.machine.flushed(durableLsn)
    })
  }

  #sendFlush(node: NodeId, target: Lsn): void {
    this.#feeds.get(node)?.link.send({ type: 'flush', ...this.scope, lsn: target })
  }

  #endFeed(feed: MemberFeed): void {
    this.#wake()
    feed.end()
    this.#feeds.delete(feed.node)
    this.machine.gone(feed.node, this.#context.clock.now())
  }

  *#repairLinks(): Generator<Link | undefined> {
    for (const node of this.machine.othersInSync()) yield this.#feeds.get(node)?.link
  }

  #failForWantOfCopies(now: Instant): void {
    if (this.machine.enoughInSync) {
      this.#tooFewSince = undefined
      return
    }
    this.#tooFewSince ??= now
    if (now - this.#tooFewSince < this.#context.settings.tooFewReplicasMs) return
    for (const queued of this.#queue.splice(0)) queued.sink.pieceDone(queued.seq, errno.EIO)
    for (const { sink, seq } of this.#lateWaiters.splice(0)) sink.pieceDone(seq, errno.EIO)
    this.#flushes.failUncommitted()
    // Where the record of the epoch can't commit either, what was committed before isn't known: reads have no answer.
    if (!this.#opened) for (const { sink, seq } of this.#waitingReads.splice(0)) sink.pieceDone(seq, errno.EIO)
    for (const entry of this.inFlight) {
      // In the log they stay, and may yet commit; the client only learns that they are not safe now.
      for (let at = 0; at < entry.requests.count; at++) {
        entry.requests.sinks[at]?.pieceDone(entry.requests.seqs[at] as number, errno.EIO)
      }
      entry.requests.count = 0
    }
  }

  // --- RelocationHost

  get mayRelocate(): boolean {
    return this.#serving && !this.#mustWait
  }

  appendRelocation(batch: Batch): void {
    this.#sealTurnBatch()
    this.#sealAndSend(batch, this.inFlight.takeRequests())
  }
}

interface Failure {
  readonly sink: PieceSink
  readonly seq: number
  readonly payload: Uint8Array | undefined
  readonly error: Errno
}

interface LateWaiter {
  readonly lsn: Lsn
  readonly sink: PieceSink
  readonly seq: number
  readonly fua: boolean
  readonly payload: Uint8Array | undefined
}

interface Queued {
  readonly kind: 'write' | 'zero'
  readonly sink: PieceSink
  readonly seq: number
  readonly offset: number
  readonly length: number
  readonly fua: boolean
  readonly payload: Uint8Array | undefined
}

interface WaitingRead {
  readonly sink: PieceSink
  readonly seq: number
  readonly offset: number
  readonly length: number
  readonly target: Uint8Array
  readonly targetOffset: number
  readonly startedAt: number
}

/** Stands in for a piece's sink while an edge of it is written; passes failures on. */
class EdgeSink implements PieceSink {
  readonly session = 0 as PieceSink['session']
  readonly origin: NodeId
  readonly #sink: PieceSink
  readonly #seq: number
  readonly #next: () => void
  constructor(sink: PieceSink, seq: number, next: () => void) {
    this.origin = sink.origin
    this.#sink = sink
    this.#seq = seq
    this.#next = next
  }
  pieceDone(_seq: number, error: Errno): void {
    if (error === errno.OK) this.#next()
    else this.#sink.pieceDone(this.#seq, error)
  }
  pieceReturned(): void {
    this.#sink.pieceReturned(this.#seq, undefined)
  }
}

function returnRequests(batch: Batch, requests: BatchRequests): void {
  for (let at = 0; at < requests.count; at++) {
    const payload = payloadOf(batch, requests, at)
    requests.sinks[at]?.pieceReturned(requests.seqs[at] as number, payload)
  }
}

/** A copy of what one write of a batch brought; undefined where it brought nothing. */
function payloadOf(batch: Batch, requests: BatchRequests, at: number): Uint8Array | undefined {
  const start = requests.payloadStarts[at] as number
  const length = requests.lengths[at] as number
  return requests.originals.get(at) ?? (start < 0 ? undefined : copyBytes(batch.buffer, start, start + length))
}
