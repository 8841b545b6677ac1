/** Reads: synchronous from the page cache, or asynchronous; every block is compared with its CRC. */
import { BLOCK_BYTES, lsn } from '@holdfast/base'
import type { DiskError } from '@holdfast/base'
import type { AppendWriter } from './append-writer.ts'
import { GatheredRead } from './gathered-read.ts'
import { HeaderView, PAYLOAD_BLOCKS_MAX } from './header-codec.ts'
import type { CrcTables } from './crc-tables.ts'
import type { LogCore } from './log-core.ts'
import type { Segment } from './segment-set.ts'
import type { ReadDone, ReadError } from './types.ts'

const WAIT_MS = 1
/** Of all logs of a thread: a read begins and ends with it in one call. */
const gathered = new GatheredRead()

interface Run {
  readonly segment: Segment
  readonly index: number
  readonly blockCount: number
  /** -1: asked by log position. */
  readonly logicalBlock: number
  readonly target: Uint8Array
  readonly targetOffset: number
}

export class Reader {
  readonly #core: LogCore
  readonly #tables: CrcTables
  readonly #writer: AppendWriter
  readonly #scratch = new Uint8Array(BLOCK_BYTES)
  #found = new Uint32Array(PAYLOAD_BLOCKS_MAX)

  constructor(core: LogCore, tables: CrcTables, writer: AppendWriter) {
    this.#core = core
    this.#tables = tables
    this.#writer = writer
  }

