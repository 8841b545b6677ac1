/** The client's side of the protocol, for tests: builds requests and takes replies apart. */
import { readU16, readU32, TWO_POW_32, writeU16, writeU32, writeU64 } from '../bytes.ts'
import * as nbd from '../constants.ts'
import { encodeUtf8 } from '../utf8.ts'

export function concat(...pieces: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0))
  let at = 0
  for (const piece of pieces) {
    all.set(piece, at)
    at += piece.length
  }
  return all
}

export function u16(value: number): Uint8Array {
  const bytes = new Uint8Array(2)
  writeU16(bytes, 0, value)
  return bytes
}

export function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  writeU32(bytes, 0, value)
  return bytes
}

export function text(value: string): Uint8Array {
  const bytes = encodeUtf8(value)
  return concat(u32(bytes.length), bytes)
}

export function option(type: number, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  return concat(
    u32(nbd.IHAVEOPT_HIGH),
    u32(nbd.IHAVEOPT_LOW),
    u32(type),
    u32(data.length),
    data,
  )
}

/** Data of INFO and GO. */
export function open(name: string, ...infos: number[]): Uint8Array {
  return concat(text(name), u16(infos.length), ...infos.map(u16))
}

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function queries(name: string, ...wanted: string[]): Uint8Array {
  return concat(text(name), u32(wanted.length), ...wanted.map(text))
}

export interface OptionReply {
  readonly option: number
  readonly type: number
  readonly data: Uint8Array
}

export function optionReplies(bytes: Uint8Array): OptionReply[] {
  const replies: OptionReply[] = []
  for (let at = 0; at < bytes.length; ) {
    const length = readU32(bytes, at + 16)
    const data = bytes.slice(at + 20, at + 20 + length)
    replies.push({ option: readU32(bytes, at + 8), type: readU32(bytes, at + 12), data })
    at += 20 + length
  }
  return replies
}

export interface Request {
  readonly type: number
  readonly cookie: number
  readonly offset?: number | undefined
  readonly length?: number | undefined
  readonly flags?: number | undefined
  readonly payload?: Uint8Array | undefined
}

/**
 * `length` defaults to that of the payload; PAYLOAD_LEN is set where there is one (extended
 * only).
 */
export function request(form: 'compact' | 'extended', wanted: Request): Uint8Array {
  const { type, cookie, offset = 0, payload = new Uint8Array(0) } = wanted
  const length = wanted.length ?? payload.length
  const extended = form === 'extended'
  const header = new Uint8Array(extended ? 32 : 28)
  let flags = wanted.flags ?? 0
  if (extended && wanted.payload !== undefined) flags |= nbd.NBD_CMD_FLAG_PAYLOAD_LEN
  writeU32(header, 0, extended ? nbd.NBD_EXTENDED_REQUEST_MAGIC : nbd.NBD_REQUEST_MAGIC)
  writeU16(header, 4, flags)
  writeU16(header, 6, type)
  writeU64(header, 8, cookie)
  writeU64(header, 16, offset)
  if (extended) writeU64(header, 24, length)
  else writeU32(header, 24, length)
  return concat(header, payload)
}

export interface Reply {
  readonly form: 'simple' | 'structured' | 'extended'
  /** Chunk type; -1 for a simple reply. */
  readonly type: number
  readonly cookie: number
  readonly error: number
  /** Read data, or the payload of a status chunk. */
  readonly data: Uint8Array
  /** Extended replies only: the request's offset. */
  readonly offset: number
}

/**
 * Takes reply bytes apart. `readLength` says how much data a successful simple reply to a cookie
 * has, which the bytes alone do not tell. Throws where the bytes are no replies.
 */
export function replies(bytes: Uint8Array, readLength: (cookie: number) => number): Reply[] {
  const found: Reply[] = []
  for (let at = 0; at < bytes.length; ) {
    const { reply, end } = oneReply(bytes, at, readLength)
    if (end > bytes.length) throw new Error('reply is cut')
    found.push(reply)
    at = end
  }
  return found
}

function oneReply(
  bytes: Uint8Array,
  at: number,
  readLength: (cookie: number) => number,
): { reply: Reply; end: number } {
  const magic = readU32(bytes, at)
  const cookie = readU64(bytes, at + 8)
  if (magic === nbd.NBD_SIMPLE_REPLY_MAGIC) {
    const error = readU32(bytes, at + 4)
    const end = at + 16 + (error === 0 ? readLength(cookie) : 0)
    const data = bytes.slice(at + 16, end)
    return { reply: { form: 'simple', type: -1, cookie, error, data, offset: 0 }, end }
  }
  const extended = magic === nbd.NBD_EXTENDED_REPLY_MAGIC
  if (!extended && magic !== nbd.NBD_STRUCTURED_REPLY_MAGIC) throw new Error(`bad magic at ${at}`)
  if (readU16(bytes, at + 4) !== nbd.NBD_REPLY_FLAG_DONE) throw new Error('chunk is not the last')
  const type = readU16(bytes, at + 6)
  const form = extended ? 'extended' : 'structured'
  const offset = extended ? readU64(bytes, at + 16) : 0
  const start = at + (extended ? 32 : 20)
  const length = extended ? readU64(bytes, at + 24) : readU32(bytes, at + 16)
  const isError = type === nbd.NBD_REPLY_TYPE_ERROR
  const error = isError ? readU32(bytes, start) : 0
  const skipped = type === nbd.NBD_REPLY_TYPE_OFFSET_DATA ? 8 : 0
  const data = isError ? new Uint8Array(0) : bytes.slice(start + skipped, start + length)
  return { reply: { form, type, cookie, error, data, offset }, end: start + length }
}

function readU64(bytes: Uint8Array, at: number): number {
  return readU32(bytes, at) * TWO_POW_32 + readU32(bytes, at + 4)
}

/** Position of the first difference, or -1; quicker than a matcher on large arrays. */
export function firstDifference(a: Uint8Array, b: Uint8Array): number {
  if (a.length !== b.length) return Math.min(a.length, b.length)
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return i
  return -1
}
