/**
 * The transmission phase of one connection: request bytes in, calls on the ExportSession, reply
 * bytes out.
 *
 * The hot path of the product. Per request it makes no object, closure or promise: what a reply
 * needs is kept in slots (parallel arrays), and a read is answered inside the buffer that goes to
 * the socket.
 *
 * Invariants:
 * - Every request but DISC is answered exactly once, unless the connection ends before.
 * - Outstanding bytes (unanswered requests, replies not yet taken by the client) never exceed the
 *   limit by more than one request: `receive` stops parsing and `capacityAvailable` says when to
 *   go on.
 * - A request is checked completely before the session sees it.
 */
import {
  type BlockStatusExtent,
  type Errno,
  type ExportSession,
  errno,
} from '@holdfast/base'
import { readU16, readU32, TWO_POW_32 } from './bytes.ts'
import { type BufferPool, HEADER_ROOM_BYTES } from './buffer-pool.ts'
import * as nbd from './constants.ts'
import { BASE_ALLOCATION_ID, type Agreement } from './handshake.ts'
import { ReplyQueue } from './reply-queue.ts'
import { ReplyWriter } from './reply-writer.ts'
import { checkRequest, type RequestRules } from './request-check.ts'
import { RequestSlots } from './request-slots.ts'

/** Payloads at least this large are received into a buffer of the session. */
export const LARGE_PAYLOAD_BYTES = 64 * 1024
/** Read replies up to this size, header included, go into the turn buffer. */
const SMALL_REPLY_BYTES_MAX = 64 * 1024 + 64
/** What a request counts beside its data, so that empty ones are bounded too. */
const REQUEST_BYTES = 64
/** Extents of one BLOCK_STATUS reply; the protocol allows up to 2^20. */
const EXTENTS_MAX = 16 * 1024

export interface TransmissionLimits {
  /** Bytes of unanswered requests and untaken replies, 64 per request included. */
  readonly outstandingBytesMax: number
  readonly outstandingRequestsMax: number
}

/** Counters that the owner shares between connections; only ever added to. */
export interface TransmissionCounters {
  requests: number
  failedRequests: number
  readBytes: number
  writtenBytes: number
}

export interface TransmissionHost {
  /** Replies are ready. Not called from inside `receive`, whose caller looks for itself. */
  repliesReady(): void
  /** From inside `receive`: a large reply may leave now, while later requests are still parsed. */
  largeReplyReady(): void
  /** `receive` stopped for want of capacity and may be called again; never from inside it. */
  capacityAvailable(): void
  /** DISC was received and everything before it is answered. May come from inside `receive`. */
  disconnected(): void
}

type Payload = 'none' | 'small' | 'large' | 'drain' | 'status'

export class Transmission {
  readonly replies: ReplyQueue
  readonly #session: ExportSession
  readonly #host: TransmissionHost
  readonly #limits: TransmissionLimits
  readonly #counters: TransmissionCounters
  readonly #rules: RequestRules
  readonly #writer: ReplyWriter
  readonly #slots = new RequestSlots()
  readonly #extended: boolean
  /** Of the header of a request. */
  readonly requestBytes: number
  readonly #requestMagic: number
  readonly #readHeaderBytes: number
  #outstandingBytes = 0
  /** Start of a request, or a small payload, that a chunk of input ended in. */
  #carry = new Uint8Array(nbd.EXTENDED_REQUEST_BYTES)
  #carryBytes = 0
  #payload: Payload = 'none'
  /** Payload bytes still to come. */
  #payloadRest = 0
  #payloadFilled = 0
  #reserved: Uint8Array | undefined
  /** The error that answers a drained payload. */
  #drainError: Errno = errno.OK
  #violation: string | undefined
  #receiving = false
  #stalled = false
  #announced = false
  #disconnecting = false
  #shuttingDown = false
  #closed = false
  // The request whose header was parsed last.
  #type = 0
  #flags = 0
  #cookieHigh = 0
  #cookieLow = 0
  #offsetHigh = 0
  #offsetLow = 0
  #offset = 0
  #length = 0

