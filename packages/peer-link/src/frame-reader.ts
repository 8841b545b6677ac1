/**
 * Takes WebSocket frames (RFC 6455 section 5.2) apart as they come from a socket. A large payload is read from the socket
 * straight to where it stays; everything else is copied once out of the buffer that all links are read to, or taken from there by
 * the handler.
 *
 * Invariant: `#fragment` is where the next payload bytes go, and undefined while a frame's head is awaited.
 */
import type { ByteSink } from '@holdfast/direct-socket'
import { WireError } from '@holdfast/wire'
import { FRAME_BYTES_MAX, OPCODE } from './frame.ts'
import { payloadPool } from './payload-pool.ts'

/** One for all links: a chunk is taken wholly before the next read. */
const receiveBuffer = new Uint8Array(256 * 1024)
/** Behind a large payload only so much is read: the next one's head, so that its body can be read to its place. */
const headBuffer = receiveBuffer.subarray(0, 512)
/** A rest of a payload at least this long is worth a read of its own. */
const DIRECT_BYTES_MIN = 8 * 1024
const HEAD_BYTES_MAX = 14
const CONTROL_BYTES_MAX = 125

export interface FrameHandler {
  /**
   * A first fragment, whole, in memory that is read into again. Whoever takes it returns where the others are to be added, and
   * gets `message` with that once they are there.
   */
  begins(bytes: Uint8Array, start: number, end: number, isLast: boolean): Buffer[] | undefined
  /** The fragments of one message, no empty ones behind the first; they belong to the receiver, who may give them back to the pool. */
  message(fragments: Buffer[]): void
  ping(payload: Uint8Array): void
  /** The other end says why it closes. */
  closing(reason: string): void
  /** What came is no frame of ours; nothing is read from now on. */
  malformed(problem: string): void
}

export class FrameReader implements ByteSink {
  readonly #handler: FrameHandler
  /** A frame's head that came in pieces. */
  readonly #head = Buffer.alloc(HEAD_BYTES_MAX)
  #headBytes = 0
  /** Of the message that has begun. */
  #fragments: Buffer[] | undefined
  #messageBytes = 0
  #fragment: Buffer | undefined
  /** The rest of it, where the next read goes straight there. */
  #direct: Uint8Array | undefined
  #filled = 0
  #opcode = 0
  #final = false
  #expectLarge = false
  #ended = false
  /** What came after `end`, where somebody else will read it. */
  #unread: Buffer | undefined

  constructor(handler: FrameHandler) {
    this.#handler = handler
  }

  /** Nothing more is handed over. */
  end(): void {
    this.#ended = true
  }

  /** Ends after the message that is being handed over: what has come behind it is for another reader. */
  leave(): void {
    this.#ended = true
    this.#unread = Buffer.alloc(0)
  }

  /** After `leave`, once the read under way has ended. */
  get unread(): Buffer {
    return this.#unread ?? Buffer.alloc(0)
  }

  readBuffer(): Uint8Array {
    const fragment = this.#fragment
    if (fragment !== undefined && fragment.length - this.#filled >= DIRECT_BYTES_MIN) {
      this.#direct = fragment.subarray(this.#filled)
      return this.#direct
    }
    this.#direct = undefined
    return this.#expectLarge ? headBuffer : receiveBuffer
  }

