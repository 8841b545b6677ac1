/** Replies of the handshake phase ("Option reply types"), gathered until they are taken. */
import { joinBytes } from '@holdfast/base'
import { writeU16, writeU32, writeU64 } from './bytes.ts'
import * as nbd from './constants.ts'
import { encodeUtf8 } from './utf8.ts'

const REPLY_HEADER_BYTES = 20

export class ReplyBytes {
  #pieces: Uint8Array[] = []

  raw(bytes: Uint8Array): void {
    this.#pieces.push(bytes)
  }

  acknowledge(option: number): void {
    this.#reply(option, nbd.NBD_REP_ACK, 0)
  }

  /** `message` is for a human being. */
  error(option: number, type: number, message: string): void {
    this.#textReply(option, type, 0, message)
  }

  server(name: string, description: string): void {
    const nameBytes = encodeUtf8(name)
    const descriptionBytes = encodeUtf8(description)
    const data = this.#reply(
      nbd.NBD_OPT_LIST,
      nbd.NBD_REP_SERVER,
      4 + nameBytes.length + descriptionBytes.length,
    )
    writeU32(data, 0, nameBytes.length)
    data.set(nameBytes, 4)
    data.set(descriptionBytes, 4 + nameBytes.length)
  }

  exportInfo(option: number, sizeBytes: number, transmissionFlags: number): void {
    const data = this.#reply(option, nbd.NBD_REP_INFO, 12)
    writeU16(data, 0, nbd.NBD_INFO_EXPORT)
    writeU64(data, 2, sizeBytes)
    writeU16(data, 10, transmissionFlags)
  }

  infoText(option: number, infoType: number, text: string): void {
    writeU16(this.#textReply(option, nbd.NBD_REP_INFO, 2, text), 0, infoType)
  }

  blockSizeInfo(option: number): void {
    const data = this.#reply(option, nbd.NBD_REP_INFO, 14)
    writeU16(data, 0, nbd.NBD_INFO_BLOCK_SIZE)
    writeU32(data, 2, nbd.BLOCK_SIZE_MIN)
    writeU32(data, 6, nbd.BLOCK_SIZE_PREFERRED)
    writeU32(data, 10, nbd.PAYLOAD_BYTES_MAX)
  }

  metaContext(option: number, id: number, name: string): void {
    writeU32(this.#textReply(option, nbd.NBD_REP_META_CONTEXT, 4, name), 0, id)
  }

  takeAll(): Uint8Array | undefined {
    if (this.#pieces.length === 0) return undefined
    const pieces = this.#pieces
    this.#pieces = []
    return joinBytes(pieces)
  }

  /** Data = room for `prefixBytes`, then the text. */
  #textReply(option: number, type: number, prefixBytes: number, text: string): Uint8Array {
    const textBytes = encodeUtf8(text)
    const data = this.#reply(option, type, prefixBytes + textBytes.length)
    data.set(textBytes, prefixBytes)
    return data
  }

  /** Adds a reply and returns where its data goes. */
  #reply(option: number, type: number, dataBytes: number): Uint8Array {
    const reply = new Uint8Array(REPLY_HEADER_BYTES + dataBytes)
    writeU32(reply, 0, nbd.NBD_REP_MAGIC_HIGH)
    writeU32(reply, 4, nbd.NBD_REP_MAGIC_LOW)
    writeU32(reply, 8, option)
    writeU32(reply, 12, type)
    writeU32(reply, 16, dataBytes)
    this.#pieces.push(reply)
    return reply.subarray(REPLY_HEADER_BYTES)
  }
}
