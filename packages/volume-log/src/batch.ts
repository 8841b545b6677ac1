/**
 * A batch under construction, and the pool it comes from.
 *
 * The buffer is `[pad block | header block | payload]`. The pad block is used only when the batch would
 * cross its segment: then a pad batch that fills the segment goes out in front of it, as part of `bytes`.
 */
import { assert, BLOCK_BYTES } from '@holdfast/base'
import type { Epoch, Lsn, SessionId } from '@holdfast/base'
import {
  encodeRecord,
  get64,
  op,
  PAYLOAD_BLOCKS_MAX,
  RECORD_WORDS,
  RECORDS_MAX,
  RECORDS_WORD,
} from './header-codec.ts'

const HEADER_OFFSET = BLOCK_BYTES
const PAYLOAD_OFFSET = 2 * BLOCK_BYTES
const HEADER_AT = HEADER_OFFSET / 4

/** `Batch.find`: this batch has nothing of the block, or zeroes it. */
export const NOT_IN_BATCH = -1
export const ZEROED_IN_BATCH = -2

export class Batch {
  readonly buffer: Uint8Array
  /** The same memory as words, for the header codec. */
  readonly words: Uint32Array
  readonly capacityBlocks: number
  readonly #pool: BatchPool
  #payloadBlocks = 0
  #recordCount = 0
  /** Payload blocks that the taker asked for; the buffer may be larger. */
  #limitBlocks = 0
  #references = 1
  #checksummedBlocks = 0
  /** Words of the header that hold something, to be cleared when the buffer is used again. */
  #dirtyWords = 0
  #bytes: Uint8Array | undefined
  #lastBytes: Uint8Array | undefined
  /** Where `bytes` begins in the log: that of the pad in front if there is one. Set by `seal`. */
  lsn: Lsn = 0 as Lsn
  /** Position of the batch's own header. */
  headerLsn: Lsn = 0 as Lsn
  endLsn: Lsn = 0 as Lsn

  /** @param buffer Cleared, with room for the pad, the header and `capacityBlocks` of payload. */
  constructor(pool: BatchPool, buffer: Uint8Array, capacityBlocks: number) {
    this.#pool = pool
    this.capacityBlocks = capacityBlocks
    this.buffer = buffer
    // Touched here, not in the middle of a write: the first access to a page costs a fault.
    for (let i = 0; i < this.buffer.length; i += BLOCK_BYTES) this.buffer[i] = 0
    this.words = new Uint32Array(buffer.buffer, buffer.byteOffset, buffer.length / 4)
  }

  get payloadBlocks(): number {
    return this.#payloadBlocks
  }

  get recordCount(): number {
    return this.#recordCount
  }

  /** Of so many payload blocks the checksums are in the header already (`ReplicaLog.checksumAhead`). */
  get checksummedBlocks(): number {
    return this.#checksummedBlocks
  }

  get sealed(): boolean {
    return this.#bytes !== undefined
  }

