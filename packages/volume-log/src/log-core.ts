/**
 * The state of one replica's log, shared by the parts that work on it: positions, commit queue, block map,
 * segments. Invariants: committedLsn ≤ writtenLsn ≤ appendedLsn, durableLsn ≤ writtenLsn; the map holds exactly
 * what lies below committedLsn (I2); the commit queue exactly the batches in [committedLsn, appendedLsn).
 */
import { assert, lsn, WIDE } from '@holdfast/base'
import type { Checksum, Disk, DiskError, Epoch, EventLog, Lsn, Scheduler } from '@holdfast/base'
import { BlockMap } from './block-map.ts'
import { Dedupe } from './dedupe.ts'
import { EpochTable } from './epoch-table.ts'
import { Geometry } from './geometry.ts'
import type { HeaderView } from './header-codec.ts'
import { op, RECORD_WORDS, RECORDS_WORD } from './header-codec.ts'
import { encodeText, MetaFile } from './meta.ts'
import type { Meta } from './meta.ts'
import { PendingRing } from './pending-ring.ts'
import type { RecordVisitor } from './pending-ring.ts'
import { SegmentSet } from './segment-set.ts'
import type { Segment } from './segment-set.ts'
import { defaultSettings } from './types.ts'
import type { DamageRange, LogSettings, LogState, ReplicaLogOptions } from './types.ts'

export interface CheckpointInfo {
  readonly lsn: Lsn
  /** Segments whose contents the checkpoint refers to. */
  readonly segments: number[]
  readonly bytes: number
}

export class LogCore {
  readonly options: ReplicaLogOptions
  readonly disk: Disk
  readonly checksum: Checksum
  readonly scheduler: Scheduler
  readonly events: EventLog
  readonly settings: LogSettings
  readonly geometry: Geometry
  readonly map: BlockMap
  readonly segments: SegmentSet
  readonly pending = new PendingRing()
  readonly dedupe = new Dedupe()
  readonly epochs = new EpochTable()
  readonly meta: MetaFile
  /** CRC of this boot's id: marks the headers that were sealed here and now. */
  readonly sealer: number

  appendedLsn: Lsn = lsn(WIDE)
  /** Everything below is written (page cache or disk). */
  writtenLsn: Lsn = lsn(WIDE)
  committedLsn: Lsn = lsn(WIDE)
  durableLsn: Lsn = lsn(WIDE)
  /** Batches appended since the log was opened. */
  batches = 0
  /** Flushes begun since the log was opened. */
  flushes = 0
  lastHeaderCrc = WIDE
  /** CRC of the last header below committedLsn. */
  committedCrc = WIDE
  sizeBytes: number
  state: LogState = 'ok'
  failure: DiskError | undefined
  suspect = false
  damage: DamageRange[] = []
  /** In state `damaged`: up to where the log is known to have reached. */
  damagedBelowLsn: Lsn = lsn(WIDE)
  /** The newest durable one. */
  lastCheckpoint: CheckpointInfo | undefined
  /** Position of the newest soft checkpoint (decision 20); 0 where a durable one is as new. */
  softLsn = WIDE
  /** How often the log was emptied: what was begun before is of another history. */
  resets = 0
  /** End of the last segment that was freed on the word of a soft checkpoint. */
  softFreedEnd = WIDE
  /** Called when the log has gone on into another segment. */
  segmentFilled: (() => void) | undefined
  /** Segments that no checkpoint needs any more. */
  freeable: number[] = []
  pins = 0
  /** Checkpoints that somebody reads, by LSN, and how many do; their files stay. */
  readonly pinnedCheckpoints = new Map<number, number>()
  truncating = false
  /** `close` was called: it waits for what the log has under way. */
  closing = false
  #tasks = 0
  #whenNoTask: (() => void)[] = []
  /** Lowest position cut since the flush under way began: it proves nothing about what was written there since. */
  cutSinceFlush = Number.POSITIVE_INFINITY

