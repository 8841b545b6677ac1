/**
 * The primary of one volume in one epoch: requests in, batches to the log and to the members, answers out.
 *
 * The hot path. One batch per turn of the event loop gathers every write that came in it; it is
 * sent to the members and appended here at the end of the turn, and its requests are answered when it commits.
 *
 * Invariants:
 * - Mutations reach the log in the order in which they came.
 * - I1, I3: by `Primary`. I2: reads see the committed block map only. I8: no read is answered that came when
 *   `permission` had run out.
 * - After `close` no request is answered with success; each is returned to its session.
 */
import {
  BLOCK_BYTES,
  BLOCK_SHIFT,
  type BlockStatusExtent,
  type BootInstant,
  copyBytes,
  type Errno,
  errno,
  type Instant,
  type LogPosition,
  type Lsn,
  lsn,
  type NodeId,
  type VolumeRecord,
} from '@holdfast/base'
import { PIECE_BYTES_MAX, type PieceSink, type VolumeTarget } from '@holdfast/frontend'
import { Primary, ServingPermission } from '@holdfast/replication'
import type { Batch, ReplicaLog } from '@holdfast/volume-log'
import type { VolumeEpoch } from '@holdfast/wire'
import { Admission, type Mutation } from './admission.ts'
import { AttachmentGuard } from './attachment-guard.ts'
import type { NodeContext } from './context.ts'
import { FlushPattern } from './flush-pattern.ts'
import { FlushRounds } from './flush-rounds.ts'
import { type BatchRequests, InFlight, type InFlightBatch, payloadOf, returnRequests } from './in-flight.ts'
import { MemberFeeds } from './member-feeds.ts'
import type { Link } from './peer-table.ts'
import { type RelocationHost, Relocations } from './relocation.ts'
import { RepairDesk } from './repair-desk.ts'
import { RepeatedRequests } from './repeated-requests.ts'
import { ServingTime } from './serving-time.ts'
import { SlowReads } from './slow-reads.ts'
import type { VolumeCounters } from './statistics.ts'
import { type UnalignedOwner, UnalignedRequests, type UnalignedWrite } from './unaligned-requests.ts'

/** Payload blocks of the batch that gathers small writes. */
const TURN_BATCH_BLOCKS = 128
/** Writes at least this large make a batch of their own, without a copy. */
const OWN_BATCH_BYTES = 64 * 1024
/** Long enough to see that there is nothing left to compact. */
const QUIET_AFTER_TICKS = 40

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

