/**
 * The log and block map of one replica: the front of this package. Single-threaded; completion by callback,
 * never inside the call unless a method says so.
 */
import { BLOCK_BYTES, lsn } from '@holdfast/base'
import type { BlockStatusExtent, DiskError, Epoch, LogPosition, Lsn, SessionId } from '@holdfast/base'
import { AppendWriter } from './append-writer.ts'
import type { Batch } from './batch.ts'
import { CheckpointWriter, freeDeadSegments, pinCheckpoint } from './checkpoint-writer.ts'
import type { CheckpointDone, PinnedCheckpoint } from './checkpoint-writer.ts'
import { Compaction } from './compaction.ts'
import type { RelocationPlan } from './compaction.ts'
import { CrcTables } from './crc-tables.ts'
import { forkPoint } from './epoch-table.ts'
import { Flusher } from './flusher.ts'
import type { FlushDone } from './flusher.ts'
import { PAYLOAD_BLOCKS_MAX } from './header-codec.ts'
import type { LogCore } from './log-core.ts'
import { readLog, streamableFrom } from './log-reader.ts'
import type { ReadLogDone } from './log-reader.ts'
import { Maintenance } from './maintenance.ts'
import { RawAppender } from './raw-append.ts'
import { Reader } from './reader.ts'
import { Rebuild } from './rebuild.ts'
import type { RebuildTarget } from './rebuild.ts'
import { damagedHeaderBefore, repairBlocks } from './repair.ts'
import { Room } from './room.ts'
import { Sealer } from './sealer.ts'
import { type AroundDone, readAround } from './single-blocks.ts'
import { Truncation } from './truncation.ts'
import type { TruncateDone } from './truncation.ts'
import type {
  AppendDone,
  DamageRange,
  EpochStart,
  LogState,
  RawAppendDone,
  ReadDone,
  RepairDone,
} from './types.ts'

const always = (): boolean => true

export class ReplicaLog {
  readonly #core: LogCore
  readonly #tables: CrcTables
  readonly #room: Room
  readonly #writer: AppendWriter
  readonly #sealer: Sealer
  readonly #raw: RawAppender
  readonly #reader: Reader
  readonly #flusher: Flusher
  readonly #truncation: Truncation
  readonly #checkpoints: CheckpointWriter
  readonly #compaction: Compaction
  readonly #maintenance: Maintenance

  /** Use `openReplicaLog`. */
  constructor(core: LogCore) {
    this.#core = core
    this.#tables = new CrcTables(core)
    this.#room = new Room(core, this.#tables)
    this.#writer = new AppendWriter(core)
    this.#writer.issuedLsn = core.appendedLsn
    this.#sealer = new Sealer(core, this.#room, this.#writer)
    this.#raw = new RawAppender(core, this.#room, this.#writer)
    this.#reader = new Reader(core, this.#tables, this.#writer)
    this.#flusher = new Flusher(core)
    this.#truncation = new Truncation(core, this.#writer, this.#room, this.#flusher)
    this.#checkpoints = new CheckpointWriter(core, this.#flusher, this.#room)
    this.#compaction = new Compaction(core)
    this.#maintenance = new Maintenance(core, this.#checkpoints, this.#flusher, this.#room)
  }

  /** End of what was sealed or received; not all of it need be written yet. */
  get appendedLsn(): Lsn {
    return this.#core.appendedLsn
  }
  /** Everything below is written. What a secondary acknowledges. */
  get writtenLsn(): Lsn {
    return this.#core.writtenLsn
  }
  get committedLsn(): Lsn {
    return this.#core.committedLsn
  }
  get durableLsn(): Lsn {
    return this.#core.durableLsn
  }
  get lastEpoch(): Epoch {
    return this.#core.epochs.last
  }
  get lastHeaderCrc(): number {
    return this.#core.lastHeaderCrc
  }
  get epochTable(): readonly EpochStart[] {
    return this.#core.epochs.entries
  }
  /** The host lost its page cache without a clean stop: the tail may be missing (I5). */
  get suspect(): boolean {
    return this.#core.suspect
  }
  /** It was complete once, and its disk came back without it: it is no copy of anything before it has been fed (I5). */
  get lost(): boolean {
    return this.#core.meta.value.lost === true
  }
  get state(): LogState {
    return this.#core.state
  }
  /** It can be read. */
  get usable(): boolean {
    return this.#core.usable
  }
  /** Why the state is `failed`. */
  get failure(): DiskError | undefined {
    return this.#core.failure
  }
  get damage(): readonly DamageRange[] {
    return this.#core.damage
  }
  /** State `damaged`: the log is known to have reached this far. */
  get damagedBelowLsn(): Lsn {
    return this.#core.damagedBelowLsn
  }
  get sizeBytes(): number {
    return this.#core.sizeBytes
  }
  get mappedBlocks(): number {
    return this.#core.map.mappedBlocks
  }
  get segmentCount(): number {
    return this.#core.segments.count
  }
  /** Disk space of the segments. */
  get logBytes(): number {
    return this.#core.segments.count * this.#core.geometry.segmentBytes
  }