  constructor(options: ReplicaLogOptions, meta: Meta) {
    this.options = options
    this.disk = options.disk
    this.checksum = options.checksum
    this.scheduler = options.scheduler
    this.events = options.events
    this.settings = { ...defaultSettings, ...options.settings }
    this.geometry = new Geometry(options.segmentBlocks, options.volume, options.path)
    const { segmentBlocks, bootId, checksum, wordPool } = options
    const boot = encodeText(bootId)
    const seed = checksum.crc32c(boot, 0, boot.length, this.geometry.seed)
    this.map = new BlockMap({ segmentBlocks, wholePages: this.settings.mapWholePages, seed, wordPool })
    this.segments = new SegmentSet(options.disk, this.geometry, options, this.settings)
    this.meta = new MetaFile(options.disk, this.geometry.metaPath, meta)
    this.sizeBytes = meta.sizeBytes
    this.sealer = sealerOf(options.bootId, options.checksum)
    this.#toStart()
  }

  /** Map entry of a log position; 0 when its segment is gone. */
  entryOf(position: number): number {
    const segment = this.segments.get(this.geometry.segmentOf(position))
    return segment === undefined ? 0 : this.#entryIn(segment, this.geometry.indexOf(position))
  }

  #entryIn(segment: Segment, index: number): number {
    return 1 + segment.slot * this.geometry.segmentBlocks + index
  }

  /** Log position of a map entry. */
  lsnOf(entry: number): number {
    const segment = this.segmentOfEntry(entry)
    assert(segment !== undefined, 'map entry of a freed segment', { entry })
    return segment.number * this.geometry.segmentBlocks + this.indexOfEntry(entry)
  }

  segmentOfEntry(entry: number): Segment | undefined {
    return this.segments.slots[Math.floor((entry - 1) / this.geometry.segmentBlocks)]
  }

  indexOfEntry(entry: number): number {
    return (entry - 1) % this.geometry.segmentBlocks
  }

  /** Takes a batch into the commit queue and everything that follows the appended end. */
  noteAppended(
    words: Uint32Array,
    at: number,
    recordCount: number,
    start: Lsn,
    end: Lsn,
    epoch: Epoch,
    headerCrc: number,
  ): void {
    this.batches++
    this.pending.push(words, at, recordCount, start, end, epoch, headerCrc)
    for (let i = 0; i < recordCount; i++) {
      const word = at + RECORDS_WORD + i * RECORD_WORDS
      const first = words[word] ?? 0
      const operation = first & 0xff
      if (operation !== op.WRITE && operation !== op.ZERO) continue
      const session = (first >>> 16) * 2 ** 32 + (words[word + 1] ?? 0)
      this.dedupe.note(session, words[word + 2] ?? 0, end)
    }
    this.epochs.note(epoch, start)
    this.lastHeaderCrc = headerCrc
    this.appendedLsn = end
  }

  noteHeader(header: HeaderView): void {
    this.noteAppended(
      header.words,
      0,
      header.recordCount,
      lsn(header.lsn),
      lsn(header.endLsn),
      header.epoch as Epoch,
      header.headerCrc,
    )
  }

  /** Applies whole batches that end at or below `target` and are written (I2). */
  commitTo(target: number): void {
    const limit = Math.min(target, this.writtenLsn)
    while (this.pending.headEnd() <= limit) {
      const end = this.pending.headEnd()
      const crc = this.pending.headCrc()
      this.pending.shift(this.#apply)
      this.committedLsn = lsn(end)
      this.committedCrc = crc
    }
  }

  /** Takes batches from `from` on out of the commit queue, newest first. */
  cutPending(from: number): void {
    assert(from >= this.committedLsn, 'cut below the commit position', { from })
    while (this.pending.tailLsn() >= from) {
      this.appendedLsn = lsn(this.pending.pop(this.#undo))
    }
    this.lastHeaderCrc = this.pending.length > 0 ? this.pending.tailCrc() : this.committedCrc
    this.epochs.cut(from)
    this.cutSinceFlush = Math.min(this.cutSinceFlush, this.appendedLsn)
    if (this.writtenLsn > this.appendedLsn) this.writtenLsn = this.appendedLsn
    if (this.durableLsn > this.appendedLsn) this.durableLsn = this.appendedLsn
  }

  /** A write or flush failed: what the page cache holds is unknown now, only a restart of the log helps. */
  fail(error: DiskError): void {
    if (this.state === 'failed' || this.state === 'closed') return
    this.state = 'failed'
    this.failure = error
    this.events.event('error', 'log failed', { path: this.geometry.path, cause: error.message })
  }

  /** A cut, or a step of a rebuild, is under way until `taskEnded`. */
  taskBegan(): void {
    this.#tasks++
  }

  taskEnded(): void {
    this.#tasks--
    while (this.#tasks === 0 && this.#whenNoTask.length > 0) this.#whenNoTask.shift()?.()
  }

  /** Calls back, at once perhaps, when none is under way. */
  whenNoTask(callback: () => void): void {
    if (this.#tasks === 0) callback()
    else this.#whenNoTask.push(callback)
  }

  /**
   * Replay from the newest durable checkpoint would end at a segment that was used again: what lies behind is safe
   * from the end of the process and not from that of the host, and must not be called durable.
   */
  get hasHole(): boolean {
    return this.softFreedEnd > (this.lastCheckpoint?.lsn ?? 0)
  }

  get usable(): boolean {
    return this.state === 'ok' || this.state === 'damaged'
  }

  /** Whether the log may begin by itself what nobody waits for. */
  get mayBegin(): boolean {
    return this.usable && !this.truncating && !this.closing
  }

  /** Empty, as before the first batch. */
  reset(): void {
    this.resets++
    this.map.reset()
    this.segments.reset()
    this.pending.clear()
    this.dedupe.clear()
    this.epochs.replace([])
    this.#toStart()
    this.cutSinceFlush = 0
    this.damage = []
    this.lastCheckpoint = undefined
    this.freeable = []
  }

  #toStart(): void {
    this.appendedLsn = lsn(0)
    this.writtenLsn = lsn(0)
    this.committedLsn = lsn(0)
    this.durableLsn = lsn(0)
    this.damagedBelowLsn = lsn(0)
    this.lastHeaderCrc = 0
    this.committedCrc = 0
    this.softLsn = 0
    this.softFreedEnd = 0
  }

  readonly #apply: RecordVisitor = (operation, logicalBlock, blockCount, position, session) => {
    switch (operation) {
      case op.WRITE:
        this.map.setRun(logicalBlock, blockCount, this.#place(logicalBlock, blockCount, position))
        break
      case op.ZERO:
        this.map.clear(logicalBlock, blockCount)
        break
      case op.RESIZE:
        this.#resize(logicalBlock)
        break
      case op.RELOCATE:
        this.#relocate(logicalBlock, blockCount, position, session)
        break
      default:
        break
    }
  }

  readonly #undo: RecordVisitor = (operation, _block, _count, _position, session, seq) => {
    if (operation === op.WRITE || operation === op.ZERO) this.dedupe.forget(session, seq)
  }

  /** Map entry of blocks that are committed now; the summary of their segment says whose they are from now on. */
  #place(logicalBlock: number, blockCount: number, position: number): number {
    const segment = this.segments.get(this.geometry.segmentOf(position))
    if (segment === undefined) return 0
    const index = this.geometry.indexOf(position)
    this.segments.summarize(segment, index, logicalBlock, blockCount)
    return this.#entryIn(segment, index)
  }

  #resize(sizeBytes: number): void {
    if (sizeBytes < this.sizeBytes) {
      const first = Math.ceil(sizeBytes / 4096)
      this.map.clear(first, Math.ceil(this.sizeBytes / 4096) - first)
    }
    this.sizeBytes = sizeBytes
  }

  /** Where a newer write came between, the map points elsewhere and stays. */
  #relocate(logicalBlock: number, blockCount: number, position: number, oldLsn: number): void {
    const oldEntry = this.entryOf(oldLsn)
    if (oldEntry === 0) return
    const newEntry = this.#place(logicalBlock, blockCount, position)
    for (let i = 0; i < blockCount; i++) {
      this.map.moveIf(logicalBlock + i, oldEntry + i, newEntry + i)
    }
  }
}

export function sealerOf(bootId: string, checksum: Checksum): number {
  const bytes = encodeText(bootId)
  return checksum.crc32c(bytes, 0, bytes.length, 0)
}

/** True when a batch brings no new data, so that it may use the reserve of space. */
export function onlyFreesSpace(header: HeaderView): boolean {
  for (let i = 0; i < header.recordCount; i++) {
    if (header.recordOp(i) === op.WRITE) return false
  }
  return true
}

