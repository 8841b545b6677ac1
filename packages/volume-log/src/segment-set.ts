/**
 * The segment files of one log: which exist, which are open, which slot of the block map stands for
 * which. Opening for append is asynchronous and ahead of time; space is taken when a file is created.
 */
import { assert } from '@holdfast/base'
import type { Disk, DiskError, DiskFile, OpenOptions } from '@holdfast/base'
import type { CrcCache, CrcHolder } from './crc-cache.ts'
import type { Geometry } from './geometry.ts'
import { numberInName } from './geometry.ts'
import { SUMMARY_BLOCKS_MAX, type SummaryCache, type SummaryHolder } from './summary-cache.ts'
import type { LogMemory, LogSettings } from './types.ts'
import type { WordPool } from './word-pool.ts'

const RESERVED_SLOTS = 2

type FileWaiter = (error: DiskError | undefined, file: DiskFile | undefined) => void

export class Segment implements CrcHolder, SummaryHolder {
  readonly number: number
  slot: number
  file: DiskFile | undefined
  crcs: Uint32Array | undefined
  crcUsed = false
  crcPinned = false
  /** A header could not be read when the table was loaded. */
  crcsPartial = false
  summary: Uint32Array | undefined
  /** File and checksums are there and it may be appended to. */
  ready = false
  /** Its name is not durable before a `datasync` of a file that was opened with `createBytes`. */
  nameOwed = false
  /** Operations under way: it must not be closed or freed meanwhile. */
  users = 0
  /** Freed while in use: goes at the last user's end. */
  doomed = false
  lastUse = 0
  /** The round in which somebody was last told that it may be appended to: the batch may be on its way. */
  promised = -1
  waiters: FileWaiter[] | undefined

  constructor(number: number, slot: number) {
    this.number = number
    this.slot = slot
  }
}

export class SegmentSet {
  readonly #disk: Disk
  readonly #geometry: Geometry
  readonly #checksums: CrcCache
  readonly #summaries: SummaryCache
  readonly #wordPool: WordPool
  readonly #settings: LogSettings
  readonly #bySegment = new Map<number, Segment>()
  /** Written since the last flush began: a flush looks at these only, however many segments there are. */
  readonly #dirty = new Set<Segment>()
  readonly slots: (Segment | undefined)[] = []
  readonly #freeSlots: number[] = []
  #spares: string[] = []
  #spareCounter = 0
  round = 0

  constructor(disk: Disk, geometry: Geometry, memory: LogMemory, settings: LogSettings) {
    this.#disk = disk
    this.#geometry = geometry
    this.#checksums = memory.crcCache
    this.#summaries = memory.summaryCache
    this.#wordPool = memory.wordPool
    this.#settings = settings
  }

  get count(): number {
    return this.#bySegment.size
  }

