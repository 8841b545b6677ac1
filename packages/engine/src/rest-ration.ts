/**
 * How many steps towards rest (a flush, a checkpoint, the mark of a clean stop) the copies of one engine take at a time:
 * thousands that were written or made together would otherwise come to rest together, and hold up whoever works.
 */
const STEPS_PER_TICK = 2
const STEPS_SAVED_MAX = 8

export class RestRation {
  #left = STEPS_SAVED_MAX

  refill(ticks: number): void {
    this.#left = Math.min(STEPS_SAVED_MAX, this.#left + ticks * STEPS_PER_TICK)
  }

  /** False when a copy must wait for a later round with its next step. */
  readonly take = (): boolean => {
    if (this.#left === 0) return false
    this.#left--
    return true
  }
}
