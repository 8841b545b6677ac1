/**
 * Until when the lease of the process is certainly alive, in memory that all its threads read (I8).
 *
 * Not by message: a thread that is behind with its messages would go by what it was told last, and a value that only
 * the main thread moves can grow old, which is the safe side, but never young.
 *
 * Invariant: `read(serial)` gives what was published for that lease or nothing. A thread that has not heard yet that its
 * lease is gone and another one held must not take the new one's time for that of the old, whose keys have vanished.
 */
import { type BootInstant, bootInstant } from '@holdfast/base'

const SERIAL = 0
const UNTIL = 1
const NEVER = bootInstant(Number.NEGATIVE_INFINITY)
/** Stands for a lease that does not end. */
const FOREVER_MICROSECONDS = 2n ** 62n

export class LeaseMemory {
  readonly buffer: SharedArrayBuffer
  readonly #words: BigInt64Array

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(16)) {
    this.buffer = buffer
    this.#words = new BigInt64Array(buffer)
  }

  /** A lease begins or ends: nothing is known of this one, and nothing of the one before holds any more. */
  begin(serial: number): void {
    // In this order: whoever reads a time of this lease finds its number afterwards.
    Atomics.store(this.#words, SERIAL, BigInt(serial))
    Atomics.store(this.#words, UNTIL, 0n)
  }

  publish(until: BootInstant): void {
    const microseconds = until === Number.POSITIVE_INFINITY ? FOREVER_MICROSECONDS : BigInt(Math.max(0, Math.floor(until * 1000)))
    Atomics.store(this.#words, UNTIL, microseconds)
  }

  read(serial: number): BootInstant {
    const microseconds = Atomics.load(this.#words, UNTIL)
    if (Atomics.load(this.#words, SERIAL) !== BigInt(serial) || microseconds === 0n) return NEVER
    return bootInstant(microseconds === FOREVER_MICROSECONDS ? Number.POSITIVE_INFINITY : Number(microseconds) / 1000)
  }
}
