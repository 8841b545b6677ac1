/**
 * Whether large writes may be done on the calling thread. They are quicker there, until the kernel makes writers wait
 * because more is dirty than the disk keeps up with: then it is for a thread of the pool to wait.
 */

/** So long a write into the page cache takes only where it was made to wait (or where the processor was taken away). */
const HELD_UP_MS = 5
/** Writes in a row that were not, after which the calling thread does them again. */
const QUICK_COUNT = 32

export class HeldUpWrites {
  #heldUp = false
  #quick = 0

  /** They are to be done on a thread. */
  get heldUp(): boolean {
    return this.#heldUp
  }

  /** What one large write took, wherever it was done. */
  took(ms: number): void {
    if (ms >= HELD_UP_MS) {
      this.#heldUp = true
      this.#quick = 0
    } else if (this.#heldUp && ++this.#quick === QUICK_COUNT) {
      this.#heldUp = false
    }
  }
}
