/** A scheduler that runs when a test says so, in virtual milliseconds; and seeded random numbers. */
import type { Scheduler } from '@holdfast/base'

interface Timer {
  readonly at: number
  readonly order: number
  readonly task: () => void
}

export class ManualScheduler implements Scheduler {
  #now = 0
  #order = 0
  #soon: (() => void)[] = []
  #timers: Timer[] = []

  get now(): number {
    return this.#now
  }

  after(ms: number, task: () => void): () => void {
    const timer = { at: this.#now + ms, order: this.#order++, task }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer)
    }
  }

  soon(task: () => void): void {
    this.#soon.push(task)
  }

  /** Runs one task; false when none is left. */
  step(): boolean {
    const soon = this.#soon.shift()
    if (soon !== undefined) {
      soon()
      return true
    }
    let next: Timer | undefined
    for (const timer of this.#timers) {
      if (next === undefined || timer.at < next.at || (timer.at === next.at && timer.order < next.order)) {
        next = timer
      }
    }
    if (next === undefined) return false
    const chosen = next
    this.#timers = this.#timers.filter((timer) => timer !== chosen)
    this.#now = Math.max(this.#now, chosen.at)
    chosen.task()
    return true
  }

  /** Runs until nothing is left to do, or `until` holds. */
  run(until: () => boolean = () => false): void {
    for (let i = 0; i < 5_000_000 && !until(); i++) {
      if (!this.step()) return
    }
  }

  /** Forgets everything: the process died. */
  clear(): void {
    this.#soon = []
    this.#timers = []
  }
}

/** Small seeded generator (mulberry32): the same seed gives the same run. */
export class SeededRandom {
  #state: number
  constructor(seed: number) {
    this.#state = seed >>> 0
  }
  /** An integer in [0, bound). */
  below(bound: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let value = this.#state
    value = Math.imul(value ^ (value >>> 15), value | 1)
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61)
    return Math.floor((((value ^ (value >>> 14)) >>> 0) / 2 ** 32) * bound)
  }
  chance(percent: number): boolean {
    return this.below(100) < percent
  }
}
