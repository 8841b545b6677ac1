/**
 * The commit queue: batches that are in the log and not yet in the block map, oldest first, with their
 * records. A ring of typed arrays, so that appending and committing allocate nothing.
 */
import { assert } from '@holdfast/base'
import type { HeaderView } from './header-codec.ts'
import { op, RECORD_WORDS, RECORDS_WORD, get64 } from './header-codec.ts'

/** Numbers per batch. */
const LSN = 0
const END = 1
const EPOCH = 2
const HEADER_CRC = 3
const FIRST_RECORD = 4
const RECORD_COUNT = 5
const BATCH_STRIDE = 6
/** Numbers per record. */
const OP = 0
const LOGICAL = 1
const BLOCKS = 2
/** Log position of the first payload block. */
const POSITION = 3
const SESSION = 4
const SEQ = 5
const RECORD_STRIDE = 6
const TWO32 = 0x1_0000_0000

/** Who applies or undoes a record. `session` of a relocate is the old LSN. */
export type RecordVisitor = (
  operation: number,
  logicalBlock: number,
  blockCount: number,
  position: number,
  session: number,
  seq: number,
) => void

export class PendingRing {
  #batches: Float64Array = new Float64Array(64 * BATCH_STRIDE)
  #batchMask = 63
  #batchHead = 0
  #batchTail = 0
  #records: Float64Array = new Float64Array(256 * RECORD_STRIDE)
  #recordMask = 255
  #recordHead = 0
  #recordTail = 0

  get length(): number {
    return this.#batchTail - this.#batchHead
  }

