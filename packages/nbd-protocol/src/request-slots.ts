/**
 * Unanswered requests of one connection: slot number = the token of the ExportSession.
 *
 * Parallel arrays that grow by doubling, so that a request costs no object and an idle connection
 * little memory.
 */
import type { PooledBuffer } from './buffer-pool.ts'

const INITIAL_SLOTS = 32

export class RequestSlots {
  type = new Uint8Array(INITIAL_SLOTS)
  cookieHigh = new Uint32Array(INITIAL_SLOTS)
  cookieLow = new Uint32Array(INITIAL_SLOTS)
  offsetHigh = new Uint32Array(INITIAL_SLOTS)
  offsetLow = new Uint32Array(INITIAL_SLOTS)
  /** Bytes of the request's data; what it counts towards the bound on outstanding bytes. */
  bytes = new Float64Array(INITIAL_SLOTS)
  /** A read's place in the reply bytes. */
  start = new Uint32Array(INITIAL_SLOTS)
  readonly buffer: (PooledBuffer | undefined)[] = []
  #taken = new Uint8Array(INITIAL_SLOTS)
  #free = new Uint32Array(INITIAL_SLOTS)
  #freeCount = 0
  #count = 0

  constructor() {
    this.#addFree(0, INITIAL_SLOTS)
  }

  /** Number of slots taken. */
  get count(): number {
    return this.#count
  }

  take(): number {
    if (this.#freeCount === 0) this.#grow()
    this.#count++
    const slot = this.#free[--this.#freeCount] as number
    this.#taken[slot] = 1
    return slot
  }

  isTaken(slot: number): boolean {
    return this.#taken[slot] === 1
  }

  release(slot: number): void {
    this.#count--
    this.#taken[slot] = 0
    this.#free[this.#freeCount++] = slot
  }

  #addFree(from: number, to: number): void {
    // The lowest number is on top, so that few slots are touched while few requests are open.
    for (let slot = to - 1; slot >= from; slot--) {
      this.#free[this.#freeCount++] = slot
      this.buffer[slot] = undefined
    }
  }

  #grow(): void {
    const size = this.type.length
    this.type = grown(this.type, new Uint8Array(size * 2))
    this.cookieHigh = grown(this.cookieHigh, new Uint32Array(size * 2))
    this.cookieLow = grown(this.cookieLow, new Uint32Array(size * 2))
    this.offsetHigh = grown(this.offsetHigh, new Uint32Array(size * 2))
    this.offsetLow = grown(this.offsetLow, new Uint32Array(size * 2))
    this.bytes = grown(this.bytes, new Float64Array(size * 2))
    this.start = grown(this.start, new Uint32Array(size * 2))
    this.#taken = grown(this.#taken, new Uint8Array(size * 2))
    this.#free = new Uint32Array(size * 2)
    this.#addFree(size, size * 2)
  }
}

function grown<T extends Uint8Array | Uint32Array | Float64Array>(from: T, to: T): T {
  to.set(from)
  return to
}
