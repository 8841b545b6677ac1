import type { BootInstant, Instant } from '../numbers.ts'

/** Time as the state machines see it. The simulator's is virtual. */
export interface Clock {
  /**
   * Monotonic milliseconds with fractions; keeps counting while the process is stopped, and stands still while the machine
   * sleeps: whoever was waited for could not be heard then.
   */
  now(): Instant
  /** The same, counting while the machine sleeps: leases and promises end meanwhile (I8). The same in all threads of a process. */
  sinceBoot(): BootInstant
  /** Wall clock, milliseconds since 1970: for people only, never for a decision. */
  wallMs(): number
}

/** Runs something later on the same thread. Never inside the call that asked for it. */
export interface Scheduler {
  /** Runs `task` once after `ms`; the returned function cancels it (harmless when it has run). */
  after(ms: number, task: () => void): () => void
  /** Runs `task` at the end of this turn of the event loop, before any later input. */
  soon(task: () => void): void
}

/** Randomness as the state machines see it; seeded in the simulator. */
export interface Random {
  /** An integer in [0, bound). `bound` at most 2^48. */
  below(bound: number): number
  /** `digits` lower-case hexadecimal digits. */
  hex(digits: number): string
}