  /** Adds a batch from a header's words (at word `at`). */
  push(
    words: Uint32Array,
    at: number,
    recordCount: number,
    lsn: number,
    endLsn: number,
    epoch: number,
    headerCrc: number,
  ): void {
    this.#grow(recordCount)
    const b = (this.#batchTail & this.#batchMask) * BATCH_STRIDE
    this.#batches[b + LSN] = lsn
    this.#batches[b + END] = endLsn
    this.#batches[b + EPOCH] = epoch
    this.#batches[b + HEADER_CRC] = headerCrc
    this.#batches[b + FIRST_RECORD] = this.#recordTail
    this.#batches[b + RECORD_COUNT] = recordCount
    this.#batchTail++
    let position = lsn + 1
    for (let i = 0; i < recordCount; i++) {
      const word = at + RECORDS_WORD + i * RECORD_WORDS
      const first = words[word] ?? 0
      const count = words[word + 3] ?? 0
      const operation = first & 0xff
      const r = (this.#recordTail & this.#recordMask) * RECORD_STRIDE
      this.#records[r + OP] = operation
      this.#records[r + LOGICAL] = get64(words, word + 4)
      this.#records[r + BLOCKS] = count
      this.#records[r + POSITION] = position
      this.#records[r + SESSION] = (first >>> 16) * TWO32 + (words[word + 1] ?? 0)
      this.#records[r + SEQ] = words[word + 2] ?? 0
      this.#recordTail++
      if (operation === op.WRITE || operation === op.RELOCATE) position += count
    }
  }

  pushHeader(header: HeaderView): void {
    this.push(
      header.words,
      0,
      header.recordCount,
      header.lsn,
      header.endLsn,
      header.epoch,
      header.headerCrc,
    )
  }

  /** End of the oldest batch, or Infinity. */
  headEnd(): number {
    if (this.length === 0) return Number.POSITIVE_INFINITY
    return this.#batches[(this.#batchHead & this.#batchMask) * BATCH_STRIDE + END] ?? 0
  }

  headCrc(): number {
    return this.#batches[(this.#batchHead & this.#batchMask) * BATCH_STRIDE + HEADER_CRC] ?? 0
  }

  /** Removes the oldest batch after giving its records to `visit`, in order. */
  shift(visit: RecordVisitor): void {
    assert(this.length > 0, 'commit queue is empty')
    const b = (this.#batchHead & this.#batchMask) * BATCH_STRIDE
    this.#visit(b, visit)
    this.#recordHead += this.#batches[b + RECORD_COUNT] ?? 0
    this.#batchHead++
  }

  /** Removes the newest batch after giving its records to `visit`; returns its LSN. */
  pop(visit: RecordVisitor): number {
    assert(this.length > 0, 'commit queue is empty')
    const b = ((this.#batchTail - 1) & this.#batchMask) * BATCH_STRIDE
    this.#visit(b, visit)
    this.#recordTail -= this.#batches[b + RECORD_COUNT] ?? 0
    this.#batchTail--
    return this.#batches[b + LSN] ?? 0
  }

  /** Start of the newest batch, or -1. */
  tailLsn(): number {
    if (this.length === 0) return -1
    return this.#batches[((this.#batchTail - 1) & this.#batchMask) * BATCH_STRIDE + LSN] ?? -1
  }

  tailCrc(): number {
    return this.#batches[((this.#batchTail - 1) & this.#batchMask) * BATCH_STRIDE + HEADER_CRC] ?? 0
  }

  /** True when a batch of the queue begins at `lsn`. */
  hasStart(lsn: number): boolean {
    for (let i = this.#batchHead; i < this.#batchTail; i++) {
      if (this.#batches[(i & this.#batchMask) * BATCH_STRIDE + LSN] === lsn) return true
    }
    return false
  }

  /** LSN and records of each batch from `lsn` on, in order. */
  forEachFrom(lsn: number, batch: (lsn: number, epoch: number) => void, visit: RecordVisitor): void {
    for (let i = this.#batchHead; i < this.#batchTail; i++) {
      const b = (i & this.#batchMask) * BATCH_STRIDE
      const start = this.#batches[b + LSN] ?? 0
      if (start < lsn) continue
      batch(start, this.#batches[b + EPOCH] ?? 0)
      this.#visit(b, visit)
    }
  }

  /**
   * Log position of the newest pending version of a block; -1: none pending; -2: pending zeroes. Searches
   * backwards: read-modify-write is rare, and this costs the hot path nothing. Relocates are
   * passed over: what they move has the same contents where the map points now.
   */
  findLatest(logicalBlock: number): number {
    for (let i = this.#recordTail - 1; i >= this.#recordHead; i--) {
      const r = (i & this.#recordMask) * RECORD_STRIDE
      const operation = this.#records[r + OP]
      if (operation !== op.WRITE && operation !== op.ZERO) continue
      const delta = logicalBlock - (this.#records[r + LOGICAL] ?? 0)
      if (delta < 0 || delta >= (this.#records[r + BLOCKS] ?? 0)) continue
      return operation === op.ZERO ? -2 : (this.#records[r + POSITION] ?? 0) + delta
    }
    return -1
  }

  clear(): void {
    this.#batchHead = this.#batchTail
    this.#recordHead = this.#recordTail
  }

  #visit(b: number, visit: RecordVisitor): void {
    const first = this.#batches[b + FIRST_RECORD] ?? 0
    const end = first + (this.#batches[b + RECORD_COUNT] ?? 0)
    for (let i = first; i < end; i++) {
      const r = (i & this.#recordMask) * RECORD_STRIDE
      visit(
        this.#records[r + OP] ?? 0,
        this.#records[r + LOGICAL] ?? 0,
        this.#records[r + BLOCKS] ?? 0,
        this.#records[r + POSITION] ?? 0,
        this.#records[r + SESSION] ?? 0,
        this.#records[r + SEQ] ?? 0,
      )
    }
  }

  #grow(records: number): void {
    if (this.length > this.#batchMask) {
      this.#batches = doubled(this.#batches, this.#batchHead, this.#batchTail, BATCH_STRIDE)
      this.#batchMask = this.#batchMask * 2 + 1
    }
    while (this.#recordTail - this.#recordHead + records > this.#recordMask + 1) {
      this.#records = doubled(this.#records, this.#recordHead, this.#recordTail, RECORD_STRIDE)
      this.#recordMask = this.#recordMask * 2 + 1
    }
  }
}

/** A ring of twice the size with the entries [head, tail) at their new places. */
function doubled(old: Float64Array, head: number, tail: number, stride: number): Float64Array {
  const oldMask = old.length / stride - 1
  const grown = new Float64Array(old.length * 2)
  const mask = oldMask * 2 + 1
  for (let i = head; i < tail; i++) {
    const from = (i & oldMask) * stride
    grown.set(old.subarray(from, from + stride), (i & mask) * stride)
  }
  return grown
}