  /** Committed contents at once if the page cache has them and they are right. */
  tryRead(offset: number, length: number, target: Uint8Array, targetOffset: number): boolean {
    if (!this.#core.usable) return false
    let block = Math.floor(offset / BLOCK_BYTES)
    const skip = offset % BLOCK_BYTES
    let at = targetOffset
    let left = length
    if (skip > 0) {
      const count = Math.min(left, BLOCK_BYTES - skip)
      if (!this.#tryPart(block, skip, count, target, at)) return false
      block++
      at += count
      left -= count
    }
    const whole = Math.floor(left / BLOCK_BYTES)
    if (whole > 0 && !this.#tryBlocks(block, whole, target, at)) return false
    const rest = left - whole * BLOCK_BYTES
    return rest === 0 || this.#tryPart(block + whole, 0, rest, target, at + whole * BLOCK_BYTES)
  }

  read(
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
    done: ReadDone,
  ): void {
    if (!this.#core.usable) return this.#later(done, { kind: 'io', message: 'log is not usable' })
    const first = Math.floor(offset / BLOCK_BYTES)
    const count = Math.ceil((offset + length) / BLOCK_BYTES) - first
    const skip = offset - first * BLOCK_BYTES
    if (skip === 0 && length === count * BLOCK_BYTES) {
      return this.#readBlocks(first, count, target, targetOffset, done)
    }
    const whole = new Uint8Array(count * BLOCK_BYTES)
    this.#readBlocks(first, count, whole, 0, (error) => {
      if (error === undefined) target.set(whole.subarray(skip, skip + length), targetOffset)
      done(error)
    })
  }

  /** The newest appended version of one block at once, committed or not. */
  readLatest(logicalBlock: number, target: Uint8Array, targetOffset: number): boolean {
    const position = this.#core.pending.findLatest(logicalBlock)
    if (position === -1) return this.#tryBlocks(logicalBlock, 1, target, targetOffset)
    if (position === -2) {
      target.fill(0, targetOffset, targetOffset + BLOCK_BYTES)
      return true
    }
    if (position >= this.#core.writtenLsn) return this.#fromMemory(position, target, targetOffset)
    const entry = this.#core.entryOf(position)
    return this.#tryRun(entry, 1, target, targetOffset)
  }

  readLatestAsync(
    logicalBlock: number,
    target: Uint8Array,
    targetOffset: number,
    done: ReadDone,
  ): void {
    const core = this.#core
    if (!core.usable) return this.#later(done, { kind: 'io', message: 'log is not usable' })
    const position = core.pending.findLatest(logicalBlock)
    if (position === -1) return this.#readBlocks(logicalBlock, 1, target, targetOffset, done)
    if (position === -2) {
      target.fill(0, targetOffset, targetOffset + BLOCK_BYTES)
      return this.#later(done, undefined)
    }
    if (position < core.writtenLsn) {
      return this.readAt(position, 1, logicalBlock, target, targetOffset, done)
    }
    if (this.#fromMemory(position, target, targetOffset)) return this.#later(done, undefined)
    // Received from a peer and on its way to the disk: it is there in a moment.
    core.scheduler.after(WAIT_MS, () => {
      this.readLatestAsync(logicalBlock, target, targetOffset, done)
    })
  }

  /** Blocks at a log position, verified: payload by its checksum; by position (`logicalBlock` -1) headers too. */
  readAt(
    position: number,
    blockCount: number,
    logicalBlock: number,
    target: Uint8Array,
    targetOffset: number,
    done: ReadDone,
  ): void {
    const { geometry, segments } = this.#core
    const segment = segments.get(geometry.segmentOf(position))
    if (segment === undefined || !this.#isWritten(position, blockCount)) {
      return this.#later(done, { kind: 'io', message: `no blocks at log position ${position}` })
    }
    const index = geometry.indexOf(position)
    this.#readRun({ segment, index, blockCount, logicalBlock, target, targetOffset }, done)
  }

  /** Payload blocks at a log position at once, if the page cache has them and they are right. */
  tryReadAt(position: number, blockCount: number, target: Uint8Array): boolean {
    return this.#isWritten(position, blockCount) && this.#tryRun(this.#core.entryOf(position), blockCount, target, 0)
  }

  /** All of them, and in one segment, should it be there. */
  #isWritten(position: number, blockCount: number): boolean {
    const { geometry, writtenLsn } = this.#core
    return position + blockCount <= writtenLsn && geometry.indexOf(position) + blockCount <= geometry.segmentBlocks
  }

  /** Blocks of the map that lie one after the other in the log, from `logicalBlock` on. */
  #runLength(logicalBlock: number, entry: number, countMax: number): number {
    let count = 1
    const step = entry === 0 ? 0 : 1
    const { map } = this.#core
    while (count < countMax && map.get(logicalBlock + count) === entry + count * step) count++
    return count
  }

  #tryPart(
    block: number,
    skip: number,
    count: number,
    target: Uint8Array,
    targetOffset: number,
  ): boolean {
    if (!this.#tryBlocks(block, 1, this.#scratch, 0)) return false
    for (let i = 0; i < count; i++) target[targetOffset + i] = this.#scratch[skip + i] ?? 0
    return true
  }

  #tryBlocks(first: number, count: number, target: Uint8Array, targetOffset: number): boolean {
    let block = first
    let at = targetOffset
    const end = first + count
    gathered.begin(this.#core.disk)
    while (block < end) {
      const entry = this.#core.map.get(block)
      const run = this.#runLength(block, entry, end - block)
      if (entry === 0) target.fill(0, at, at + run * BLOCK_BYTES)
      else if (run === count) return this.#tryRun(entry, run, target, at)
      else if (!this.#gather(entry, run, target, at)) return false
      block += run
      at += run * BLOCK_BYTES
    }
    return gathered.finish(target)
  }

  #gather(entry: number, count: number, target: Uint8Array, targetOffset: number): boolean {
    const segment = this.#core.segmentOfEntry(entry)
    if (segment === undefined) return false
    this.#use(segment)
    return gathered.add(segment, this.#core.indexOfEntry(entry), count, target, targetOffset)
  }

  #use(segment: Segment): void {
    segment.crcUsed = true
    segment.lastUse = this.#core.segments.round
  }

  #tryRun(entry: number, count: number, target: Uint8Array, targetOffset: number): boolean {
    const segment = this.#core.segmentOfEntry(entry)
    const file = segment?.file
    const crcs = segment?.crcs
    if (segment === undefined || file === undefined || crcs === undefined) return false
    this.#use(segment)
    const index = this.#core.indexOfEntry(entry)
    const position = index * BLOCK_BYTES
    return file.tryReadVerified(target, targetOffset, count, position, crcs, index) === count
  }

  /** From a sealed batch that is not written yet. */
  #fromMemory(position: number, target: Uint8Array, targetOffset: number): boolean {
    for (const batch of this.#writer.unwritten) {
      if (position <= batch.headerLsn || position >= batch.endLsn) continue
      const at = batch.payloadOffset + (position - batch.headerLsn - 1) * BLOCK_BYTES
      target.set(batch.buffer.subarray(at, at + BLOCK_BYTES), targetOffset)
      return true
    }
    return false
  }