  /**
   * This replica has everything the primary has: the tail that may have been lost is back, and what a damaged log
   * may have had beyond its end is no part of the history.
   */
  clearSuspect(): void {
    const core = this.#core
    if (!core.suspect && core.state !== 'damaged') return
    const { lost } = this
    core.suspect = false
    core.meta.value.suspect = false
    core.meta.value.lost = undefined
    // That of a damaged log told how far it had reached, and what has healed it is not durable yet.
    core.meta.value.durableLsn = Math.min(core.meta.value.durableLsn, core.durableLsn)
    if (core.state === 'damaged') {
      core.state = 'ok'
      core.damagedBelowLsn = lsn(0)
    }
    core.meta.save((error) => {
      if (error === undefined) return
      core.suspect = true
      core.meta.value.suspect = true
      if (lost) core.meta.value.lost = true
    })
  }

  // --- The primary's append.

  /** A batch with room for so many payload blocks, with one reference held by the caller. */
  newBatch(payloadBlocksMax: number): Batch {
    return this.#core.options.batchPool.take(payloadBlocksMax)
  }

  /**
   * A hint: the first `blocks` blocks of payload are in the buffer of a batch that nothing was added to so far, and that
   * gets one record. `seal` has their checksums to make no more, when they may be in the cache no more.
   */
  checksumAhead(batch: Batch, blocks: number): void {
    this.#sealer.checksumAhead(batch, blocks)
  }

  /**
   * Gives the batch its place; `appendedLsn` moves here. Returns where `batch.bytes` begins (the pad's place when
   * one goes in front). Only after `canAppend` said yes for its size. The log holds a reference until it is written.
   */
  seal(batch: Batch, epoch: Epoch): Lsn {
    return this.#sealer.seal(batch, epoch)
  }

  /** Writes the next sealed batch. True: written at once, with all before it, and `done` is not called. */
  append(batch: Batch, done: AppendDone): boolean {
    const atOnce = this.#writer.append(batch, done)
    this.#sealer.prepareNext()
    return atOnce
  }

