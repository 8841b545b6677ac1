/**
 * The checkpoint file: the block map and what recovery needs beside it, at one log position.
 *
 * `[head, padded to 4 KiB][map pages, 4 KiB each][4 KiB trailer with the CRC32C of all before it]`. All little
 * endian. Head: 64-bit words: magic and version, LSN, last header's CRC, size in bytes, segment blocks, seed, slot
 * count, epoch count, session count, page count, mapped blocks, head bytes; then slots (segment number
 * or 2^53 - 1), epochs (epoch, first LSN), sessions (id, count, numbers), page numbers.
 *
 * Version 2 is the same with buckets of scattered blocks among the pages, which version 1 has not (decision 23). In version 3
 * there may be such buckets, and a session is its id, its last number and 32 words of 32 bits, one for each number before the last.
 * It is used where sessions have many numbers: a log that many clients have used wrote half a MiB of them with each checkpoint.
 */
import { BLOCK_BYTES } from '@holdfast/base'
import type { Checksum, Epoch, Lsn } from '@holdfast/base'
import { BUCKET_NUMBER } from './block-map.ts'
import { RING, type SessionEntry, seqsOf, sessionEntry } from './dedupe.ts'
import type { FilePieces } from './file-pieces.ts'
import type { EpochStart } from './types.ts'

const MAGIC = 0x31_50_43_48 // 'HCP1'
const TRAILER_MAGIC = 0x31_45_43_48 // 'HCE1'
const BOOT_MAGIC = 0x31_53_43_48 // 'HCS1'
const WHOLE_PAGES = 1
const WITH_BUCKETS = 2
const WITH_BITS = 3
/** Numbers of sessions up to which they are written one by one: releases from before read that, too. */
const LISTED_MAX = 8 * RING
const FIXED = 12
const HEAD_BYTES_AT = 88
const BOOT_BYTES_MAX = BLOCK_BYTES - 12
const NO_SEGMENT = Number.MAX_SAFE_INTEGER

export interface CheckpointHead {
  readonly lsn: number
  readonly lastHeaderCrc: number
  readonly sizeBytes: number
  readonly segmentBlocks: number
  readonly seed: number
  /** Segment number per slot; -1 free. */
  readonly slots: readonly number[]
  readonly epochs: readonly EpochStart[]
  readonly sessions: readonly SessionEntry[]
  readonly pageNumbers: readonly number[]
  readonly mappedBlocks: number
}

export interface Checkpoint extends CheckpointHead {
  /** Map page `i`, a copy. */
  page(i: number): Uint32Array
  readonly bytes: number
}

