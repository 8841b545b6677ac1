/**
 * Segments ready to be appended to, ahead of need. Disk full shows here and nowhere else: a file's space is
 * taken when it is made.
 */
import type { DiskError, OpenOptions } from '@holdfast/base'
import type { AppendWriter } from './append-writer.ts'
import type { CrcTables } from './crc-tables.ts'
import { PAYLOAD_BLOCKS_MAX } from './header-codec.ts'
import type { LogCore } from './log-core.ts'
import type { Segment } from './segment-set.ts'

const RETRY_MS = 1000
/** A segment for data that are flushed in pieces of up to so many bytes is written once before it is used. */
const FILL_FLUSH_BYTES_MAX = 128 * 1024
/**
 * The same, in the page cache only, for data that come in batches of up to so many bytes, where segments are filled one
 * after the other: the page cache would get pages of the size of a batch, and a large write into these costs half as
 * much again whenever the file is used again.
 */
const FILL_BATCH_BYTES_MAX = 64 * 1024
const FILL_SEGMENTS_MIN = 2
/**
 * Segments are made ready ahead for as long as a disk may stand still without being felt, in rounds of upkeep: making
 * one waits for the filesystem's journal, and so for all that the disk has to do before.
 */
const AHEAD_ROUNDS = 1 / 4
const AHEAD_BYTES_MAX = 64 * 1024 * 1024
const AHEAD_SEGMENTS_MAX = 8

export type RoomState = 'ready' | 'opening' | 'no-space'

export class Room {
  readonly #core: LogCore
  readonly #tables: CrcTables
  readonly #preparing = new Set<number>()
  #listeners: (() => void)[] = []
  /** Segments that wait until the mark of a clean stop is gone from the disk. */
  #unmarking: ((error: DiskError | undefined) => void)[] = []
  /** The last attempt failed and the time to try again has not come. */
  #full = false
  #reserveFull = false
  /** An existing segment could not be opened; tried again a little later. */
  #blocked = false
  /** Said once, not every second. */
  #warned = false
  /** Flushes of the log when the present segment began, and whether the one before was flushed in small pieces. */
  #flushesBefore = 0
  #flushedOftenBefore = false
  /** Batches of the log when the present segment began, and whether the one before was filled by small ones. */
  #batchesBefore = 0
  #smallBatchesBefore = false
  readonly #aheadMax: number
  /** How many are wanted ahead of the one in which the log ends, and up to which they were asked for. */
  #aheadCount = 1
  #aheadTo = 0
  /** The segment in which the log ended last, the round it was in, and how many were begun in it and in the one before. */
  #current = -1
  #round = 0
  #begun = 0
  #begunBefore = 0

  constructor(core: LogCore, tables: CrcTables) {
    this.#core = core
    this.#tables = tables
    const fitting = Math.floor(AHEAD_BYTES_MAX / core.geometry.segmentBytes)
    this.#aheadMax = Math.max(1, Math.min(AHEAD_SEGMENTS_MAX, fitting))
  }

  /** Some segment is being prepared: an append may follow, and the mark of a clean stop is gone for it already. */
  get busy(): boolean {
    return this.#preparing.size > 0
  }

  /** Calls back once when an attempt under way has ended, well or not. */
  onRoom(callback: () => void): void {
    this.#listeners.push(callback)
  }

