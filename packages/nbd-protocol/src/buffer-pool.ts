/**
 * Buffers for reply bytes, kept for reuse in classes of size: powers of two plus room for the
 * header of a reply, so that a read of a round size still fits its class.
 */
import { assert } from '@holdfast/base'

/** Room beside the power of two; at least the largest header before read data (40 bytes). */
export const HEADER_ROOM_BYTES = 64
/** 256 KiB: where the small replies of one turn gather. */
export const TURN_CLASS = 18
export const TURN_BYTES = 2 ** TURN_CLASS + HEADER_ROOM_BYTES

export class PooledBuffer {
  readonly bytes: Uint8Array
  readonly sizeClass: number
  /** Segments not yet sent plus reads that still fill a part: 0 = may be reused. */
  references = 0
  /** Reads that still fill a part of it. */
  holes = 0
  /** Its whole size counts as outstanding, because a slow read keeps it from being reused. */
  pinned = false

  constructor(bytes: Uint8Array, sizeClass: number) {
    this.bytes = bytes
    this.sizeClass = sizeClass
  }
}

/** Shared by all connections of a server. */
export class BufferPool {
  readonly #allocate: (bytes: number) => Uint8Array
  readonly #keptBytesMax: number
  readonly #classes: PooledBuffer[][] = Array.from({ length: 33 }, () => [])
  #keptBytes = 0

  /**
   * `allocate` need not clear the memory: no byte is sent that was not written before. Memory that begins with a cache
   * line makes large reads faster, whose data begin `HEADER_ROOM_BYTES` behind.
   */
  constructor(allocate: (bytes: number) => Uint8Array, keptBytesMax: number) {
    this.#allocate = allocate
    this.#keptBytesMax = keptBytesMax
  }

  /** Memory kept for reuse, for tests and graphs. */
  get keptBytes(): number {
    return this.#keptBytes
  }

  /** A buffer of at least `bytes`, never smaller than a turn's. */
  take(bytes: number): PooledBuffer {
    const sizeClass =
      bytes <= TURN_BYTES ? TURN_CLASS : 32 - Math.clz32(bytes - HEADER_ROOM_BYTES - 1)
    const kept = (this.#classes[sizeClass] as PooledBuffer[]).pop()
    if (kept !== undefined) {
      this.#keptBytes -= kept.bytes.length
      return kept
    }
    return new PooledBuffer(this.#allocate(2 ** sizeClass + HEADER_ROOM_BYTES), sizeClass)
  }

  /** Takes a buffer back that nobody refers to any more. */
  give(buffer: PooledBuffer): void {
    assert(buffer.references === 0 && buffer.holes === 0, 'a buffer in use is not given back')
    if (this.#keptBytes + buffer.bytes.length > this.#keptBytesMax) return
    this.#keptBytes += buffer.bytes.length
    ;(this.#classes[buffer.sizeClass] as PooledBuffer[]).push(buffer)
  }
}
