/**
 * The header block of a batch, log format v1. All fields little endian, as 32-bit words.
 *
 * | byte | field |
 * | --- | --- |
 * | 0 | magic u32 |
 * | 4 | version u16, record count u16 |
 * | 8 | epoch u48, payload blocks u16 |
 * | 16 | LSN u64 of this header |
 * | 24 | committed LSN u64, known to the primary when sealed |
 * | 32 | durable LSN u64, of the replica that sealed it |
 * | 40 | CRC of the previous header |
 * | 44 | seed: low 32 bits of the volume's id |
 * | 48 | sealer u32: CRC32C of the boot id of who sealed; tells whose durable LSN it is |
 * | 60 | CRC32C of these 4096 bytes with this field 0 |
 * | 64 | records, 24 bytes each; then one CRC32C per payload block |
 *
 * Record: op u8, flags u8, session u48, seq u32, block count u32, logical block u64. A relocate keeps the old
 * LSN of its first block in the session field.
 */
import { assert, WIDE } from '@holdfast/base'
import type { Checksum } from '@holdfast/base'

export const MAGIC = 0x31_4c_46_48 // 'HFL1'
export const FORMAT_VERSION = 1
export const RECORDS_MAX = 82
export const PAYLOAD_BLOCKS_MAX = 512
export const HEADER_WORDS = 1024
export const RECORD_WORDS = 6
export const RECORDS_WORD = 16
const TWO32 = 0x1_0000_0000

export const op = {
  WRITE: 1,
  ZERO: 2,
  RESIZE: 3,
  SNAPSHOT: 4,
  RELOCATE: 5,
  PAD: 6,
  EPOCH: 7,
} as const

// Typed arrays have the byte order of the machine; the format is little endian.
assert(new Uint8Array(new Uint32Array([1]).buffer)[0] === 1, 'needs a little-endian machine')

export interface HeaderFields {
  readonly epoch: number
  readonly lsn: number
  readonly committedLsn: number
  readonly durableLsn: number
  readonly previousHeaderCrc: number
  readonly seed: number
  readonly sealer: number
}

/** Word at which the payload CRCs begin. */
export function crcWord(recordCount: number): number {
  return RECORDS_WORD + recordCount * RECORD_WORDS
}

/** Fills the fixed fields of a header at word `at`; records and payload CRCs are there already. */
export function encodeFixed(
  words: Uint32Array,
  at: number,
  recordCount: number,
  payloadBlocks: number,
  fields: HeaderFields,
): void {
  words[at] = MAGIC
  words[at + 1] = FORMAT_VERSION | (recordCount << 16)
  words[at + 2] = fields.epoch % TWO32
  words[at + 3] = Math.floor(fields.epoch / TWO32) | (payloadBlocks << 16)
  put64(words, at + 4, fields.lsn)
  put64(words, at + 6, fields.committedLsn)
  put64(words, at + 8, fields.durableLsn)
  words[at + 10] = fields.previousHeaderCrc
  words[at + 11] = fields.seed
  words[at + 12] = fields.sealer
  words[at + 13] = 0
  words[at + 14] = 0
  words[at + 15] = 0
}

export function put64(words: Uint32Array, at: number, value: number): void {
  words[at] = value % TWO32
  words[at + 1] = Math.floor(value / TWO32)
}

export function get64(words: Uint32Array, at: number): number {
  return (words[at] ?? 0) + (words[at + 1] ?? 0) * TWO32
}

/** What only the header at one place of one history says. */
export interface HeaderPlace {
  readonly lsn: number
  readonly seed: number
  readonly previousHeaderCrc: number
}

/**
 * Whether a block that is no right header once was the one of that place: all of what says so but one field still
 * does. What an earlier use of the file left there differs in position and chain.
 */
export function wasHeader(block: Uint8Array, { lsn, seed, previousHeaderCrc }: HeaderPlace): boolean {
  const view = new DataView(block.buffer, block.byteOffset, 64)
  const word = (at: number): number => view.getUint32(at * 4, true)
  const marked = word(0) === MAGIC
  const placed = word(4) + word(5) * TWO32 === lsn
  const fields = [marked, placed, word(10) === previousHeaderCrc, word(11) === seed]
  return fields.filter((fits) => fits).length >= fields.length - 1
}

