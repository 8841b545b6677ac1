/** Numbers in headers. Protobufjs would make a Long of each. */
import { WireError } from './wire-error.ts'

/** Where they are read from; a protobuf.Reader is one. */
export interface VarintSource {
  readonly buf: Uint8Array
  pos: number
  readonly len: number
}

/** A varint, or with `signed` a zigzag one, as protobuf's sint64. Throws WireError for what is no safe integer. */
export function readVarint(source: VarintSource, signed: boolean): number {
  const { buf, len } = source
  let at = source.pos
  let byte = at < len ? (buf[at++] ?? 0) : 0x80
  const negative = signed && (byte & 1) === 1
  let value = signed ? (byte & 0x7f) >> 1 : byte & 0x7f
  let factor = signed ? 64 : 128
  while (byte >= 0x80) {
    if (at >= len || factor > 2 ** 49) throw new WireError('a number does not fit')
    byte = buf[at++] ?? 0
    value += (byte & 0x7f) * factor
    factor *= 128
  }
  if (!Number.isSafeInteger(value)) throw new WireError('a number does not fit')
  source.pos = at
  return negative ? -value - 1 : value
}