  #readBlocks(
    first: number,
    count: number,
    target: Uint8Array,
    targetOffset: number,
    done: ReadDone,
  ): void {
    let open = 1
    let failure: ReadError | undefined
    const runDone: ReadDone = (error) => {
      if (error !== undefined) failure ??= error
      open--
      if (open === 0) done(failure)
    }
    let block = first
    let at = targetOffset
    const end = first + count
    while (block < end) {
      const entry = this.#core.map.get(block)
      const blockCount = this.#runLength(block, entry, end - block)
      const segment = entry === 0 ? undefined : this.#core.segmentOfEntry(entry)
      if (entry === 0) target.fill(0, at, at + blockCount * BLOCK_BYTES)
      else if (segment === undefined) failure ??= { kind: 'io', message: 'segment is gone' }
      else {
        open++
        const index = this.#core.indexOfEntry(entry)
        const run = { segment, index, blockCount, logicalBlock: block, target, targetOffset: at }
        this.#readRun(run, runDone)
      }
      block += blockCount
      at += blockCount * BLOCK_BYTES
    }
    this.#later(runDone, undefined)
  }

  #readRun(run: Run, done: ReadDone): void {
    const { segments } = this.#core
    segments.retain(run.segment)
    this.#tables.ensure(run.segment, (error) => {
      const crcs = run.segment.crcs
      if (error !== undefined || crcs === undefined) {
        segments.release(run.segment)
        return done(this.#fileError(run, error))
      }
      const finish: ReadDone = (failure) => {
        segments.release(run.segment)
        done(failure)
      }
      this.#readVerified(run, crcs, 1, (failure) => {
        if (failure?.kind !== 'damaged' || !run.segment.crcsPartial) return finish(failure)
        // Perhaps it is the checksum that is missing.
        this.#tables.complete(run.segment, () => this.#readVerified(run, run.segment.crcs ?? crcs, 0, finish))
      })
    })
  }

  #readVerified(run: Run, crcs: Uint32Array, retries: number, done: ReadDone): void {
    const bytes = run.blockCount * BLOCK_BYTES
    const file = run.segment.file
    if (file === undefined) return done({ kind: 'io', message: 'segment was closed' })
    file.read(run.target, run.targetOffset, bytes, run.index * BLOCK_BYTES, (error) => {
      if (error !== undefined) return this.#unreadable(run, crcs, 0, done)
      const bad = this.#firstBad(run, crcs)
      if (bad < 0) return done(undefined)
      if (retries > 0) return this.#readVerified(run, crcs, retries - 1, done)
      done(this.#damaged(run, bad, this.#badCount(run, crcs, bad)))
    })
  }

  /** A piece of the disk gives an error: finds the block that can't be read, which is as good as damaged. */
  #unreadable(run: Run, crcs: Uint32Array, at: number, done: ReadDone): void {
    if (run.blockCount === 1) return done(this.#damaged(run, 0, 1))
    if (at === run.blockCount) return done(undefined)
    const block: Run = {
      ...run,
      index: run.index + at,
      blockCount: 1,
      logicalBlock: run.logicalBlock < 0 ? -1 : run.logicalBlock + at,
      targetOffset: run.targetOffset + at * BLOCK_BYTES,
    }
    this.#readVerified(block, crcs, 1, (error) => {
      if (error !== undefined) done(error)
      else this.#unreadable(run, crcs, at + 1, done)
    })
  }

  /** Computes the checksums of what was read and returns the first wrong block, or -1. */
  #firstBad(run: Run, crcs: Uint32Array): number {
    if (this.#found.length < run.blockCount) this.#found = new Uint32Array(run.blockCount)
    const found = this.#found
    this.#core.checksum.crc32cBlocks(run.target, run.targetOffset, run.blockCount, found, 0)
    for (let i = 0; i < run.blockCount; i++) {
      if (found[i] !== crcs[run.index + i] && !this.#isHeader(run, i)) return i
    }
    return -1
  }

  #isHeader({ segment, index, logicalBlock, target, targetOffset }: Run, i: number): boolean {
    if (logicalBlock >= 0) return false
    const { geometry, checksum } = this.#core
    const header = new HeaderView(checksum)
    const position = segment.number * geometry.segmentBlocks + index + i
    const whole = header.decode(target, targetOffset + i * BLOCK_BYTES)
    return whole && header.lsn === position && header.seed === geometry.seed
  }

  #badCount(run: Run, crcs: Uint32Array, first: number): number {
    let count = 1
    while (
      first + count < run.blockCount &&
      this.#found[first + count] !== crcs[run.index + first + count]
    ) {
      count++
    }
    return count
  }

  #fileError(run: Run, error: DiskError | undefined): ReadError {
    if (error?.kind === 'absent') return this.#damaged(run, 0, run.blockCount)
    if (error !== undefined) return this.#damaged(run, 0, 1)
    return { kind: 'io', message: 'no checksums' }
  }

  #damaged(run: Run, first: number, blockCount: number): ReadError {
    const base = run.segment.number * this.#core.geometry.segmentBlocks
    const logicalBlock = run.logicalBlock < 0 ? -1 : run.logicalBlock + first
    return { kind: 'damaged', lsn: lsn(base + run.index + first), logicalBlock, blockCount }
  }

  #later(done: ReadDone, error: ReadError | undefined): void {
    this.#core.scheduler.soon(() => done(error))
  }
}
