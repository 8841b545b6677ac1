/** Writes whole replies in the form that was negotiated into a reply queue. */
import type { BlockStatusExtent } from '@holdfast/base'
import { writeU16, writeU32, writeU64 } from './bytes.ts'
import { TURN_BYTES } from './buffer-pool.ts'
import * as nbd from './constants.ts'
import { BASE_ALLOCATION_ID } from './handshake.ts'
import { writeExtendedReply, writeSimpleReply, writeStructuredReply } from './reply-codec.ts'
import type { ReplyQueue } from './reply-queue.ts'

/** Payload of an error chunk without a message. */
const ERROR_PAYLOAD_BYTES = 6

export class ReplyWriter {
  /** Bytes before a read's data: header, and the chunk's offset where replies are chunks. */
  readonly readHeaderBytes: number
  readonly #replies: ReplyQueue
  readonly #structured: boolean
  readonly #extended: boolean
  readonly #chunkHeaderBytes: number

  constructor(
    replies: ReplyQueue,
    form: { readonly structuredReplies: boolean; readonly extendedHeaders: boolean },
  ) {
    this.#replies = replies
    this.#structured = form.structuredReplies
    this.#extended = form.extendedHeaders
    this.#chunkHeaderBytes = form.extendedHeaders
      ? nbd.EXTENDED_REPLY_BYTES
      : nbd.STRUCTURED_REPLY_BYTES
    this.readHeaderBytes = form.structuredReplies
      ? this.#chunkHeaderBytes + 8
      : nbd.SIMPLE_REPLY_BYTES
  }

  /** Success without data. A read may have no simple reply once chunks were negotiated. */
  success(
    cookieHigh: number,
    cookieLow: number,
    offsetHigh: number,
    offsetLow: number,
    read = false,
  ): void {
    if (this.#extended || (read && this.#structured)) {
      const type = nbd.NBD_REPLY_TYPE_NONE
      const { bytes } = this.#replies.room(this.#chunkHeaderBytes)
      const at = this.#replies.used
      this.#chunkHeader(bytes, at, type, cookieHigh, cookieLow, offsetHigh, offsetLow, 0)
      this.#replies.commit(this.#chunkHeaderBytes)
      return
    }
    const { bytes } = this.#replies.room(nbd.SIMPLE_REPLY_BYTES)
    writeSimpleReply(bytes, this.#replies.used, 0, cookieHigh, cookieLow)
    this.#replies.commit(nbd.SIMPLE_REPLY_BYTES)
  }

  failure(
    error: number,
    cookieHigh: number,
    cookieLow: number,
    offsetHigh: number,
    offsetLow: number,
  ): void {
    if (!this.#structured) {
      const { bytes } = this.#replies.room(nbd.SIMPLE_REPLY_BYTES)
      writeSimpleReply(bytes, this.#replies.used, error, cookieHigh, cookieLow)
      this.#replies.commit(nbd.SIMPLE_REPLY_BYTES)
      return
    }
    const header = this.#chunkHeaderBytes
    const total = header + ERROR_PAYLOAD_BYTES
    const { bytes } = this.#replies.room(total)
    const at = this.#replies.used
    const type = nbd.NBD_REPLY_TYPE_ERROR
    const length = ERROR_PAYLOAD_BYTES
    this.#chunkHeader(bytes, at, type, cookieHigh, cookieLow, offsetHigh, offsetLow, length)
    writeU32(bytes, at + header, error)
    writeU16(bytes, at + header + 4, 0)
    this.#replies.commit(total)
  }

  /** The `readHeaderBytes` before the data of a read of `length` bytes. */
  readHeader(
    bytes: Uint8Array,
    at: number,
    cookieHigh: number,
    cookieLow: number,
    offsetHigh: number,
    offsetLow: number,
    length: number,
  ): void {
    if (!this.#structured) {
      writeSimpleReply(bytes, at, 0, cookieHigh, cookieLow)
      return
    }
    const type = nbd.NBD_REPLY_TYPE_OFFSET_DATA
    const payload = length + 8
    this.#chunkHeader(bytes, at, type, cookieHigh, cookieLow, offsetHigh, offsetLow, payload)
    writeU32(bytes, at + this.#chunkHeaderBytes, offsetHigh)
    writeU32(bytes, at + this.#chunkHeaderBytes + 4, offsetLow)
  }

  blockStatus(
    extents: readonly BlockStatusExtent[],
    cookieHigh: number,
    cookieLow: number,
    offsetHigh: number,
    offsetLow: number,
  ): void {
    const extended = this.#extended
    const type = extended ? nbd.NBD_REPLY_TYPE_BLOCK_STATUS_EXT : nbd.NBD_REPLY_TYPE_BLOCK_STATUS
    const payload = extended ? 8 + extents.length * 16 : 4 + extents.length * 8
    const total = this.#chunkHeaderBytes + payload
    const small = total <= TURN_BYTES
    const buffer = small ? this.#replies.room(total) : this.#replies.large(total)
    const { bytes } = buffer
    let at = small ? this.#replies.used : 0
    this.#chunkHeader(bytes, at, type, cookieHigh, cookieLow, offsetHigh, offsetLow, payload)
    at += this.#chunkHeaderBytes
    writeU32(bytes, at, BASE_ALLOCATION_ID)
    at += 4
    if (extended) {
      writeU32(bytes, at, extents.length)
      at += 4
    }
    for (const { lengthBytes, hole } of extents) {
      const state = hole ? nbd.NBD_STATE_HOLE | nbd.NBD_STATE_ZERO : 0
      if (extended) {
        writeU64(bytes, at, lengthBytes)
        writeU64(bytes, at + 8, state)
        at += 16
      } else {
        writeU32(bytes, at, lengthBytes)
        writeU32(bytes, at + 4, state)
        at += 8
      }
    }
    if (small) this.#replies.commit(total)
    else this.#replies.fill(buffer, 0, 0, total)
  }

  /** Every reply is a single chunk, so every chunk is the last one. */
  #chunkHeader(
    bytes: Uint8Array,
    at: number,
    type: number,
    cookieHigh: number,
    cookieLow: number,
    offsetHigh: number,
    offsetLow: number,
    length: number,
  ): void {
    const flags = nbd.NBD_REPLY_FLAG_DONE
    if (this.#extended) {
      writeExtendedReply(
        bytes, at, flags, type, cookieHigh, cookieLow, offsetHigh, offsetLow, length,
      )
    } else {
      writeStructuredReply(bytes, at, flags, type, cookieHigh, cookieLow, length)
    }
  }
}