/** Numbers below 2^53 as 64-bit little-endian words, in as many blocks as `count` of them take. */
class Words {
  readonly bytes: Uint8Array
  readonly #words: Uint32Array
  #at = 0
  constructor(count: number) {
    this.#words = new Uint32Array((Math.ceil((count * 8) / BLOCK_BYTES) * BLOCK_BYTES) / 4)
    this.bytes = new Uint8Array(this.#words.buffer)
  }
  put(value: number): void {
    this.#words[this.#at++] = value % 2 ** 32
    this.#words[this.#at++] = Math.floor(value / 2 ** 32)
  }
}

export function encodeHead(head: CheckpointHead): Uint8Array {
  const listed = countListed(head.sessions)
  const asBits = listed > LISTED_MAX
  const buckets = head.pageNumbers.some((number) => number >= BUCKET_NUMBER)
  const version = asBits ? WITH_BITS : buckets ? WITH_BUCKETS : WHOLE_PAGES
  const sessionWords = head.sessions.length * 2 + (asBits ? head.sessions.length * (RING / 32) : listed)
  const words = new Words(FIXED + head.slots.length + head.epochs.length * 2 + sessionWords + head.pageNumbers.length)
  words.put(MAGIC + version * 2 ** 32)
  words.put(head.lsn)
  words.put(head.lastHeaderCrc)
  words.put(head.sizeBytes)
  words.put(head.segmentBlocks)
  words.put(head.seed)
  words.put(head.slots.length)
  words.put(head.epochs.length)
  words.put(head.sessions.length)
  words.put(head.pageNumbers.length)
  words.put(head.mappedBlocks)
  words.put(words.bytes.length)
  for (const segment of head.slots) words.put(segment < 0 ? NO_SEGMENT : segment)
  for (const { epoch, firstLsn } of head.epochs) {
    words.put(epoch)
    words.put(firstLsn)
  }
  for (const entry of head.sessions) {
    words.put(entry.session)
    const values = asBits ? entry.applied : seqsOf(entry)
    words.put(asBits ? entry.last : values.length)
    for (const value of values) words.put(value)
  }
  for (const number of head.pageNumbers) words.put(number)
  return words.bytes
}

/** How many numbers the sessions have together; of more than LISTED_MAX only that there are more. */
function countListed(sessions: readonly SessionEntry[]): number {
  let count = 0
  for (const { applied } of sessions) {
    for (let word of applied) for (; word !== 0; word &= word - 1) count++
    if (count > LISTED_MAX) break
  }
  return count
}

export function encodeTrailer(crc: number, bytesBefore: number): Uint8Array {
  const words = new Uint32Array(BLOCK_BYTES / 4)
  words[0] = TRAILER_MAGIC
  words[1] = crc
  words[2] = bytesBefore % 2 ** 32
  words[3] = Math.floor(bytesBefore / 2 ** 32)
  return new Uint8Array(words.buffer)
}

/** What stands before a soft checkpoint: the boot whose page cache it speaks of. `boot` is ASCII. */
export function encodeBoot(boot: Uint8Array, checksum: Checksum): Uint8Array {
  const block = new Uint8Array(BLOCK_BYTES)
  const view = new DataView(block.buffer)
  view.setUint32(0, BOOT_MAGIC, true)
  view.setUint32(4, boot.length, true)
  block.set(boot.subarray(0, BOOT_BYTES_MAX), 8)
  view.setUint32(BLOCK_BYTES - 4, checksum.crc32c(block, 0, BLOCK_BYTES - 4, 0), true)
  return block
}

/** A soft checkpoint that was made in that boot; undefined for one of another boot and where a bit is wrong. */
export function decodeSoft(file: FilePieces, boot: Uint8Array, checksum: Checksum): Checkpoint | undefined {
  const expected = encodeBoot(boot, checksum)
  if (file.length < BLOCK_BYTES || boot.length > BOOT_BYTES_MAX) return undefined
  const source = file.copy(0, BLOCK_BYTES)
  for (let i = 0; i < BLOCK_BYTES; i++) if (source[i] !== expected[i]) return undefined
  return decodeCheckpoint(file, checksum, BLOCK_BYTES)
}

/** A checkpoint that begins at `base` bytes of the file, or undefined when a single bit of it is wrong. */
export function decodeCheckpoint(file: FilePieces, checksum: Checksum, base = 0): Checkpoint | undefined {
  const size = file.length - base
  if (size < 2 * BLOCK_BYTES || size % BLOCK_BYTES !== 0) return undefined
  const body = size - BLOCK_BYTES
  const trailer = wordsOf(file.copy(base + body, base + size))
  if (trailer.u32(0) !== TRAILER_MAGIC || trailer.u64(8) !== body) return undefined
  if (file.crc32c(checksum, base, base + body) !== trailer.u32(4)) return undefined
  const headBytes = wordsOf(file.copy(base, base + BLOCK_BYTES)).u64(HEAD_BYTES_AT)
  const { u64 } = wordsOf(file.copy(base, base + headBytes))
  const version = (u64(0) - MAGIC) / 2 ** 32
  if (version !== WHOLE_PAGES && version !== WITH_BUCKETS && version !== WITH_BITS) return undefined
  return decodeBody(u64, version === WITH_BITS, size, (i) => {
    const start = base + headBytes + i * BLOCK_BYTES
    return new Uint32Array(file.copy(start, start + BLOCK_BYTES).buffer)
  })
}

interface HeadWords {
  u32(at: number): number
  u64(at: number): number
}

function wordsOf(bytes: Uint8Array): HeadWords {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const u32 = (at: number): number => view.getUint32(at, true)
  return { u32, u64: (at) => u32(at) + u32(at + 4) * 2 ** 32 }
}

function decodeBody(
  u64: (at: number) => number,
  asBits: boolean,
  bytes: number,
  page: (i: number) => Uint32Array,
): Checkpoint {
  let at = FIXED * 8
  const next = (): number => {
    at += 8
    return u64(at - 8)
  }
  const times = <T>(count: number, make: () => T): T[] => Array.from({ length: count }, make)
  const slots = times(u64(48), () => {
    const segment = next()
    return segment === NO_SEGMENT ? -1 : segment
  })
  const epochs = times(u64(56), () => ({ epoch: next() as Epoch, firstLsn: next() as Lsn }))
  const sessions = times(u64(64), () => {
    const session = next()
    if (!asBits) return sessionEntry(session, times(next(), next))
    return { session, last: next(), applied: Uint32Array.from(times(RING / 32, next)) }
  })
  const pageNumbers = times(u64(72), next)
  return {
    lsn: u64(8),
    lastHeaderCrc: u64(16),
    sizeBytes: u64(24),
    segmentBlocks: u64(32),
    seed: u64(40),
    slots,
    epochs,
    sessions: sessions.filter((entry) => entry !== undefined),
    pageNumbers,
    mappedBlocks: u64(80),
    bytes,
    page,
  }
}

/** Segments that a checkpoint needs: those with live blocks, and the one it ends in. */
export function neededSegments(head: Checkpoint | CheckpointHead, live: Uint32Array): number[] {
  const needed = head.slots.filter((segment, slot) => segment >= 0 && (live[slot] ?? 0) > 0)
  const tail = Math.floor(head.lsn / head.segmentBlocks)
  if (head.lsn % head.segmentBlocks !== 0 && !needed.includes(tail)) needed.push(tail)
  return needed.sort((a, b) => a - b)
}