export class LocalPrimary implements VolumeTarget, UnalignedOwner, RelocationHost {
  readonly scope: VolumeEpoch
  readonly log: ReplicaLog
  readonly inFlight = new InFlight()
  readonly segmentBlocks: number
  readonly #turnBlocks: number
  readonly machine: Primary
  readonly members: MemberFeeds
  readonly repairs: RepairDesk
  readonly permission = new ServingPermission()
  readonly #context: NodeContext
  readonly #owner: LocalPrimaryOwner
  readonly #counters: VolumeCounters
  readonly #flushes: FlushRounds
  readonly #flushPattern = new FlushPattern()
  readonly #admission: Admission
  readonly #reads: SlowReads
  readonly #unaligned: UnalignedRequests
  readonly #repeated: RepeatedRequests
  readonly #relocations: Relocations
  #batch: Batch | undefined
  #requests: BatchRequests | undefined
  #turnScheduled = false
  readonly #reserved = new Map<Uint8Array, Batch>()
  /** Unaligned writes whose edges can't be read, flushes of what is lost, writes of who may not; told at the end of the turn. */
  readonly #failures: Failure[] = []
  readonly #guard: AttachmentGuard
  #serving = false
  /** The reign has begun: its first record is committed. */
  #opened = false
  #servingFromLsn: Lsn = lsn(0)
  readonly #servingTime: ServingTime
  #closed = false
  #tooFewSince: Instant | undefined
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
    this.scope = { volume: record.id, epoch: record.epoch }
    this.#servingTime = new ServingTime(context.clock, context.scheduler)
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
        flushMember: (node) => this.members.sendFlush(node, this.log.appendedLsn),
        stepDown: (reason) => context.scheduler.soon(() => owner.steppedDown(reason)),
        diskHangs: (reason) => context.scheduler.soon(() => owner.failed(reason)),
        event: (level, message, node) => {
          if (message.startsWith('dropping')) context.statistics.membersDropped++
          if (message === 'in sync') context.statistics.membersAdded++
          context.events.event(level, message, { volume: record.name, epoch: record.epoch, node })
        },
      },
    )
    this.#flushes = new FlushRounds(this.#counters, context.clock, {
      flushAll: (target) => this.#flushAll(target),
      began: (target) => this.machine.flushAsked(target),
      durableLsn: () => this.machine.durableLsn,
      committedLsn: () => this.machine.committedLsn,
      mayAnswer: () => this.answersReads,
    })
    this.#guard = new AttachmentGuard(context, this.machine, {
      settle: () => {
        this.#sealTurnBatch()
        return this.#admission.behindUnaligned ? undefined : this.log.appendedLsn
      },
      serving: () => this.serving,
    })
    const links = (): Iterable<Link | undefined> => this.members.linksInSync()
    this.repairs = new RepairDesk(context, this.scope, log, links, (reason) => owner.failed(reason))
    this.members = new MemberFeeds(context, this)
    this.#relocations = new Relocations(log, context.scheduler, record.segmentBlocks, this)
    const closed = (): boolean => this.#closed
    this.#admission = new Admission(context, log, record.id, {
      enter: (mutation) => this.#enter(mutation),
      woken: () => this.woken(),
    })
    this.#reads = new SlowReads(this.repairs, this.#counters, context.clock, closed)
    this.#unaligned = new UnalignedRequests(log, this.repairs, this.#admission, this, closed)
    this.#repeated = new RepeatedRequests(this.#flushes)
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
    return this.serving && (this.#servingTime.now || this.#permittedAtRest())
  }

  /** At rest nobody tells us how long the lease holds: then it is asked for. */
  #permittedAtRest(): boolean {
    if (!this.#resting) return false
    this.woken()
    this.#owner.renewLease()
    return this.#servingTime.now
  }

  /** Nothing is under way, owed or to be tidied up. */
  get #quiet(): boolean {
    const calm = this.#quietTicks >= QUIET_AFTER_TICKS && this.log.appendedLsn === this.#quietLsn
    if (!calm || !this.serving || this.#admission.mustWait || this.#batch !== undefined || !this.inFlight.empty) return false
    if (this.#reads.waiting || this.#repeated.waiting || this.#flushes.waiting) return false
    if (this.#relocations.busy || this.#guard.confirming || !this.members.commitAnnounced) return false
    return this.machine.settled
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
    if (this.#serving && !this.#closed && (this.#servingTime.inTurn || this.#permittedAtRest())) {
      if (this.log.tryRead(offset, length, target, targetOffset)) {
        const counter = this.#counters.read
        counter.add(length, this.#context.clock.now() - now)
        return true
      }
      this.#reads.serve({ sink, seq, offset, length, target, targetOffset, startedAt: now })
      return false
    }
    this.woken()
    this.#reads.wait({ sink, seq, offset, length, target, targetOffset, startedAt: now })
    if (this.#closed) this.#context.scheduler.soon(() => this.#reads.returnAll())
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
    if (this.#admission.mustWait) {
      const payload = copyBytes(source, sourceStart, sourceStart + length)
      this.#admission.wait({ kind: 'write', sink, seq, offset, length, fua, payload })
      this.unreserve(source)
      return
    }
    const applied = this.log.isApplied(sink.session, seq)
    if (applied !== undefined) {
      const payload = copyBytes(source, sourceStart, sourceStart + length)
      this.unreserve(source)
      this.#answerRepeated(applied, sink, seq, fua, payload)
      return
    }
    if (((offset | length) & (BLOCK_BYTES - 1)) !== 0) {
      const payload = copyBytes(source, sourceStart, sourceStart + length)
      this.unreserve(source)
      this.#unaligned.write({ sink, seq, offset, payload, fua })
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
      this.#admission.wait({ kind: 'write', sink, seq, offset, length, fua, payload })
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
    if (this.#admission.mustWait) {
      this.#admission.wait({ kind: 'zero', sink, seq, offset, length, fua, payload: undefined })
      return
    }
    const applied = this.log.isApplied(sink.session, seq)
    if (applied !== undefined) {
      this.#answerRepeated(applied, sink, seq, fua, undefined)
      return
    }
    const first = Math.ceil(offset / BLOCK_BYTES)
    const end = Math.floor((offset + length) / BLOCK_BYTES)
    const aligned = first * BLOCK_BYTES === offset && end * BLOCK_BYTES === offset + length
    if (!aligned && end - first < 1) {
      this.#unaligned.write({ sink, seq, offset, payload: new Uint8Array(length), fua })
      return
    }
    if (!aligned) {
      this.#unaligned.zero(sink, seq, offset, length, fua)
      return
    }
    const startedAt = this.#context.clock.now()
    const batch = this.#room(1, 0)
    if (batch === undefined) {
      this.#admission.wait({ kind: 'zero', sink, seq, offset, length, fua, payload: undefined })
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
      this.fail(sink, seq, undefined, errno.EIO)
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
    this.#reads.forget(sink)
  }

  // --- members

  linkClosed(link: Link): void {
    this.members.linkClosed(link)
    this.repairs.linkClosed(link)
  }

  granted(node: NodeId, until: BootInstant): void {
    this.permission.granted(node, until)
    this.machine.heardFrom(node, this.#context.clock.now())
    this.#renewPermission()
  }

  leaseValid(until: BootInstant): void {
    this.permission.leaseValid(until)
    this.#renewPermission()
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
    this.members.pump()
    if (this.#flushes.retry()) this.members.sendFlushToAll(this.log.appendedLsn)
    // While batches go out, each of them says it.
    if (this.#quietTicks > 0) this.members.announceCommit()
    this.#guard.advance()
    this.#failForWantOfCopies(now)
    this.#relocations.begin()
    this.#resting = this.#quiet
  }

  /** One tick in many is enough until `woken` of the owner is called. */
  get resting(): boolean {
    return this.#resting
  }

  /** Something is under way again. */
  woken(): void {
    if (!this.#resting) return
    this.#resting = false
    this.#quietTicks = 0
    this.#owner.woken()
  }

  recordChanged(record: VolumeRecord, modRevision: number): void {
    if (modRevision !== this.machine.modRevision) this.woken()
    this.machine.recordChanged(record, modRevision, this.#context.clock.now())
    if (this.#guard.confirming) this.#guard.advance()
    this.members.recordChanged(record)
    this.#renewPermission()
  }

  /** Stops admitting mutations, for a planned move. `ready` once all is committed on `successor`. */
  quiesce(): void {
    this.woken()
    this.#admission.quiesce()
    this.#endTurn()
  }

  /** Answers no read any more; they wait. Undone by `resume`. */
  stopServing(): void {
    this.#serving = false
  }

  get quiescent(): boolean {
    const { quiescing, behindUnaligned } = this.#admission
    return quiescing && !behindUnaligned && this.inFlight.empty && this.#batch === undefined
  }

  /** The planned move is off. */
  resume(): void {
    if (this.#closed) return
    this.#serving = true
    this.#renewPermission()
    this.#admission.resume()
  }

  /** Ends the reign: every unanswered request is returned to its session. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#serving = false
    this.#admission.close()
    this.members.close()
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
      this.#repeated.returnAll()
      for (const { sink, seq, payload } of this.#failures.splice(0)) sink.pieceReturned(seq, payload)
      this.#flushes.returnAll()
      this.#reads.returnAll()
      this.#admission.returnAll()
      this.repairs.close()
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
    if (!this.#admission.hasRoom(blockCount)) {
      const payload = copyBytes(source, sourceStart, sourceStart + length)
      this.unreserve(source)
      const offset = logicalBlock * BLOCK_BYTES
      this.#admission.wait({ kind: 'write', sink, seq, offset, length, fua, payload })
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
      if (!this.#admission.hasRoom(Math.max(blocks, this.#turnBlocks))) return undefined
      batch = this.log.newBatch(Math.max(blocks, this.#turnBlocks))
    }
    this.#batch = batch
    this.#requests = this.inFlight.takeRequests()
    this.#scheduleTurn()
    return batch
  }

  #enter({ kind, sink, seq, offset, length, fua, payload }: Mutation): void {
    if (kind === 'zero') this.zero(sink, seq, offset, length, { fua, keepAllocated: false })
    else if (payload !== undefined) this.write(sink, seq, offset, payload, 0, length, fua)
  }

  /** A primary that may have been deposed can't know who has the volume now: its word would not be final. */
  #refuse(sink: PieceSink, seq: number, payload: Uint8Array | undefined): void {
    if (this.answersReads) this.fail(sink, seq, payload, errno.EPERM)
    else this.#context.scheduler.soon(() => sink.pieceReturned(seq, payload))
  }

  fail(sink: PieceSink, seq: number, payload: Uint8Array | undefined, error: Errno): void {
    this.#failures.push({ sink, seq, payload, error })
    this.#scheduleTurn()
  }

  #answerRepeated(applied: Lsn, sink: PieceSink, seq: number, fua: boolean, payload: Uint8Array | undefined): void {
    this.#repeated.wait({ lsn: applied, sink, seq, fua, payload })
    this.#scheduleTurn()
  }

  #scheduleTurn(): void {
    if (this.#turnScheduled) return
    this.#turnScheduled = true
    this.woken()
    this.#context.scheduler.soon(this.#endTurn)
  }

  readonly #endTurn = (): void => {
    this.#turnScheduled = false
    if (this.#closed) return
    this.#sealTurnBatch()
    if (this.#failures.length > 0) for (const { sink, seq, error } of this.#failures.splice(0)) sink.pieceDone(seq, error)
    this.#repeated.answer(this.machine.committedLsn)
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
    this.woken()
    const start = this.log.seal(batch, this.scope.epoch)
    const { endLsn } = batch
    const flushFollows = flushExpected && this.#flushes.anticipate(endLsn)
    const entry = { batch, lsn: start, endLsn, requests, written: false }
    this.inFlight.push(entry)
    this.members.batchSealed(batch, flushFollows)
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
    this.#repeated.answer(position)
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

  #open(): void {
    this.#serving = true
    this.#opened = true
    const { volume, epoch } = this.scope
    this.#context.events.event('info', 'serving as primary', { volume, epoch })
    this.#renewPermission()
    this.#scheduleTurn()
    this.#admission.begin()
  }

  #renewPermission(): void {
    this.#servingTime.set(this.permission.until(this.machine.othersInSync()))
    if (!this.answersReads) return
    if (this.#flushes.waiting) this.#scheduleTurn()
    this.#reads.serveAll()
  }

  #flushAll(target: Lsn): void {
    // The others first: their disks work while ours does.
    for (const node of this.machine.othersInSync()) this.members.sendFlush(node, target)
    this.#flushOwn()
  }

  #flushOwn(): void {
    this.log.flush((error, durableLsn) => {
      if (error !== undefined) this.#owner.failed(`the log can't be flushed: ${error.message}`)
      else if (!this.#closed) this.machine.flushed(durableLsn)
    })
  }

  #failForWantOfCopies(now: Instant): void {
    if (this.machine.enoughInSync) {
      this.#tooFewSince = undefined
      this.#admission.copiesAreBack()
      return
    }
    this.#tooFewSince ??= now
    if (now - this.#tooFewSince < this.#context.settings.tooFewReplicasMs) return
    this.#admission.failForWantOfCopies()
    this.#repeated.failAll(errno.EIO)
    this.#flushes.failUncommitted()
    // Where the record of the epoch can't commit either, what was committed before isn't known: reads have no answer.
    if (!this.#opened) this.#reads.failAll(errno.EIO)
    for (const entry of this.inFlight) {
      // In the log they stay, and may yet commit; the client only learns that they are not safe now.
      for (let at = 0; at < entry.requests.count; at++) {
        entry.requests.sinks[at]?.pieceDone(entry.requests.seqs[at] as number, errno.EIO)
      }
      entry.requests.count = 0
    }
  }

  // --- UnalignedOwner

  settle(): void {
    this.#sealTurnBatch()
  }

  appendBlocks(firstBlock: number, blocks: Uint8Array, { sink, seq, payload, fua }: UnalignedWrite): boolean {
    const blockCount = blocks.length / BLOCK_BYTES
    const batch = this.#room(1, blockCount)
    if (batch === undefined) return false
    const start = batch.addWrite(sink.session, seq, firstBlock, blockCount)
    batch.buffer.set(blocks, start)
    const requests = this.#requests
    requests?.originals.set(requests.count, payload)
    requests?.add(sink, seq, -1, payload.length, fua, this.#context.clock.now())
    this.#sealTurnBatch()
    return true
  }

  // --- RelocationHost

  get mayRelocate(): boolean {
    return this.#serving && !this.#admission.mustWait
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