  /** Exactly what lies in the log from `lsn` on (a pad's skipped blocks left out). After `seal`. */
  get bytes(): Uint8Array {
    assert(this.#bytes !== undefined, 'batch is not sealed')
    return this.#bytes
  }

  /** Bytes of the batch itself without a pad in front. */
  get body(): Uint8Array {
    return this.headerLsn === this.lsn ? this.bytes : this.bytes.subarray(BLOCK_BYTES)
  }

  get hasPad(): boolean {
    return this.headerLsn !== this.lsn
  }

  fits(records: number, blocks: number): boolean {
    return (
      this.#recordCount + records <= RECORDS_MAX &&
      this.#payloadBlocks + blocks <= this.#limitBlocks
    )
  }

  /**
   * Adds a write and returns the offset in `buffer` where the caller puts its `blockCount` blocks. `seq` 0:
   * not noted for duplicate detection (all parts but the last of a request in several parts).
   */
  addWrite(session: SessionId, seq: number, logicalBlock: number, blockCount: number): number {
    return this.#addPayload(op.WRITE, session, seq, logicalBlock, blockCount)
  }

  /** The blocks read as zeroes and are unmapped. */
  addZero(session: SessionId, seq: number, logicalBlock: number, blockCount: number): void {
    this.#add(op.ZERO, session, seq, logicalBlock, blockCount)
  }

  /** First record of an epoch. */
  addEpoch(epoch: Epoch): void {
    this.#add(op.EPOCH, 0, 0, epoch, 0)
  }

  addResize(sizeBytes: number): void {
    this.#add(op.RESIZE, 0, 0, sizeBytes, 0)
  }

  /**
   * Moves a run of blocks that lies at `oldLsn…` to here, block by block where the map still points at the old
   * position when it commits. Returns the offset in `buffer` for the blocks' contents.
   */
  addRelocate(logicalBlock: number, blockCount: number, oldLsn: Lsn): number {
    return this.#addPayload(op.RELOCATE, oldLsn, 0, logicalBlock, blockCount)
  }

  /**
   * Where in `buffer` this batch holds its newest version of a block: an offset, NOT_IN_BATCH or
   * ZEROED_IN_BATCH. For read-modify-write against the batch that is being filled.
   */
  find(logicalBlock: number): number {
    let at = PAYLOAD_OFFSET
    let found = NOT_IN_BATCH
    for (let i = 0; i < this.#recordCount; i++) {
      const word = HEADER_AT + RECORDS_WORD + i * RECORD_WORDS
      const operation = (this.words[word] ?? 0) & 0xff
      const count = this.words[word + 3] ?? 0
      const delta = logicalBlock - get64(this.words, word + 4)
      const inside = delta >= 0 && delta < count
      if (operation === op.ZERO && inside) found = ZEROED_IN_BATCH
      if (operation === op.WRITE && inside) found = at + delta * BLOCK_BYTES
      if (operation === op.WRITE || operation === op.RELOCATE) at += count * BLOCK_BYTES
    }
    return found
  }

  retain(): void {
    assert(this.#references > 0, 'batch was released already')
    this.#references++
  }

  /** Gives a reference back; at the last one the buffer goes to the pool and must not be used again. */
  release(): void {
    assert(this.#references > 0, 'batch was released already')
    this.#references--
    if (this.#references === 0) this.#pool.put(this)
  }

  /** `release`, to be handed on: made once for a batch, which is used again and again. */
  readonly releaser = (): void => this.release()

  /** For the log: the header's place among `words`. */
  get headerWord(): number {
    return HEADER_AT
  }

  get headerOffset(): number {
    return HEADER_OFFSET
  }

  get payloadOffset(): number {
    return PAYLOAD_OFFSET
  }

  /** For the log: the checksums of the first `blocks` blocks are in the header, behind room for one record. */
  markChecksummed(blocks: number): void {
    this.#checksummedBlocks = Math.max(this.#checksummedBlocks, blocks)
    this.#dirtyWords = Math.max(this.#dirtyWords, RECORDS_WORD + RECORD_WORDS + blocks)
  }

  /** For the log: fixes extent and position. */
  markSealed(lsn: Lsn, headerLsn: Lsn): void {
    const start = lsn === headerLsn ? HEADER_OFFSET : 0
    this.lsn = lsn
    this.headerLsn = headerLsn
    this.endLsn = (headerLsn + 1 + this.#payloadBlocks) as Lsn
    this.#dirtyWords = RECORDS_WORD + this.#recordCount * RECORD_WORDS + this.#payloadBlocks
    const end = PAYLOAD_OFFSET + this.#payloadBlocks * BLOCK_BYTES
    // Batches of one block follow one another: the view of the last one is as good.
    const last = this.#lastBytes
    const fits = last !== undefined && last.length === end - start && last.byteOffset === this.buffer.byteOffset + start
    this.#bytes = fits ? last : this.buffer.subarray(start, end)
    this.#lastBytes = this.#bytes
  }

  /** For the pool: empty again, with one reference. */
  reset(limitBlocks: number): void {
    this.#limitBlocks = limitBlocks
    const dirty = Math.max(
      this.#dirtyWords,
      RECORDS_WORD + this.#recordCount * RECORD_WORDS + this.#payloadBlocks,
    )
    this.words.fill(0, HEADER_AT, HEADER_AT + dirty)
    this.#dirtyWords = 0
    this.#checksummedBlocks = 0
    this.#payloadBlocks = 0
    this.#recordCount = 0
    this.#references = 1
    this.#bytes = undefined
  }

  #addPayload(
    operation: number,
    session: number,
    seq: number,
    logicalBlock: number,
    blockCount: number,
  ): number {
    assert(this.fits(1, blockCount), 'record does not fit the batch', { blockCount })
    const offset = PAYLOAD_OFFSET + this.#payloadBlocks * BLOCK_BYTES
    this.#add(operation, session, seq, logicalBlock, blockCount)
    this.#payloadBlocks += blockCount
    return offset
  }

  #add(
    operation: number,
    session: number,
    seq: number,
    logicalBlock: number,
    blockCount: number,
  ): void {
    assert(this.#bytes === undefined, 'batch is sealed')
    assert(this.#recordCount < RECORDS_MAX, 'batch has too many records')
    const at = HEADER_AT + RECORDS_WORD + this.#recordCount * RECORD_WORDS
    encodeRecord(this.words, at, operation, session, seq, blockCount, logicalBlock)
    this.#recordCount++
  }
}

/** Sizes of pooled buffers, in payload blocks, and how many of each are kept. */
const CLASSES = [
  { blocks: 32, keep: 32 },
  { blocks: 128, keep: 64 },
  { blocks: PAYLOAD_BLOCKS_MAX, keep: 8 },
] as const

/** Buffers by size class, shared by all volumes of a shard. */
export class BatchPool {
  readonly #allocate: (bytes: number) => Uint8Array
  readonly #free: Batch[][] = CLASSES.map(() => [])

  /** @param allocate Gives memory that is cleared and begins at a multiple of four bytes: `Disk.allocate`. */
  constructor(allocate: (bytes: number) => Uint8Array) {
    this.#allocate = allocate
  }

  take(payloadBlocksMax: number): Batch {
    assert(payloadBlocksMax <= PAYLOAD_BLOCKS_MAX, 'batch too large', { payloadBlocksMax })
    const index = CLASSES.findIndex((sizeClass) => payloadBlocksMax <= sizeClass.blocks)
    const size = CLASSES[index]?.blocks ?? PAYLOAD_BLOCKS_MAX
    const batch = this.#free[index]?.pop() ?? new Batch(this, this.#allocate(PAYLOAD_OFFSET + size * BLOCK_BYTES), size)
    batch.reset(payloadBlocksMax)
    return batch
  }

  put(batch: Batch): void {
    const index = CLASSES.findIndex((sizeClass) => sizeClass.blocks === batch.capacityBlocks)
    const list = this.#free[index]
    if (list !== undefined && list.length < (CLASSES[index]?.keep ?? 0)) list.push(batch)
  }
}
