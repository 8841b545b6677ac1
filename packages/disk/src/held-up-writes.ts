/**
 * Whether large writes may be done on the calling thread. They are quicker there, until the kernel makes writers wait
 * because more is dirty than the disk keeps up with: then it is for a thread of the pool to wait.
 */

/** What is large enough to wait on a thread. */
export const LARGE_WRITE_BYTES_MIN = 256 * 1024
/**
 * So long a write into the page cache takes only where it was made to wait (or where the processor was taken away): of
 * up to 4 MiB, and in proportion of more.
 */
const HELD_UP_MS = 5
const HELD_UP_BYTES = 4 * 1024 * 1024
/** Writes in a row that were not, after which the calling thread does them again. */
const QUICK_COUNT = 32
/** So long after the last large write nothing is known any more: the disk may have caught up. */
const FORGOTTEN_MS = 10_000

export class HeldUpWrites {
  #heldUp = false
  #quick = 0
  #lastAt = 0

  /** They are to be done on a thread. @param now Milliseconds of a clock that never goes back, as for `took`. */
  heldUp(now: number): boolean {
    if (this.#heldUp && now - this.#lastAt > FORGOTTEN_MS) this.#heldUp = false
    return this.#heldUp
  }

  /** What one write of `bytes` took that ended `now`, wherever it was done; what is not large says nothing. */
  took(ms: number, bytes: number, now: number): void {
    if (bytes <= LARGE_WRITE_BYTES_MIN) return
    this.#lastAt = now
    if (ms >= HELD_UP_MS * Math.max(1, bytes / HELD_UP_BYTES)) {
      this.#heldUp = true
      this.#quick = 0
    } else if (this.#heldUp && ++this.#quick === QUICK_COUNT) {
      this.#heldUp = false
    }
  }
}