  /**
   * Whether a batch of so many payload blocks can be sealed now. `opening`: a segment is on its way, `onRoom`
   * tells. `useReserve` for batches that only zero or relocate.
   */
  canAppend(payloadBlocks = PAYLOAD_BLOCKS_MAX, useReserve = false): 'yes' | 'opening' | 'no-space' {
    if (this.#core.state !== 'ok' || this.#core.truncating) return 'opening'
    const state = this.#sealer.roomFor(payloadBlocks, useReserve)
    return state === 'ready' ? 'yes' : state
  }

  /** Called back once when opening a segment ended, well or not; then ask `canAppend` again. */
  onRoom(callback: () => void): void {
    this.#room.onRoom(callback)
  }

  // --- The secondary's append.

  /**
   * Appends raw batches that begin at `lsn`, which must be `appendedLsn`. Everything is checked before anything
   * is taken; the payload must not change until `done`. Further calls may follow at once.
   */
  appendRaw(payload: readonly Uint8Array[], start: Lsn, done: RawAppendDone): void {
    this.#raw.append(payload, start, done)
  }

  /** Applies batches that end at or below `target` and are written to the map; call again after more is written. */
  commitTo(target: Lsn): void {
    this.#core.commitTo(target)
  }

  truncateTo(target: Lsn, done: TruncateDone): void {
    if (!this.#raw.idle) {
      this.#core.scheduler.soon(() => done({ kind: 'not-usable', lsn: this.#core.appendedLsn }))
      return
    }
    this.#truncation.truncateTo(target, done)
  }

  flush(done: FlushDone): void {
    this.#flusher.flush(done)
  }

  // --- Reads.

  tryRead(offset: number, length: number, target: Uint8Array, targetOffset: number): boolean {
    return this.#reader.tryRead(offset, length, target, targetOffset)
  }

  read(
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
    done: ReadDone,
  ): void {
    this.#reader.read(offset, length, target, targetOffset, done)
  }

  readLatest(logicalBlock: number, target: Uint8Array, targetOffset: number): boolean {
    return this.#reader.readLatest(logicalBlock, target, targetOffset)
  }

  readLatestAsync(
    logicalBlock: number,
    target: Uint8Array,
    targetOffset: number,
    done: ReadDone,
  ): void {
    this.#reader.readLatestAsync(logicalBlock, target, targetOffset, done)
  }

  /** Payload blocks at a log position at once, verified. False: not in the page cache, or not right; `readBlockAt` tells. */
  tryReadBlockAt(position: Lsn, blockCount: number, target: Uint8Array): boolean {
    return this.#core.usable && this.#reader.tryReadAt(position, blockCount, target)
  }

  /** Payload blocks at a log position, verified; all in one batch. */
  readBlockAt(position: Lsn, blockCount: number, target: Uint8Array, done: ReadDone): void {
    this.#reader.readAt(position, blockCount, -1, target, 0, done)
  }

  /** Writes good bytes, got from a peer and verified here again, back at their place. */
  repairBlocks(position: Lsn, blocks: Uint8Array, done: RepairDone): void {
    repairBlocks(this.#core, this.#tables, position, blocks, done)
  }

  /**
   * The first batch header below `position` in its segment that does not check, and without which nothing there can
   * be verified. Undefined when there is none.
   */
  damagedHeaderBefore(position: Lsn, done: (header: Lsn | undefined) => void): void {
    damagedHeaderBefore(this.#core, position, done)
  }

  blockStatus(offset: number, length: number, extentCountMax: number): BlockStatusExtent[] {
    const first = Math.floor(offset / BLOCK_BYTES)
    const count = Math.ceil((offset + length) / BLOCK_BYTES) - first
    const extents = this.#core.map.runs(first, count, extentCountMax)
    return clipExtents(extents, offset - first * BLOCK_BYTES, length)
  }

  /**
   * Whether a request is in the log: undefined, or the LSN that must be committed before it may be acknowledged;
   * 0 when it is committed.
   */
  isApplied(session: SessionId, seq: number): Lsn | undefined {
    const end = this.#core.dedupe.find(session, seq)
    if (end < 0) return undefined
    return lsn(end <= this.#core.committedLsn ? 0 : end)
  }

  // --- Catch-up and rebuild.

  streamableFrom(): Lsn {
    return streamableFrom(this.#core)
  }

  readLog(fromLsn: Lsn, maxBytes: number, done: ReadLogDone): void {
    readLog(this.#core, fromLsn, maxBytes, done)
  }

  forkPoint(theirTable: readonly EpochStart[], theirAppendedLsn: Lsn): Lsn {
    const core = this.#core
    return forkPoint(core.epochs.entries, core.appendedLsn, theirTable, theirAppendedLsn)
  }

  /** Whether everything up to that position of a history is in this log. */
  holds(position: LogPosition): boolean {
    return this.#core.epochs.holds(position, this.#core.appendedLsn)
  }

  /** While held, no segment is freed, unless the disk has no room left: who reads then must begin anew. */
  pin(): { release(): void } {
    this.#core.pins++
    let held = true
    return {
      release: () => {
        if (!held) return
        held = false
        this.#core.pins--
        freeDeadSegments(this.#core)
      },
    }
  }

  /** Segments that are here and end at or below `limit`. */
  fullSegmentsBelow(limit: Lsn): number[] {
    const { segments, geometry } = this.#core
    return segments.numbers.filter((number) => (number + 1) * geometry.segmentBlocks <= limit)
  }

  /**
   * The end of a recovery that began at a soft checkpoint, before anybody has the log: all that was found is on the disk,
   * and with a durable checkpoint behind it it is durable.
   */
  harden(done: (error: DiskError | undefined) => void): void {
    const core = this.#core
    // Spares take room that the checkpoint may want.
    if (!core.segments.hasRoom(false)) core.segments.trimSpares()
    this.#checkpoints.write((error) => {
      if (error !== undefined) return done(error)
      core.durableLsn = core.writtenLsn
      core.meta.value.durableLsn = Math.max(core.meta.value.durableLsn, core.durableLsn)
      core.meta.save(done)
    })
  }

  checkpointNow(done: CheckpointDone): void {
    this.#checkpoints.write(done)
  }

  /** The newest checkpoint, which stays until it is released, whatever newer ones are written. */
  pinCheckpoint(): PinnedCheckpoint | undefined {
    return pinCheckpoint(this.#core)
  }

  /**
   * Raw bytes of a segment file, whole blocks, for a rebuild elsewhere. Blocks that the disk does not give are zeroes, and
   * their positions are named.
   */
  readSegment(
    segment: number,
    offsetBytes: number,
    length: number,
    done: (error: DiskError | undefined, bytes: Uint8Array, unreadable: readonly Lsn[]) => void,
  ): void {
    const { segments, scheduler, geometry } = this.#core
    const known = segments.get(segment)
    const bytes = new Uint8Array(length)
    if (known === undefined) {
      const error: DiskError = { kind: 'absent', message: `segment ${segment} is gone` }
      return scheduler.soon(() => done(error, bytes, []))
    }
    segments.retain(known)
    segments.open(known, (error, file) => {
      const finish: AroundDone = (failure, unreadable) => {
        segments.release(known)
        const base = segment * geometry.segmentBlocks
        done(failure, bytes, unreadable.map((index) => lsn(base + index)))
      }
      if (file === undefined) return finish(error, [])
      readAround({ file, index: offsetBytes / BLOCK_BYTES, count: length / BLOCK_BYTES }, bytes, finish)
    })
  }

  /**
   * Gives up the contents but the segments that are the same on the peer. The state is `rebuilding` at once and
   * until the target's `install` succeeds, also across restarts. `begun` is called when that is so on the disk, or the
   * log has failed, or it was given up before anything was changed.
   */
  beginRebuild(fork: Lsn, needed: readonly number[], begun: () => void = () => undefined): RebuildTarget {
    return new Rebuild(this.#core, this.#writer, this.#room, this.#flusher, fork, needed, begun)
  }

  // --- Upkeep.

  /** What to relocate next; fits one batch for `maxBlocks` up to 512. Undefined also while it looks. */
  compactionWork(maxBlocks: number): RelocationPlan | undefined {
    return this.#compaction.work(maxBlocks)
  }

  /**
   * Call now and then (every second or so): checkpoints, freed segments, idle files, rest. `takeStep` is asked before
   * each step towards rest: false puts it off until a later round.
   */
  maintenance(takeStep: () => boolean = always): void {
    this.#maintenance.round(takeStep)
  }

  /** Rounds of `maintenance` since the log grew. */
  get quietRounds(): number {
    return this.#maintenance.quietRounds
  }

  /**
   * Ends the log. `clean`: flushed, with a checkpoint, and marked so. The caller begins nothing any more; what the log
   * itself has under way (a segment, a checkpoint, meta, a cut, a rebuild) is waited for: its place may be somebody
   * else's afterwards.
   */
  close(clean: boolean, done: (error: DiskError | undefined) => void): void {
    this.#core.closing = true
    this.#core.whenNoTask(() => this.#close(clean, done))
  }

  #close(clean: boolean, done: (error: DiskError | undefined) => void): void {
    this.#room.whenQuiet(this.#writer, () => {
      if (!clean || !this.#core.usable) {
        this.#checkpoints.whenIdle(() => this.#core.meta.whenIdle(() => this.#end(undefined, done)))
        return
      }
      this.#flusher.flush((error) => {
        if (error !== undefined) return this.#end(error, done)
        this.#closeClean(done)
      })
    })
  }

  #closeClean(done: (error: DiskError | undefined) => void): void {
    const core = this.#core
    const meta = core.meta.value
    // Opened and left alone: the mark of the last clean stop still stands.
    if (meta.clean) return this.#end(undefined, done)
    this.#checkpoints.write(() => {
      // Without room for a checkpoint the stop is clean all the same: the log is durable.
      if (core.state !== 'ok') return this.#end(core.failure, done)
      meta.clean = true
      meta.bootId = core.options.bootId
      meta.durableLsn = core.durableLsn
      core.meta.save((error) => this.#end(error, done))
    })
  }

  #end(error: DiskError | undefined, done: (error: DiskError | undefined) => void): void {
    this.#core.segments.closeAll()
    if (this.#core.state !== 'failed') this.#core.state = 'closed'
    this.#core.scheduler.soon(() => done(error))
  }
}

/** Block extents cut to a byte range that begins `skip` bytes into the first one. */
function clipExtents(
  extents: readonly BlockStatusExtent[],
  skip: number,
  length: number,
): BlockStatusExtent[] {
  let left = length
  return extents.map((extent, i) => {
    const lengthBytes = Math.min(left, extent.lengthBytes - (i === 0 ? skip : 0))
    left -= lengthBytes
    return { lengthBytes, hole: extent.hole }
  })
}