/** Writes a record at word `at`. */
export function encodeRecord(
  words: Uint32Array,
  at: number,
  operation: number,
  session: number,
  seq: number,
  blockCount: number,
  logicalBlock: number,
): void {
  words[at] = operation | (Math.floor(session / TWO32) << 16)
  words[at + 1] = session % TWO32
  words[at + 2] = seq
  words[at + 3] = blockCount
  put64(words, at + 4, logicalBlock)
}

/**
 * One decoded header. Decoding copies the block into aligned words of its own, so the source may be a piece of
 * a network buffer at any alignment. Reused: a decode replaces what was there.
 */
export class HeaderView {
  readonly words = new Uint32Array(HEADER_WORDS)
  readonly #bytes = new Uint8Array(this.words.buffer)
  readonly #checksum: Checksum
  lsn = WIDE
  epoch = WIDE
  recordCount = 0
  payloadBlocks = 0
  /** Blocks skipped without being written: only a pad has them. */
  padBlocks = 0
  committedLsn = WIDE
  durableLsn = WIDE
  previousHeaderCrc = WIDE
  seed = WIDE
  sealer = WIDE
  headerCrc = WIDE

  constructor(checksum: Checksum) {
    this.#checksum = checksum
    this.lsn = 0
    this.epoch = 0
    this.committedLsn = 0
    this.durableLsn = 0
    this.previousHeaderCrc = 0
    this.seed = 0
    this.sealer = 0
    this.headerCrc = 0
  }

  /** First LSN behind the batch. */
  get endLsn(): number {
    return this.lsn + 1 + this.payloadBlocks + this.padBlocks
  }

  get crcWord(): number {
    return crcWord(this.recordCount)
  }

  /** True when the block at `offset` is a whole, right header of format v1. */
  decode(source: Uint8Array, offset: number): boolean {
    // Most blocks that are no header end here, before the copy.
    if (source[offset] !== 0x48 || source[offset + 3] !== 0x31) return false
    this.#bytes.set(source.subarray(offset, offset + 4096))
    return this.check()
  }

  /** The bytes to fill when a header comes in pieces; then `check`. */
  get bytes(): Uint8Array {
    return this.#bytes
  }

  check(): boolean {
    const words = this.words
    const w1 = words[1] ?? 0
    const w3 = words[3] ?? 0
    if (words[0] !== MAGIC || (w1 & 0xffff) !== FORMAT_VERSION) return false
    this.recordCount = w1 >>> 16
    this.payloadBlocks = w3 >>> 16
    if (this.recordCount > RECORDS_MAX || this.payloadBlocks > PAYLOAD_BLOCKS_MAX) return false
    this.headerCrc = words[15] ?? 0
    words[15] = 0
    const right = this.#checksum.crc32c(this.#bytes, 0, 4096, 0) === this.headerCrc
    words[15] = this.headerCrc
    if (!right) return false
    this.epoch = (words[2] ?? 0) + (w3 & 0xffff) * TWO32
    this.lsn = get64(words, 4)
    this.committedLsn = get64(words, 6)
    this.durableLsn = get64(words, 8)
    this.previousHeaderCrc = words[10] ?? 0
    this.seed = words[11] ?? 0
    this.sealer = words[12] ?? 0
    return this.#sum()
  }

  /** Payload and record list agree. */
  #sum(): boolean {
    let payload = 0
    this.padBlocks = 0
    for (let i = 0; i < this.recordCount; i++) {
      const operation = this.recordOp(i)
      if (operation === op.WRITE || operation === op.RELOCATE) payload += this.recordBlocks(i)
      if (operation === op.PAD) this.padBlocks += this.recordBlocks(i)
    }
    return payload === this.payloadBlocks && (this.padBlocks === 0 || payload === 0)
  }

  recordOp(i: number): number {
    return (this.words[RECORDS_WORD + i * RECORD_WORDS] ?? 0) & 0xff
  }

  recordSession(i: number): number {
    const at = RECORDS_WORD + i * RECORD_WORDS
    return ((this.words[at] ?? 0) >>> 16) * TWO32 + (this.words[at + 1] ?? 0)
  }

  recordSeq(i: number): number {
    return this.words[RECORDS_WORD + i * RECORD_WORDS + 2] ?? 0
  }

  recordBlocks(i: number): number {
    return this.words[RECORDS_WORD + i * RECORD_WORDS + 3] ?? 0
  }

  recordLogical(i: number): number {
    return get64(this.words, RECORDS_WORD + i * RECORD_WORDS + 4)
  }
}
