/**
 * Memory for what links receive, used again once the receiver gives it back. A large payload in memory of its own would
 * be new pages for each, and external memory that has the engine collect all of its heap every few dozens of them.
 *
 * Invariant: memory is either kept here, or out with one receiver, or not (any more) the pool's.
 */
import { allocateAligned } from '@holdfast/addon'

/** Smaller ones come out of Node's own slab. */
const POOLED_BYTES_MIN = 4 * 1024
/** The largest write a client may send, with its headers, and the pieces of a rebuild are below. */
const POOLED_BYTES_MAX = 4 * 1024 * 1024
/** Kept for each thread. */
const KEPT_BYTES_MAX = 32 * 1024 * 1024

export class PayloadPool {
  readonly #keptBytesMax: number
  /** By class of size. */
  readonly #kept: Uint8Array[][] = []
  /** Each as its receiver has it: what comes back a second time is nobody's, also when its memory is out once more. */
  readonly #out = new WeakSet<Uint8Array>()
  #keptBytes = 0

  constructor(keptBytesMax: number = KEPT_BYTES_MAX) {
    this.#keptBytesMax = keptBytesMax
  }

  get keptBytes(): number {
    return this.#keptBytes
  }

  /** `length` bytes with anything in them. Whoever never gives them back leaves them to the garbage collector. */
  take(length: number): Buffer {
    if (length < POOLED_BYTES_MIN || length > POOLED_BYTES_MAX) return Buffer.allocUnsafe(length)
    const kept = this.#kept[sizeClass(length)]?.pop()
    if (kept !== undefined) this.#keptBytes -= kept.length
    const { buffer, byteOffset } = kept ?? allocateAligned(classBytes(length))
    const bytes = Buffer.from(buffer as ArrayBuffer, byteOffset, length)
    this.#out.add(bytes)
    return bytes
  }

  /** Nobody may use any of it from now on. What did not come from here, or came back already, is left alone. */
  give(bytes: Uint8Array): void {
    if (!this.#out.delete(bytes)) return
    const memory = new Uint8Array(bytes.buffer, bytes.byteOffset, classBytes(bytes.length))
    if (this.#keptBytes + memory.length > this.#keptBytesMax) return
    this.#keptBytes += memory.length
    ;(this.#kept[sizeClass(memory.length)] ??= []).push(memory)
  }
}

/** One for all links of a thread. */
export const payloadPool = new PayloadPool()

/** Four classes for each power of two: a payload is a round number of blocks and a header block or more. */
function step(length: number): number {
  return 2 ** (29 - Math.clz32(length - 1))
}

function classBytes(length: number): number {
  return Math.ceil(length / step(length)) * step(length)
}

function sizeClass(length: number): number {
  const power = 31 - Math.clz32(length - 1)
  return power * 4 + Math.ceil(length / step(length)) - 5
}
