/** Headers of the transmission phase's replies ("Simple reply message" and following). */
import { writeU16, writeU32 } from './bytes.ts'
import {
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
} from './constants.ts'

/** 16 bytes. Read data, if any, follows. */
export function writeSimpleReply(
  bytes: Uint8Array,
  at: number,
  error: number,
  cookieHigh: number,
  cookieLow: number,
): void {
  writeU32(bytes, at, NBD_SIMPLE_REPLY_MAGIC)
  writeU32(bytes, at + 4, error)
  writeU32(bytes, at + 8, cookieHigh)
  writeU32(bytes, at + 12, cookieLow)
}

/** 20 bytes. `length` bytes of payload follow. */
export function writeStructuredReply(
  bytes: Uint8Array,
  at: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  length: number,
): void {
  writeU32(bytes, at, NBD_STRUCTURED_REPLY_MAGIC)
  writeU16(bytes, at + 4, flags)
  writeU16(bytes, at + 6, type)
  writeU32(bytes, at + 8, cookieHigh)
  writeU32(bytes, at + 12, cookieLow)
  writeU32(bytes, at + 16, length)
}

/** 32 bytes. The offset repeats the request's; `length` (below 2^32) bytes of payload follow. */
export function writeExtendedReply(
  bytes: Uint8Array,
  at: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  offsetHigh: number,
  offsetLow: number,
  length: number,
): void {
  writeU32(bytes, at, NBD_EXTENDED_REPLY_MAGIC)
  writeU16(bytes, at + 4, flags)
  writeU16(bytes, at + 6, type)
  writeU32(bytes, at + 8, cookieHigh)
  writeU32(bytes, at + 12, cookieLow)
  writeU32(bytes, at + 16, offsetHigh)
  writeU32(bytes, at + 20, offsetLow)
  writeU32(bytes, at + 24, 0)
  writeU32(bytes, at + 28, length)
}