  /** Runs `task` when no write and no opening of a segment is under way. Who calls keeps new ones from beginning. */
  whenQuiet(writer: AppendWriter, task: () => void): void {
    writer.whenDrained(() => {
      if (this.#preparing.size > 0) this.onRoom(() => this.whenQuiet(writer, task))
      else task()
    })
  }

  /** State of one segment for appending; begins to prepare it where needed. */
  ensure(number: number, useReserve: boolean): RoomState {
    const { segments } = this.#core
    const segment = segments.get(number)
    if (segment?.ready === true) {
      segment.promised = segments.round
      return 'ready'
    }
    if (this.#preparing.has(number)) return 'opening'
    const known = segment !== undefined
    if (known && this.#blocked) return 'opening'
    if (!known && (useReserve ? this.#reserveFull : this.#full)) return 'no-space'
    this.#preparing.add(number)
    if (!this.#mayCreate(number, useReserve)) {
      const message = segments.hasSlot(useReserve) ? 'the disk is full' : 'the log is as long as map entries can name'
      this.#ended(number, useReserve, { kind: 'no-space', message })
      return 'no-space'
    }
    this.#markUnclean((error) => {
      if (error !== undefined) return this.#ended(number, useReserve, error)
      this.#prepare(number, useReserve)
    })
    if (this.#preparing.has(number)) return 'opening'
    return this.#core.segments.get(number)?.ready === true ? 'ready' : 'no-space'
  }

  /**
   * Begins with the segment behind the one in which the log ends. A volume that has filled a segment will fill the
   * next: it is made ready at once, since allocating may wait for the filesystem's journal. A small volume stays small.
   */
  prepareNext(useReserve: boolean): void {
    if (!this.#core.mayBegin) return
    const { geometry, appendedLsn } = this.#core
    const { segmentBlocks } = geometry
    const segment = geometry.segmentOf(appendedLsn)
    const index = geometry.indexOf(appendedLsn)
    const half = Math.min(segmentBlocks >> 1, PAYLOAD_BLOCKS_MAX * 2)
    const ahead = segment > 0 ? segmentBlocks : half
    if (index === 0 || segmentBlocks - index > ahead) return
    if (segment !== this.#current) this.#beganSegment(segment)
    this.ensure(segment + 1, useReserve)
    if (this.#aheadTo < segment + this.#aheadCount && this.#preparing.size === 0) this.#prepareAhead(segment)
  }

  /** How many are filled in a round says how many are wanted ahead. */
  #beganSegment(segment: number): void {
    const { round } = this.#core.segments
    if (round !== this.#round) {
      this.#begunBefore = round === this.#round + 1 ? this.#begun : 0
      this.#begun = 0
      this.#round = round
    }
    this.#begun++
    this.#current = segment
    this.#flushedOftenBefore = this.#flushedOften()
    this.#flushesBefore = this.#core.flushes
    const batches = this.#core.batches - this.#batchesBefore
    this.#smallBatchesBefore = batches * FILL_BATCH_BYTES_MAX >= this.#core.geometry.segmentBytes
    this.#batchesBefore = this.#core.batches
    const wanted = Math.ceil(this.#begunInRound * AHEAD_ROUNDS)
    this.#aheadCount = Math.max(1, Math.min(this.#aheadMax, wanted))
    // A cut may have taken back what was ready.
    if (this.#aheadTo > segment + AHEAD_SEGMENTS_MAX) this.#aheadTo = segment
  }

  /** One after the other: each may hold up a thread. Nothing of the reserve is taken for data that may never come. */
  #prepareAhead(segment: number): void {
    const next = Math.max(segment + 1, this.#aheadTo) + 1
    const there = this.#mayCreate(next, false)
    this.#aheadTo = there ? next : segment + this.#aheadCount
    if (there && next <= segment + this.#aheadCount) this.ensure(next, false)
  }

  /**
   * Gives back what was made ready ahead and is not used, but for the next. Says whether there was anything. What lies behind
   * the end of a damaged log is acknowledged data behind a header that can't be read.
   */
  trimAhead(): boolean {
    const { geometry, appendedLsn, segments, truncating, state } = this.#core
    if (truncating || state !== 'ok') return false
    const end = geometry.segmentOf(appendedLsn) + 1
    let any = false
    for (const segment of [...segments.all]) {
      if (segment.number <= end || segment.users > 0 || this.#preparing.has(segment.number)) continue
      segments.free(segment, false)
      any = true
    }
    this.#aheadTo = 0
    return any
  }

  /** Known at once, and before anything is changed, when the space is not even there. */
  #mayCreate(number: number, useReserve: boolean): boolean {
    const { segments } = this.#core
    if (segments.get(number) !== undefined) return true
    return segments.hasSlot(useReserve) && (segments.hasSpare || segments.hasRoom(useReserve))
  }

  /** The first append since a clean stop: the log says so before it changes. */
  #markUnclean(done: (error: DiskError | undefined) => void): void {
    const { meta, options } = this.#core
    if (this.#unmarking.length > 0) {
      this.#unmarking.push(done)
      return
    }
    if (!meta.value.clean) return done(undefined)
    meta.value.clean = false
    meta.value.bootId = options.bootId
    this.#unmarking.push(done)
    meta.save((error) => {
      // On the disk it may stand still: the next attempt has to save again.
      if (error !== undefined) meta.value.clean = true
      for (const waiting of this.#unmarking.splice(0)) waiting(error)
    })
  }

  #prepare(number: number, useReserve: boolean): void {
    const { segments, geometry } = this.#core
    const known = segments.get(number)
    if (known === undefined) {
      segments.create(number, { useReserve, fill: this.#fillNext }, (error, segment) => {
        if (segment !== undefined) this.#makeReady(segment, true)
        this.#ended(number, useReserve, error)
      })
      return
    }
    if (number * geometry.segmentBlocks >= this.#core.writtenLsn) {
      segments.open(known, (error) => {
        if (error === undefined) this.#makeReady(known, true)
        this.#ended(number, useReserve, error)
      })
      return
    }
    this.#tables.ensure(known, (error) => {
      if (error === undefined) this.#makeReady(known, false)
      this.#ended(number, useReserve, error)
    })
  }

  /**
   * In this segment or the last a flush came with little data each time: those to come had better be filled. Or one after
   * the other is begun by small batches: they had better get their pages before.
   */
  get #fillNext(): OpenOptions['fill'] {
    if (this.#flushedOftenBefore || this.#flushedOften()) return 'durably'
    return this.#smallBatchesBefore && this.#begunInRound >= FILL_SEGMENTS_MIN ? 'cached' : undefined
  }

  /** Segments begun in a round of upkeep, this one or the last. */
  get #begunInRound(): number {
    return Math.max(this.#begun, this.#begunBefore)
  }

  #flushedOften(): boolean {
    const flushes = this.#core.flushes - this.#flushesBefore
    return flushes * FILL_FLUSH_BYTES_MAX >= this.#core.geometry.segmentBytes
  }

  #makeReady(segment: Segment, empty: boolean): void {
    segment.crcPinned = true
    if (empty) this.#core.segments.freshTables(segment)
    segment.ready = true
    segment.lastUse = this.#core.segments.round
  }

  #ended(number: number, useReserve: boolean, error: DiskError | undefined): void {
    this.#preparing.delete(number)
    if (error !== undefined) {
      if (this.#core.segments.get(number) !== undefined) this.#blocked = true
      else {
        this.#full = true
        if (useReserve) this.#reserveFull = true
      }
      if (!this.#warned) this.#core.events.event('warn', 'no segment to append to', {
        path: this.#core.geometry.path,
        segment: number,
        cause: error.message,
      })
      this.#warned = true
      this.#core.scheduler.after(RETRY_MS, () => {
        this.#full = false
        this.#reserveFull = false
        if (!this.#blocked) return
        this.#blocked = false
        this.#announce()
      })
    }
    if (error === undefined) this.#warned = false
    // Who waits for a segment that can't be opened waits for the next attempt.
    if (this.#blocked) return
    // Never inside the call that asked.
    this.#core.scheduler.soon(this.#announce)
  }

  readonly #announce = (): void => {
    const listeners = this.#listeners
    this.#listeners = []
    for (const listener of listeners) listener()
  }
}
