/**
 * Until when a primary may serve, and whether it may now (I8).
 *
 * Invariant: what `inTurn` permits came before a look at the clock that permitted it. Requests of one turn of the event loop
 * were all there when it began; none is answered as of a look before that.
 */
import { type BootInstant, bootInstant, type Clock, type Scheduler } from '@holdfast/base'

export class ServingTime {
  readonly #clock: Clock
  readonly #scheduler: Scheduler
  #until: BootInstant = bootInstant(Number.NEGATIVE_INFINITY)
  #lookedInTurn = false

  constructor(clock: Clock, scheduler: Scheduler) {
    this.#clock = clock
    this.#scheduler = scheduler
  }

  /** What is known now; what was permitted in this turn is looked at again. */
  set(until: BootInstant): void {
    this.#until = until
    this.#lookedInTurn = false
  }

  /** By the clock. */
  get now(): boolean {
    return this.#clock.sinceBoot() < this.#until
  }

  /** As of the first look in this turn: a look for each read costs a twentieth of it (decision 39). */
  get inTurn(): boolean {
    if (this.#lookedInTurn) return true
    if (!this.now) return false
    this.#lookedInTurn = true
    this.#scheduler.soon(this.#lookAgain)
    return true
  }

  readonly #lookAgain = (): void => {
    this.#lookedInTurn = false
  }
}