  get numbers(): number[] {
    return [...this.#bySegment.keys()].sort((a, b) => a - b)
  }

  get all(): IterableIterator<Segment> {
    return this.#bySegment.values()
  }

  /** Whether a flush has anything to do. */
  get anyDirty(): boolean {
    for (const { file } of this.#dirty) if (file !== undefined) return true
    return false
  }

  get dirty(): ReadonlySet<Segment> {
    return this.#dirty
  }

  markDirty(segment: Segment): void {
    if (this.#bySegment.get(segment.number) === segment) this.#dirty.add(segment)
  }

  markClean(segment: Segment): void {
    this.#dirty.delete(segment)
  }

  get(number: number): Segment | undefined {
    return this.#bySegment.get(number)
  }

  /** Names found in the directory when the log is opened. */
  adopt(names: readonly string[]): void {
    for (const name of names) {
      const spare = numberInName(name, 'spare-')
      if (spare >= 0) {
        this.#spares.push(`${this.#geometry.path}/${name}`)
        this.#spareCounter = Math.max(this.#spareCounter, spare + 1)
      }
    }
  }

  /** Removes the spare files there are, known or found. */
  dropSpares(names: readonly string[] = []): void {
    const found = names.filter((name) => numberInName(name, 'spare-') >= 0)
    for (const name of found) this.#disk.remove(`${this.#geometry.path}/${name}`)
    for (const path of this.#spares.splice(0)) this.#disk.remove(path)
  }

  /** Makes a segment known, at a given slot (from a checkpoint) or at a free one. */
  add(number: number, slot = -1): Segment {
    const known = this.#bySegment.get(number)
    if (known !== undefined) return known
    let at = slot
    if (at < 0) at = this.#freeSlots.pop() ?? this.slots.length
    while (this.slots.length < at) {
      this.#freeSlots.push(this.slots.length)
      this.slots.push(undefined)
    }
    const segment = new Segment(number, at)
    assert(this.slots[at] === undefined, 'slot is taken', { slot: at })
    if (slot >= 0) {
      const free = this.#freeSlots.indexOf(at)
      if (free >= 0) this.#freeSlots.splice(free, 1)
    }
    this.slots[at] = segment
    this.#bySegment.set(number, segment)
    return segment
  }

  /** Opens an existing segment's file. May call back at once when it is open. */
  open(segment: Segment, done: FileWaiter): void {
    segment.lastUse = this.round
    if (segment.file !== undefined) return done(undefined, segment.file)
    if (segment.waiters !== undefined) {
      segment.waiters.push(done)
      return
    }
    // Closed before its first flush: the file opened now has to make the name durable with its contents.
    this.#openFile(segment, segment.nameOwed ? { createBytes: this.#geometry.segmentBytes } : {}, done)
  }

  /** Creates a segment of full size, from a spare file where there is one. `fill` as for `Disk.open`. */
  create(
    number: number,
    options: { readonly useReserve: boolean; readonly fill: OpenOptions['fill'] },
    done: (error: DiskError | undefined, segment: Segment | undefined) => void,
  ): void {
    const { useReserve, fill } = options
    const spare = this.#spares.pop()
    if (spare === undefined && !this.hasRoom(useReserve)) {
      return done({ kind: 'no-space', message: `no room for segment ${number} of ${this.#geometry.path}` }, undefined)
    }
    const segment = this.add(number)
    segment.nameOwed = true
    this.#openFile(segment, { createBytes: this.#geometry.segmentBytes, recycle: spare, fill }, (error) => {
      if (error === undefined) return done(undefined, segment)
      // A spare may be either where it was or renamed already: a later start cleans up.
      this.forget(segment)
      done(error, undefined)
    })
  }

  get freeBytes(): number {
    return this.#disk.space().freeBytes
  }

  /** Whether one more segment can be named by map entries (decision 2). The last ones are for compaction. */
  hasSlot(useReserve: boolean): boolean {
    const max = Math.min(this.#geometry.slotsMax, this.#settings.segmentsMax)
    return this.#bySegment.size < (useReserve ? max : max - RESERVED_SLOTS)
  }

  hasRoom(useReserve: boolean): boolean {
    const reserve = useReserve ? 0 : this.#settings.reserveBytes
    return this.freeBytes >= this.#geometry.segmentBytes + reserve
  }

  /** Spares kept while the log is written to: what a checkpoint frees at once is what is written until the next. */
  get #sparesMax(): number {
    const { spareFilesMax, spareBytesMax } = this.#settings
    return Math.max(spareFilesMax, Math.floor(spareBytesMax / this.#geometry.segmentBytes))
  }

  /** Gives space back that a busy log would use again at once. */
  trimSpares(): void {
    for (const path of this.#spares.splice(this.#settings.spareFilesMax)) this.#disk.remove(path)
  }

  get hasExcessSpares(): boolean {
    return this.#spares.length > this.#settings.spareFilesMax
  }

  get hasSpare(): boolean {
    return this.#spares.length > 0
  }

  /** Tables for a segment that is empty so far. */
  freshTables(segment: Segment): void {
    const { segmentBlocks } = this.#geometry
    segment.crcsPartial = false
    this.#checksums.add(segment, this.#wordPool.take(segmentBlocks))
    this.#summaries.begin(segment, this.#wordPool.take(segmentBlocks))
  }

  setTable(segment: Segment, table: Uint32Array): void {
    this.#checksums.add(segment, table)
  }

  /** The blocks from `index` on were written for the logical blocks from `logicalBlock` on, and are committed. */
  summarize(segment: Segment, index: number, logicalBlock: number, blockCount: number): void {
    const { summary } = segment
    if (summary === undefined) return
    if (logicalBlock + blockCount > SUMMARY_BLOCKS_MAX) return this.#summaries.remove(segment)
    for (let i = 0; i < blockCount; i++) summary[index + i] = logicalBlock + i + 1
  }

  #dropTables(segment: Segment): void {
    this.#checksums.remove(segment)
    this.#summaries.remove(segment)
  }

  retain(segment: Segment): void {
    segment.users++
    segment.lastUse = this.round
  }

  release(segment: Segment): void {
    segment.users--
    if (segment.users === 0 && segment.doomed) this.#dispose(segment, true)
  }

  /** Frees a segment that nothing points at any more; keeps its file for reuse if wanted. */
  free(segment: Segment, recycle: boolean): void {
    const tables = [segment.crcs, segment.summary]
    this.forget(segment)
    // A read under way goes on with them: they must not be another segment's.
    if (segment.users === 0) for (const table of tables) if (table !== undefined) this.#wordPool.give(table)
    if (segment.users > 0 && recycle) segment.doomed = true
    else this.#dispose(segment, recycle)
  }

  /** Takes it out of the tables only. */
  forget(segment: Segment): void {
    if (!this.#bySegment.delete(segment.number)) return
    this.slots[segment.slot] = undefined
    this.#freeSlots.push(segment.slot)
    this.#dropTables(segment)
    this.#dirty.delete(segment)
    segment.ready = false
  }

  /** Closes files that were not used for some rounds, or are too many. */
  closeIdle(): void {
    this.round++
    const open = [...this.#bySegment.values()].filter((segment) => segment.file !== undefined)
    open.sort((a, b) => a.lastUse - b.lastUse)
    let excess = open.length - this.#settings.openFilesMax
    for (const segment of open) {
      const idle = this.round - Math.max(segment.lastUse, segment.promised) > this.#settings.idleRounds
      if ((!idle && excess <= 0) || segment.users > 0 || this.#dirty.has(segment)) continue
      if (segment.ready && !idle) continue
      this.closeFile(segment)
      excess--
    }
  }

  closeFile(segment: Segment): void {
    segment.file?.close()
    segment.file = undefined
    segment.ready = false
    segment.crcPinned = false
  }

  closeAll(): void {
    for (const segment of this.#bySegment.values()) {
      this.closeFile(segment)
      this.#dropTables(segment)
    }
  }

  /** Everything known is forgotten, files stay. */
  reset(): void {
    this.closeAll()
    this.#bySegment.clear()
    this.#dirty.clear()
    this.slots.length = 0
    this.#freeSlots.length = 0
  }

  #openFile(segment: Segment, options: OpenOptions, done: FileWaiter): void {
    segment.waiters = [done]
    segment.users++
    this.#disk.open(this.#geometry.segmentPath(segment.number), options, (error, file) => {
      const waiters = segment.waiters ?? []
      segment.waiters = undefined
      segment.file = file
      for (const waiter of waiters) waiter(error, file)
      this.release(segment)
    })
  }

  #dispose(segment: Segment, recycle: boolean): void {
    segment.file?.close()
    segment.file = undefined
    const path = this.#geometry.segmentPath(segment.number)
    if (!recycle || this.#spares.length >= this.#sparesMax) return this.#disk.remove(path)
    const spare = `${this.#geometry.path}/spare-${this.#spareCounter++}`
    this.#disk.rename(path, spare)
    this.#spares.push(spare)
  }
}
