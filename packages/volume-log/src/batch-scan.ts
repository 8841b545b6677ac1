/**
 * Walks the batches of one segment by their headers, in bounded reads. Used by recovery, by the rebuild
 * of checksum tables, by truncation and by compaction.
 */
import { BLOCK_BYTES } from '@holdfast/base'
import type { Checksum, DiskError, DiskFile } from '@holdfast/base'
import { HeaderView } from './header-codec.ts'
import { ALL_UNREADABLE_MIN, readSingly } from './single-blocks.ts'

/** Each read may be so many times the one before: thousands of logs that are all but empty open at once. */
const READ_GROWTH = 4
const FIRST_READ_BYTES = 16 * 1024
const READ_BYTES_MAX = 1024 * 1024
const HEADER_READ_BYTES_MAX = 64 * 1024
/** So many blocks in a row that can't be read are no bad sectors: the disk fails. */
const UNREADABLE_IN_ROW_MAX = 64

export interface ScanRange {
  readonly file: DiskFile
  /** LSN of the segment's first block. */
  readonly baseLsn: number
  readonly fromIndex: number
  /** Index to stop at: never read beyond. */
  readonly endIndex: number
  readonly seed: number
  /** Also hand out the payload (then whole batches are read). */
  readonly payload: boolean
  /** Where no valid header lies, look for the next one block by block instead of ending. */
  readonly resync?: boolean | undefined
  /** Takes a block that the disk does not give for one of zeroes. Otherwise the walk ends with the error. */
  readonly pastUnreadable?: boolean | undefined
  /** What is read at once, and its headers decoded. */
  readonly readBytesMax?: number | undefined
}

export interface ScanVisitor {
  /**
   * A valid header at its own place. `bytes` holds its payload from `offset` on when asked for. False ends
   * the walk. Blocks that the disk did not give are zeroes there; `unreadable` has their indexes in the segment.
   */
  batch(header: HeaderView, bytes: Uint8Array, offset: number, unreadable: ReadonlySet<number>): boolean
  /** Ended at `index`: by the visitor, at the range's end, or where no valid header lies. */
  end(error: DiskError | undefined, index: number, stopped: 'visitor' | 'end' | 'invalid'): void
  /** The disk does not give the block at `index`, where a header may lie. Only where the walk goes past such blocks. */
  unreadable?(index: number): void
}

export class BatchScan {
  readonly #range: ScanRange
  readonly #visitor: ScanVisitor
  readonly #header: HeaderView
  readonly #readBytesMax: number
  #buffer = new Uint8Array(0)
  /** Index of the buffer's first block, and how many blocks it holds. */
  #start = 0
  #blocks = 0
  #index: number
  /** Indexes of blocks that the disk did not give; how many of them lie one behind the other up to the last one. */
  readonly #unreadable = new Set<number>()
  #unreadableInRow = 0
  #anyRead = false

  constructor(checksum: Checksum, range: ScanRange, visitor: ScanVisitor) {
    this.#range = range
    this.#visitor = visitor
    this.#header = new HeaderView(checksum)
    this.#index = range.fromIndex
    const most = range.payload || range.resync === true ? READ_BYTES_MAX : HEADER_READ_BYTES_MAX
    this.#readBytesMax = range.readBytesMax ?? most
  }

  run(): void {
    while (this.#index < this.#range.endIndex) {
      const at = this.#index - this.#start
      if (at < 0 || at >= this.#blocks) return this.#load(1)
      const header = this.#header
      const offset = at * BLOCK_BYTES
      const lsn = this.#range.baseLsn + this.#index
      const valid =
        header.decode(this.#buffer, offset) && header.lsn === lsn && header.seed === this.#range.seed
      const span = header.endLsn - lsn
      if (!valid || this.#index + span > this.#range.endIndex) {
        if (this.#unreadable.has(this.#index)) this.#visitor.unreadable?.(this.#index)
        if (this.#range.resync === true) {
          this.#index++
          continue
        }
        return this.#visitor.end(undefined, this.#index, 'invalid')
      }
      const needed = this.#range.payload ? 1 + header.payloadBlocks : 1
      if (at + needed > this.#blocks) return this.#load(needed)
      if (!this.#visitor.batch(header, this.#buffer, offset + BLOCK_BYTES, this.#unreadable)) {
        return this.#visitor.end(undefined, this.#index, 'visitor')
      }
      this.#index += span
    }
    this.#visitor.end(undefined, this.#index, 'end')
  }

  #load(blocksMin: number): void {
    const room = this.#range.endIndex - this.#index
    const next = Math.min(Math.max(FIRST_READ_BYTES, this.#buffer.length * READ_GROWTH), this.#readBytesMax)
    const bytes = Math.max(Math.min(next, room * BLOCK_BYTES), blocksMin * BLOCK_BYTES)
    if (this.#buffer.length < bytes) this.#buffer = new Uint8Array(bytes)
    const blocks = Math.min(this.#buffer.length / BLOCK_BYTES, room)
    const index = this.#index
    this.#range.file.read(this.#buffer, 0, blocks * BLOCK_BYTES, index * BLOCK_BYTES, (error) => {
      if (error === undefined) {
        this.#anyRead = true
        this.#given(index, blocks)
        return this.#loaded(index, blocks)
      }
      if (this.#range.pastUnreadable !== true) return this.#visitor.end(error, index, 'invalid')
      this.#loadSingly(index, blocks)
    })
  }

  /** What is read twice may be given the second time. */
  #given(index: number, blocks: number): void {
    for (const block of this.#unreadable) if (block >= index && block < index + blocks) this.#unreadable.delete(block)
  }

  #loaded(index: number, blocks: number): void {
    this.#start = index
    this.#blocks = blocks
    this.run()
  }

  /** Where single sectors are bad the others are read. Where many in a row are, or all of many, it is the disk that fails. */
  #loadSingly(index: number, count: number): void {
    this.#given(index, count)
    readSingly({ file: this.#range.file, index, count }, this.#buffer, {
      unreadable: (block) => {
        this.#unreadableInRow = this.#unreadable.has(block - 1) ? this.#unreadableInRow + 1 : 1
        this.#unreadable.add(block)
        const nothing = !this.#anyRead && this.#unreadableInRow > block - index
        const last = block + 1 === this.#range.endIndex
        return this.#unreadableInRow < (nothing && last ? ALL_UNREADABLE_MIN : UNREADABLE_IN_ROW_MAX)
      },
      done: (error) => {
        if (error !== undefined) return this.#visitor.end(error, index, 'invalid')
        this.#anyRead ||= this.#unreadableInRow < count
        this.#loaded(index, count)
      },
    })
  }
}
