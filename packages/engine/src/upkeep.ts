/**
 * When a log has its rounds of upkeep: every `maintenanceMs` while it grows and for a while after. Ticks see to it where a
 * copy is ticked; a secondary that follows rests, so its first append begins a timer.
 */
import type { Instant } from '@holdfast/base'
import type { ReplicaLog } from '@holdfast/volume-log'
import type { NodeContext } from './context.ts'

/** Rounds without growth after which the next can wait: one sees that the log is quiet, one frees what that lets go. */
const CALM_ROUNDS = 2
/** A timer may be so much early by another clock than its own: the round would be left out. */
const EARLY_MS_MAX = 2

export class Upkeep {
  readonly #context: NodeContext
  readonly #due: () => ReplicaLog | undefined
  #lastAt: Instant
  #timing = false

  /** `due` is called where it is time for a round, and calls `round`. It returns the log, or undefined where there is none any more. */
  constructor(context: NodeContext, due: () => ReplicaLog | undefined) {
    this.#context = context
    this.#due = due
    this.#lastAt = context.clock.now()
  }

  /** Does a round if it is time. */
  round(log: ReplicaLog | undefined): void {
    const { clock, settings, rests } = this.#context
    const now = clock.now()
    if (now - this.#lastAt < settings.maintenanceMs - EARLY_MS_MAX) return
    this.#lastAt = now
    log?.maintenance(rests.take)
  }

  /** The log of a copy that may rest grows. */
  grows(): void {
    if (this.#timing) return
    this.#timing = true
    this.#context.scheduler.after(this.#context.settings.maintenanceMs, this.#elapsed)
  }

  readonly #elapsed = (): void => {
    this.#timing = false
    const log = this.#due()
    if (log !== undefined && log.quietRounds < CALM_ROUNDS) this.grows()
  }
}
