/**
 * The reply bytes of one connection, in the order in which they leave.
 *
 * Small replies are written one behind the other into the *turn buffer*, so that all of a turn is
 * one contiguous piece; a read is answered in place, behind the room for its header. A read that
 * is not done at once leaves a *hole*: the bytes before it are a segment of their own, and the
 * hole becomes one when it is filled.
 *
 * Invariant: a buffer returns to the pool only when no segment of it is unsent and no read fills
 * it.
 */
import { type BufferPool, type PooledBuffer, TURN_BYTES } from './buffer-pool.ts'

/** Late replies up to this size are copied behind the others: cheaper than one more segment. */
const COPY_BYTES_MAX = 16 * 1024

/**
 * So much data are a segment of their own, so that whoever sends them may send them by themselves: on a unix socket that
 * saves an eighth of a read of 1 MiB (decision 40), and below this nothing.
 */
export const DATA_APART_BYTES = 128 * 1024

/** Room for so many segments at first. */
const SEGMENTS = 16
const NOTHING = new Uint8Array(0)

/** Bytes on their way to the client: segment i is `parts[i][bounds[2 * i], bounds[2 * i + 1])`, for i below `count`. */
export interface ReplySegments {
  readonly count: number
  readonly parts: readonly Uint8Array[]
  readonly bounds: Uint32Array
}

/** Parallel arrays instead of an object for each segment; entries are reused. */
class Segments implements ReplySegments {
  count = 0
  readonly buffers: (PooledBuffer | undefined)[] = []
  readonly parts: Uint8Array[] = []
  bounds = new Uint32Array(2 * SEGMENTS)

  push(buffer: PooledBuffer, start: number, end: number): void {
    const index = this.count++
    if (2 * index === this.bounds.length) {
      const bounds = new Uint32Array(4 * index)
      bounds.set(this.bounds)
      this.bounds = bounds
    }
    this.buffers[index] = buffer
    this.parts[index] = buffer.bytes
    this.bounds[2 * index] = start
    this.bounds[2 * index + 1] = end
  }
}

export class ReplyQueue {
  readonly #pool: BufferPool
  #turn: PooledBuffer | undefined
  /** Where the open segment of the turn buffer begins. */
  #openStart = 0
  #used = 0
  #waiting = new Segments()
  #sending = new Segments()
  #waitingBytes = 0
  #sendingBytes = 0
  #pinnedBytes = 0

  constructor(pool: BufferPool) {
    this.#pool = pool
  }

  /** Memory held by replies that the client has not taken yet, and by holes. */
  get heldBytes(): number {
    return this.#waitingBytes + this.#sendingBytes + this.#pinnedBytes
  }

  /** True while there are bytes that `take` would return. */
  get ready(): boolean {
    return this.#waitingBytes > 0
  }

  /** Position of the free part of the turn buffer. */
  get used(): number {
    return this.#used
  }

  /** The turn buffer with room for `bytes` (at most TURN_BYTES) at `used`. */
  room(bytes: number): PooledBuffer {
    const turn = this.#turn
    if (turn !== undefined && this.#used + bytes <= turn.bytes.length) return turn
    if (turn !== undefined) this.#retire(turn)
    const fresh = this.#pool.take(TURN_BYTES)
    this.#turn = fresh
    this.#openStart = 0
    this.#used = 0
    return fresh
  }

  /** The `bytes` at `used` are a reply now. */
  commit(bytes: number): void {
    this.#used += bytes
    this.#waitingBytes += bytes
  }

  /** The `bytes` at `used` are being filled by a read; `fill` or `abandon` follows. */
  leaveHole(bytes: number): void {
    const turn = this.#turn as PooledBuffer
    this.#closeOpen()
    turn.references++
    turn.holes++
    this.#used += bytes
    this.#openStart = this.#used
  }

  /** A buffer of its own, of at least `bytes`, for a large reply; `fill` or `abandon` follows. */
  large(bytes: number): PooledBuffer {
    const buffer = this.#pool.take(bytes)
    buffer.references++
    buffer.holes++
    return buffer
  }

  /** A hole or large buffer holds a whole reply at `[start, end)`, its data from `data` on. */
  fill(buffer: PooledBuffer, start: number, data: number, end: number): void {
    const bytes = end - start
    if (bytes <= COPY_BYTES_MAX) {
      const turn = this.room(bytes)
      if (turn === buffer) turn.bytes.copyWithin(this.#used, start, end)
      else turn.bytes.set(buffer.bytes.subarray(start, end), this.#used)
      this.commit(bytes)
      this.abandon(buffer)
      return
    }
    this.#closeOpen()
    this.#unpin(buffer)
    const apart = start < data && end - data >= DATA_APART_BYTES
    if (apart) {
      buffer.references++
      this.#push(buffer, start, data)
    }
    this.#push(buffer, apart ? data : start, end)
    this.#waitingBytes += bytes
  }

  /** A hole or large buffer will never be sent. */
  abandon(buffer: PooledBuffer): void {
    this.#unpin(buffer)
    this.#release(buffer)
  }

  /**
   * Everything that waits becomes what is being sent. `sent` must follow.
   */
  take(): ReplySegments {
    this.#closeOpen()
    const taken = this.#waiting
    this.#waiting = this.#sending
    this.#sending = taken
    this.#sendingBytes = this.#waitingBytes
    this.#waitingBytes = 0
    return taken
  }

  /** What was being sent has left this process. */
  sent(): void {
    const { buffers, parts, count } = this.#sending
    for (let i = 0; i < count; i++) {
      const buffer = buffers[i] as PooledBuffer
      buffers[i] = undefined
      parts[i] = NOTHING
      this.#release(buffer)
    }
    this.#sending.count = 0
    this.#sendingBytes = 0
    const turn = this.#turn
    if (turn === undefined || turn.references > 0 || this.#openStart < this.#used) return
    this.#turn = undefined
    this.#pool.give(turn)
  }

  /** No reply is sent any more. Buffers that a read or the socket may still use are left alone. */
  close(): void {
    this.#turn = undefined
    this.#waiting = new Segments()
    this.#sending = new Segments()
    this.#waitingBytes = 0
    this.#sendingBytes = 0
    this.#pinnedBytes = 0
  }

  #closeOpen(): void {
    const turn = this.#turn
    if (turn === undefined || this.#openStart === this.#used) return
    turn.references++
    this.#push(turn, this.#openStart, this.#used)
    this.#openStart = this.#used
  }

  #push(buffer: PooledBuffer, start: number, end: number): void {
    this.#waiting.push(buffer, start, end)
  }

  #retire(turn: PooledBuffer): void {
    this.#closeOpen()
    this.#turn = undefined
    if (turn.references === 0) {
      this.#pool.give(turn)
    } else if (turn.holes > 0) {
      turn.pinned = true
      this.#pinnedBytes += turn.bytes.length
    }
  }

  #unpin(buffer: PooledBuffer): void {
    buffer.holes--
    if (buffer.holes > 0 || !buffer.pinned) return
    buffer.pinned = false
    this.#pinnedBytes -= buffer.bytes.length
  }

  #release(buffer: PooledBuffer): void {
    buffer.references--
    if (buffer.references === 0 && buffer !== this.#turn) this.#pool.give(buffer)
  }
}
