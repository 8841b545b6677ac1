/**
 * A file of checksummed records. At most one unanswered record is ever on its way to the disk, so
 * whatever does not check at the very end was never answered and is cut; the same before a good
 * record is damage and is refused.
 *
 * File: the magic line, then records of { 0xc0 0x0d 0x1e 0x01, payload bytes u32, CRC-32 u32, payload }.
 */
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { crc32 } from 'node:zlib'
import { HoldfastError } from '@holdfast/base'

const MAGIC = Buffer.from('holdfast coordinator journal 1\n')
const RECORD_MAGIC = Buffer.from([0xc0, 0x0d, 0x1e, 0x01])
const HEADER_BYTES = 12

export interface JournalContents {
  readonly records: readonly string[]
  /** Bytes at the end that no complete record begins with: a write that was never answered. */
  readonly tornBytes: number
}

/** Reads all records. Throws HF_DAMAGED where something in the middle does not check. */
export function readJournal(path: string): JournalContents {
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') {
      return { records: [], tornBytes: 0 }
    }
    throw error
  }
  // The file appears by a rename, whole: a bad beginning is never a torn write.
  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) throw damaged(path, 0)
  const records: string[] = []
  let at = MAGIC.length
  while (at < bytes.length) {
    const payload = recordAt(bytes, at)
    if (payload === undefined) break
    records.push(payload.toString('utf8'))
    at += HEADER_BYTES + payload.length
  }
  for (let next = bytes.indexOf(RECORD_MAGIC, at + 1); next >= 0; ) {
    if (recordAt(bytes, next) !== undefined) throw damaged(path, at)
    next = bytes.indexOf(RECORD_MAGIC, next + 1)
  }
  if (records.length === 0) throw damaged(path, at)
  return { records, tornBytes: bytes.length - at }
}

function recordAt(bytes: Buffer, at: number): Buffer | undefined {
  if (at + HEADER_BYTES > bytes.length) return undefined
  if (!bytes.subarray(at, at + 4).equals(RECORD_MAGIC)) return undefined
  const payloadStart = at + HEADER_BYTES
  const payloadEnd = payloadStart + bytes.readUInt32LE(at + 4)
  if (payloadEnd > bytes.length) return undefined
  const payload = bytes.subarray(payloadStart, payloadEnd)
  return crc32(payload) === bytes.readUInt32LE(at + 8) ? payload : undefined
}

function frame(text: string): Buffer {
  const payload = Buffer.from(text)
  const header = Buffer.alloc(HEADER_BYTES)
  RECORD_MAGIC.copy(header)
  header.writeUInt32LE(payload.length, 4)
  header.writeUInt32LE(crc32(payload), 8)
  return Buffer.concat([header, payload])
}

function damaged(path: string, at: number): HoldfastError {
  return new HoldfastError(
    'HF_DAMAGED',
    `${path} is damaged at byte ${at}: restore it from a backup`,
    { at },
  )
}

/** Replaces the file by one with a single record, all or nothing, durable on return. */
export function replaceJournal(path: string, first: string): void {
  const draft = `${path}.new`
  const bytes = Buffer.concat([MAGIC, frame(first)])
  const file = openSync(draft, 'w')
  try {
    for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
  renameSync(draft, path)
  const folder = openSync(dirname(path), 'r')
  try {
    fsyncSync(folder)
  } finally {
    closeSync(folder)
  }
}

/** Appends to a journal that `replaceJournal` has just made or `readJournal` found whole. */
export class JournalWriter {
  readonly #file: FileHandle
  bytes: number

  private constructor(file: FileHandle, bytes: number) {
    this.#file = file
    this.bytes = bytes
  }

  static async open(path: string): Promise<JournalWriter> {
    const file = await open(path, 'r+')
    return new JournalWriter(file, (await file.stat()).size)
  }

  /** Durable when it resolves. After a rejection the file must be replaced before the next append. */
  async append(text: string): Promise<void> {
    const bytes = frame(text)
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await this.#file.write(
        bytes,
        done,
        bytes.length - done,
        this.bytes + done,
      )
      done += bytesWritten
    }
    await this.#file.datasync()
    this.bytes += bytes.length
  }

  async close(): Promise<void> {
    await this.#file.close()
  }
}