  constructor(
    agreement: Agreement,
    pool: BufferPool,
    limits: TransmissionLimits,
    counters: TransmissionCounters,
    host: TransmissionHost,
  ) {
    const { session, structuredReplies, extendedHeaders, blockStatus } = agreement
    const { sizeBytes, readOnly } = session.info
    this.#session = session
    this.#host = host
    this.#limits = limits
    this.#counters = counters
    this.#rules = { sizeBytes, readOnly, structuredReplies, extendedHeaders, blockStatus }
    this.replies = new ReplyQueue(pool)
    this.#writer = new ReplyWriter(this.replies, agreement)
    this.#extended = extendedHeaders
    this.requestBytes = extendedHeaders ? nbd.EXTENDED_REQUEST_BYTES : nbd.COMPACT_REQUEST_BYTES
    this.#requestMagic = extendedHeaders ? nbd.NBD_EXTENDED_REQUEST_MAGIC : nbd.NBD_REQUEST_MAGIC
    this.#readHeaderBytes = this.#writer.readHeaderBytes
  }

  /** Why the connection must be dropped at once, if it must. */
  get violation(): string | undefined {
    return this.#violation
  }

  /** Number of requests that the session has not answered. */
  get outstandingRequests(): number {
    return this.#slots.count
  }

  /** DISC was received: the client expects no more than the answers to what it sent before. */
  get disconnecting(): boolean {
    return this.#disconnecting
  }

  /** True while parsing may go on. */
  get hasCapacity(): boolean {
    return (
      this.#outstandingBytes + this.replies.heldBytes < this.#limits.outstandingBytesMax &&
      this.#slots.count < this.#limits.outstandingRequestsMax
    )
  }

  /**
   * Takes `bytes[start, end)`; returns the position up to which they were taken. Less than `end`:
   * the limits are reached; keep the rest and call again after `capacityAvailable`.
   */
  receive(bytes: Uint8Array, start: number, end: number): number {
    this.#receiving = true
    let at = start
    while (at < end && this.#violation === undefined && !this.#closed) {
      if (this.#disconnecting) {
        at = end
      } else if (this.#payload !== 'none') {
        at = this.#receivePayload(bytes, at, end)
      } else if (!this.hasCapacity) {
        this.#stalled = true
        break
      } else if (this.#carryBytes > 0 || end - at < this.requestBytes) {
        at = this.#receiveCarry(bytes, at, end)
      } else {
        this.#parseHeader(bytes, at)
        at = this.#request(bytes, at + this.requestBytes, end)
      }
    }
    this.#receiving = false
    return at
  }

  /**
   * Where the next bytes of the socket may be read to without a detour: the rest of a large
   * payload, or undefined. `payloadReceived` must follow before anything else is received.
   */
  payloadTarget(): Uint8Array | undefined {
    return this.#payload === 'large' ? this.#reserved?.subarray(this.#payloadFilled) : undefined
  }