  restBuffer(): Uint8Array | undefined {
    if (this.#ended) return undefined
    this.readBuffer()
    return this.#direct
  }

  bytesRead(count: number, buffer: Uint8Array): boolean {
    if (this.#ended && this.#unread === undefined) return true
    try {
      const fragment = this.#fragment
      if (fragment !== undefined && buffer === this.#direct) {
        this.#filled += count
        this.#expectLarge = true
        if (this.#filled === fragment.length) this.#frameEnded(fragment)
      } else {
        this.#expectLarge = false
        this.#take(buffer, count)
      }
    } catch (error) {
      if (!(error instanceof WireError)) throw error
      this.#ended = true
      this.#handler.malformed(error.message)
    }
    return true
  }

  #take(bytes: Uint8Array, end: number): void {
    let at = 0
    while (at < end && !this.#ended) {
      const fragment = this.#fragment
      if (fragment === undefined) {
        at = this.#takeHead(bytes, at, end)
        continue
      }
      const part = Math.min(end - at, fragment.length - this.#filled)
      fragment.set(bytes.subarray(at, at + part), this.#filled)
      this.#filled += part
      at += part
      if (this.#filled === fragment.length) this.#frameEnded(fragment)
    }
    if (this.#unread !== undefined) this.#unread = Buffer.concat([this.#unread, bytes.subarray(at, end)])
  }

  /** Byte by byte, since a head is a few bytes that may end anywhere. Returns where it went on to. */
  #takeHead(bytes: Uint8Array, start: number, end: number): number {
    const head = this.#head
    let at = start
    while (at < end) {
      head[this.#headBytes++] = bytes[at++] as number
      if (this.#headBytes >= 2 && this.#headBytes === headLength(head)) {
        this.#headBytes = 0
        return this.#frameBegins(head, bytes, at, end)
      }
    }
    return at
  }

  /** `bytes[at, end)` has come behind its head. Returns where it went on to. */
  #frameBegins(head: Buffer, bytes: Uint8Array, at: number, end: number): number {
    const first = head[0] as number
    if ((first & 0x70) !== 0) throw new WireError('a frame has a reserved bit set')
    const opcode = first & 0x0f
    const length = payloadLength(head)
    this.#opcode = opcode
    this.#final = (first & 0x80) !== 0
    if (opcode >= OPCODE.close) {
      if (!this.#final || length > CONTROL_BYTES_MAX) throw new WireError('a control frame is too long or in parts')
    } else {
      const begins = opcode === OPCODE.binary
      if (!begins && opcode !== OPCODE.continuation) throw new WireError(`a frame has opcode ${opcode}`)
      if (begins !== (this.#fragments === undefined)) throw new WireError('fragments of messages are mixed up')
      this.#messageBytes += length
      if (this.#messageBytes > FRAME_BYTES_MAX) throw new WireError(`a message has ${this.#messageBytes} bytes`)
      if (begins && length <= end - at) this.#fragments = this.#handler.begins(bytes, at, at + length, this.#final)
      if (begins && this.#fragments !== undefined) {
        if (this.#final) this.#messageEnded(this.#fragments)
        return at + length
      }
    }
    const fragment = payloadPool.take(length)
    this.#filled = 0
    if (length === 0) this.#frameEnded(fragment)
    else this.#fragment = fragment
    return at
  }

  #frameEnded(payload: Buffer): void {
    this.#fragment = undefined
    switch (this.#opcode) {
      case OPCODE.close:
        return this.#handler.closing(payload.subarray(2).toString())
      case OPCODE.ping:
        return this.#handler.ping(payload)
      case OPCODE.pong:
        return
      default:
    }
    const fragments = (this.#fragments ??= [payload])
    if (fragments[0] !== payload && payload.length > 0) fragments.push(payload)
    if (this.#final) this.#messageEnded(fragments)
  }

  #messageEnded(fragments: Buffer[]): void {
    this.#fragments = undefined
    this.#messageBytes = 0
    this.#handler.message(fragments)
  }
}

function headLength(head: Buffer): number {
  const second = head[1] as number
  const length = second & 0x7f
  return 2 + (length === 126 ? 2 : length === 127 ? 8 : 0) + ((second & 0x80) === 0 ? 0 : 4)
}

function payloadLength(head: Buffer): number {
  const second = head[1] as number
  let length = second & 0x7f
  let end = 2
  if (length === 126) {
    length = head.readUInt16BE(2)
    end = 4
  } else if (length === 127) {
    length = head.readUInt32BE(2) * 2 ** 32 + head.readUInt32BE(6)
    end = 10
  }
  // Nodes mask with zero (decision 3).
  if ((second & 0x80) !== 0 && head.readUInt32BE(end) !== 0) throw new WireError('a frame is masked')
  return length
}