  /** `count` bytes were read to `payloadTarget()`. */
  payloadReceived(count: number): void {
    this.#payloadFilled += count
    this.#payloadRest -= count
    if (this.#payloadRest === 0) this.#submitReserved()
    else if (this.#reserved !== undefined) this.#session.received(this.#reserved, this.#payloadFilled)
  }

  /** What the session calls for each answered request. */
  completed(token: number, error: Errno): void {
    const slots = this.#slots
    if (this.#closed || !slots.isTaken(token)) return
    const cookieHigh = slots.cookieHigh[token] as number
    const cookieLow = slots.cookieLow[token] as number
    const offsetHigh = slots.offsetHigh[token] as number
    const offsetLow = slots.offsetLow[token] as number
    const buffer = slots.buffer[token]
    if (buffer !== undefined) {
      slots.buffer[token] = undefined
      const start = slots.start[token] as number
      if (error === errno.OK) {
        const length = (slots.bytes[token] as number) - REQUEST_BYTES
        const bytes = buffer.bytes
        this.#writer.readHeader(bytes, start, cookieHigh, cookieLow, offsetHigh, offsetLow, length)
        this.replies.fill(buffer, start, start + this.#readHeaderBytes, start + this.#readHeaderBytes + length)
        this.#counters.readBytes += length
      } else {
        this.replies.abandon(buffer)
      }
    }
    if (error !== errno.OK) {
      this.#counters.failedRequests++
      this.#writer.failure(error, cookieHigh, cookieLow, offsetHigh, offsetLow)
    } else if (buffer === undefined) {
      this.#writer.success(cookieHigh, cookieLow, offsetHigh, offsetLow)
    }
    this.#release(token)
    this.#progressed()
  }

  /** The owner has taken the replies (`replies.take`): the next one will be announced again. */
  repliesTaken(): void {
    this.#announced = false
  }

  /** The client took replies: perhaps there is room for more requests. */
  repliesSent(): void {
    this.#checkCapacity()
  }

  /** From now on every new request is answered with ESHUTDOWN. */
  shutDown(): void {
    this.#shuttingDown = true
  }

  /** The connection has ended. No call on the host follows. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    if (this.#reserved !== undefined) this.#session.unreserve(this.#reserved)
    this.#reserved = undefined
    this.replies.close()
    this.#session.close()
  }

  #receiveCarry(bytes: Uint8Array, at: number, end: number): number {
    const taken = Math.min(this.requestBytes - this.#carryBytes, end - at)
    for (let i = 0; i < taken; i++) this.#carry[this.#carryBytes + i] = bytes[at + i] as number
    this.#carryBytes += taken
    if (this.#carryBytes < this.requestBytes) return at + taken
    this.#carryBytes = 0
    this.#parseHeader(this.#carry, 0)
    return this.#request(bytes, at + taken, end)
  }

  #parseHeader(bytes: Uint8Array, at: number): void {
    if (readU32(bytes, at) !== this.#requestMagic) {
      this.#violation = 'request without its magic'
      return
    }
    this.#flags = readU16(bytes, at + 4)
    this.#type = readU16(bytes, at + 6)
    this.#cookieHigh = readU32(bytes, at + 8)
    this.#cookieLow = readU32(bytes, at + 12)
    this.#offsetHigh = readU32(bytes, at + 16)
    this.#offsetLow = readU32(bytes, at + 20)
    this.#offset = this.#offsetHigh * TWO_POW_32 + this.#offsetLow
    this.#length = this.#extended
      ? readU32(bytes, at + 24) * TWO_POW_32 + readU32(bytes, at + 28)
      : readU32(bytes, at + 24)
  }

  /**
   * Handles the request just parsed; its payload begins at `at`. Returns where the next one
   * begins.
   */
  #request(bytes: Uint8Array, at: number, end: number): number {
    if (this.#violation !== undefined) return at
    this.#counters.requests++
    const type = this.#type
    if (this.#hasPayload()) return this.#requestWithPayload(bytes, at, end)
    if (type === nbd.NBD_CMD_DISC) {
      this.#disconnecting = true
      this.#checkDisconnected()
      return at
    }
    const error = this.#check()
    if (error !== errno.OK) this.#refuse(error)
    else if (type === nbd.NBD_CMD_READ) this.#read()
    else if (type === nbd.NBD_CMD_BLOCK_STATUS) this.#blockStatus(this.#length)
    else this.#submit()
    return at
  }

  #hasPayload(): boolean {
    if (!this.#extended) return this.#type === nbd.NBD_CMD_WRITE
    return (this.#flags & nbd.NBD_CMD_FLAG_PAYLOAD_LEN) !== 0
  }

  #check(): Errno {
    if (this.#shuttingDown) return errno.ESHUTDOWN
    // With extended headers a write without PAYLOAD_LEN has no payload and no meaning.
    if (this.#extended && this.#type === nbd.NBD_CMD_WRITE) return errno.EINVAL
    return checkRequest(this.#rules, this.#type, this.#flags, this.#offset, this.#length)
  }

  #requestWithPayload(bytes: Uint8Array, at: number, end: number): number {
    const length = this.#length
    if (this.#extended && length > nbd.PAYLOAD_BYTES_MAX) {
      this.#violation = 'payload longer than the maximum'
      return at
    }
    if (this.#type === nbd.NBD_CMD_BLOCK_STATUS) {
      this.#expectStatusPayload(length)
      return at
    }
    const error = this.#checkWrite(length)
    if (error !== errno.OK) {
      this.#drain(error, length)
      return at
    }
    if (length < LARGE_PAYLOAD_BYTES) {
      if (length <= end - at) {
        this.#write(bytes, at)
        return at + length
      }
      this.#expectSmallPayload(length)
      return at
    }
    this.#payload = 'large'
    this.#reserved = this.#session.reserve(length)
    this.#payloadFilled = 0
    this.#payloadRest = length
    this.#outstandingBytes += length
    return at
  }

  #checkWrite(length: number): Errno {
    if (this.#shuttingDown) return errno.ESHUTDOWN
    if (this.#type !== nbd.NBD_CMD_WRITE) return errno.EINVAL
    const flags = this.#extended ? this.#flags & ~nbd.NBD_CMD_FLAG_PAYLOAD_LEN : this.#flags
    return checkRequest(this.#rules, nbd.NBD_CMD_WRITE, flags, this.#offset, length)
  }

  #expectSmallPayload(length: number): void {
    if (this.#carry.length < length) {
      const doubled = Math.min(this.#carry.length * 2, LARGE_PAYLOAD_BYTES)
      this.#carry = new Uint8Array(Math.max(length, doubled))
    }
    this.#payload = 'small'
    this.#payloadFilled = 0
    this.#payloadRest = length
  }

  /** The payload form of BLOCK_STATUS: a 64-bit effect length, then the ids of contexts. */
  #expectStatusPayload(length: number): void {
    const flags = this.#flags & ~nbd.NBD_CMD_FLAG_PAYLOAD_LEN & ~nbd.NBD_CMD_FLAG_REQ_ONE
    // With one context to choose there is one right length.
    const right = this.#rules.blockStatus && length === 12 && (flags & ~nbd.NBD_CMD_FLAG_FUA) === 0
    if (!right) {
      this.#drain(this.#shuttingDown ? errno.ESHUTDOWN : errno.EINVAL, length)
      return
    }
    this.#expectSmallPayload(length)
    this.#payload = 'status'
  }

  #drain(error: Errno, length: number): void {
    if (length === 0) {
      this.#refuse(error)
      return
    }
    this.#payload = 'drain'
    this.#payloadRest = length
    this.#drainError = error
  }

  #receivePayload(bytes: Uint8Array, at: number, end: number): number {
    const taken = Math.min(this.#payloadRest, end - at)
    this.#payloadRest -= taken
    if (this.#payload !== 'drain') {
      const target = this.#payload === 'large' ? this.#reserved : this.#carry
      target?.set(bytes.subarray(at, at + taken), this.#payloadFilled)
      this.#payloadFilled += taken
    }
    if (this.#payloadRest === 0) this.#payloadComplete()
    return at + taken
  }

  #payloadComplete(): void {
    const payload = this.#payload
    if (payload === 'large') {
      this.#submitReserved()
      return
    }
    this.#payload = 'none'
    if (payload === 'drain') this.#refuse(this.#drainError)
    else if (payload === 'status') this.#statusPayload()
    else this.#write(this.#carry, 0)
  }

  #submitReserved(): void {
    const reserved = this.#reserved
    this.#payload = 'none'
    this.#reserved = undefined
    if (reserved === undefined) return
    this.#outstandingBytes -= this.#length
    const token = this.#take(this.#length)
    this.#counters.writtenBytes += this.#length
    const fua = (this.#flags & nbd.NBD_CMD_FLAG_FUA) !== 0
    this.#session.writeReserved(token, this.#offset, reserved, fua)
  }

  #write(source: Uint8Array, start: number): void {
    const length = this.#length
    if (length === 0) {
      this.#succeed()
      return
    }
    const token = this.#take(length)
    this.#counters.writtenBytes += length
    const fua = (this.#flags & nbd.NBD_CMD_FLAG_FUA) !== 0
    this.#session.write(token, this.#offset, source, start, length, fua)
  }

  #statusPayload(): void {
    const high = readU32(this.#carry, 0)
    const length = high * TWO_POW_32 + readU32(this.#carry, 4)
    const flags = this.#flags & ~nbd.NBD_CMD_FLAG_PAYLOAD_LEN
    const right = readU32(this.#carry, 8) === BASE_ALLOCATION_ID
    const error = right
      ? checkRequest(this.#rules, nbd.NBD_CMD_BLOCK_STATUS, flags, this.#offset, length)
      : errno.EINVAL
    if (this.#shuttingDown) this.#refuse(errno.ESHUTDOWN)
    else if (error !== errno.OK) this.#refuse(error)
    else this.#blockStatus(length)
  }

  #read(): void {
    const length = this.#length
    if (length === 0) {
      this.#succeed()
      return
    }
    const replies = this.replies
    const header = this.#readHeaderBytes
    const total = header + length
    const small = total <= SMALL_REPLY_BYTES_MAX
    const buffer = small ? replies.room(total) : replies.large(HEADER_ROOM_BYTES + length)
    // The data of a large one begin where the room for a header ends, with a cache line.
    const start = small ? replies.used : HEADER_ROOM_BYTES - header
    const token = this.#take(length)
    if (!this.#session.read(token, this.#offset, length, buffer.bytes, start + header)) {
      this.#slots.buffer[token] = buffer
      this.#slots.start[token] = start
      if (small) replies.leaveHole(total)
      return
    }
    this.#release(token)
    this.#counters.readBytes += length
    this.#writer.readHeader(
      buffer.bytes,
      start,
      this.#cookieHigh,
      this.#cookieLow,
      this.#offsetHigh,
      this.#offsetLow,
      length,
    )
    if (small) {
      replies.commit(total)
    } else {
      replies.fill(buffer, start, start + header, start + total)
      this.#host.largeReplyReady()
    }
  }

  #submit(): void {
    const session = this.#session
    const length = this.#length
    if (length === 0 && this.#type !== nbd.NBD_CMD_FLUSH) {
      this.#succeed()
      return
    }
    switch (this.#type) {
      case nbd.NBD_CMD_FLUSH:
        session.flush(this.#take(0))
        break
      case nbd.NBD_CMD_CACHE: {
        // Only a hint: what is beyond the largest read is left out, so that the session's effort
        // is bounded.
        const bounded = Math.min(length, nbd.PAYLOAD_BYTES_MAX)
        session.cache(this.#take(bounded), this.#offset, bounded)
        break
      }
      default: {
        const zeroes = this.#type === nbd.NBD_CMD_WRITE_ZEROES
        session.zero(this.#take(0), this.#offset, length, {
          fua: (this.#flags & nbd.NBD_CMD_FLAG_FUA) !== 0,
          keepAllocated: zeroes && (this.#flags & nbd.NBD_CMD_FLAG_NO_HOLE) !== 0,
        })
      }
    }
  }

  #blockStatus(length: number): void {
    const token = this.#take(0)
    const one = (this.#flags & nbd.NBD_CMD_FLAG_REQ_ONE) !== 0
    const extentCountMax = one ? 1 : EXTENTS_MAX
    this.#session.blockStatus(this.#offset, length, extentCountMax, (error, extents) =>
      this.#statusDone(token, error, extents.slice(0, extentCountMax)),
    )
  }

  #statusDone(token: number, error: Errno, extents: readonly BlockStatusExtent[]): void {
    if (this.#closed) return
    const slots = this.#slots
    const cookieHigh = slots.cookieHigh[token] as number
    const cookieLow = slots.cookieLow[token] as number
    const offsetHigh = slots.offsetHigh[token] as number
    const offsetLow = slots.offsetLow[token] as number
    const failed = error === errno.OK && extents.length === 0 ? errno.EIO : error
    if (failed !== errno.OK) {
      this.#counters.failedRequests++
      this.#writer.failure(failed, cookieHigh, cookieLow, offsetHigh, offsetLow)
    } else {
      this.#writer.blockStatus(extents, cookieHigh, cookieLow, offsetHigh, offsetLow)
    }
    this.#release(token)
    this.#progressed()
  }

  #take(bytes: number): number {
    const slots = this.#slots
    const token = slots.take()
    slots.type[token] = this.#type
    slots.cookieHigh[token] = this.#cookieHigh
    slots.cookieLow[token] = this.#cookieLow
    slots.offsetHigh[token] = this.#offsetHigh
    slots.offsetLow[token] = this.#offsetLow
    slots.bytes[token] = bytes + REQUEST_BYTES
    this.#outstandingBytes += bytes + REQUEST_BYTES
    return token
  }

  #release(token: number): void {
    this.#outstandingBytes -= this.#slots.bytes[token] as number
    this.#slots.release(token)
  }

  /** Answers the request just parsed. */
  #succeed(): void {
    const read = this.#type === nbd.NBD_CMD_READ
    this.#writer.success(
      this.#cookieHigh,
      this.#cookieLow,
      this.#offsetHigh,
      this.#offsetLow,
      read,
    )
  }

  #refuse(error: Errno): void {
    this.#counters.failedRequests++
    this.#writer.failure(
      error,
      this.#cookieHigh,
      this.#cookieLow,
      this.#offsetHigh,
      this.#offsetLow,
    )
  }

  /** A request was answered by the session. */
  #progressed(): void {
    if (!this.#announced && !this.#receiving && this.replies.ready) {
      this.#announced = true
      this.#host.repliesReady()
    }
    if (this.#stalled) this.#checkCapacity()
    if (this.#disconnecting) this.#checkDisconnected()
  }

  #checkCapacity(): void {
    if (!this.#stalled || this.#receiving || !this.hasCapacity) return
    this.#stalled = false
    this.#host.capacityAvailable()
  }

  #checkDisconnected(): void {
    if (this.#slots.count === 0) this.#host.disconnected()
  }
}
