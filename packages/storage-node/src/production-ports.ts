/** Time and randomness as they are in the world; the simulator has its own. */
import { randomBytes, randomInt } from 'node:crypto'
import { type Clock, instant, type Random, type Scheduler } from '@holdfast/base'
import { atEndOfTurn } from '@holdfast/direct-socket'

/** CLOCK_MONOTONIC: counts while the process is stopped, not while the machine sleeps. */
export const systemClock: Clock = {
  now: () => instant(performance.now()),
  wallMs: () => Date.now(),
}

/** Milliseconds on CLOCK_MONOTONIC at which this thread's `performance.now()` was 0. */
export function clockOrigin(): number {
  let best = { bracket: Number.POSITIVE_INFINITY, origin: 0 }
  // The thread may lose its core between the two looks: then the bracket is wide, and another try is closer.
  for (let i = 0; i < CLOCK_TRIES && best.bracket > CLOCK_ERROR_MS; i++) {
    const before = performance.now()
    const [seconds, nanoseconds] = process.hrtime()
    const bracket = performance.now() - before
    if (bracket < best.bracket) best = { bracket, origin: seconds * 1000 + nanoseconds / 1e6 - before - bracket / 2 }
  }
  return best.origin
}
const CLOCK_TRIES = 1_000
const CLOCK_ERROR_MS = 0.02

/**
 * The clock of the thread whose origin that is, read in this one: a lease's end is compared in other threads than the one
 * that renews it, and Node does not promise that threads count from the same moment.
 */
export function clockOfThread(origin: number): Clock {
  const shift = clockOrigin() - origin
  return { now: () => instant(performance.now() + shift), wallMs: () => Date.now() }
}

/**
 * `soon` runs its tasks right after the code that asked, before any later event: writes that came in one piece of input
 * make one append. Not `setImmediate`: a whole round of the event loop per write halves the rate at depth 1.
 */
export const systemScheduler: Scheduler = {
  after(ms, task) {
    const timer = setTimeout(task, ms)
    return () => clearTimeout(timer)
  },
  soon: atEndOfTurn,
}

const UINT48_COUNT = 2 ** 48

export const cryptoRandom: Random = {
  // The range of randomInt is smaller by one than what the port allows.
  below: (bound) => (bound >= UINT48_COUNT ? randomBytes(6).readUIntBE(0, 6) : randomInt(bound)),
  hex: (digits) =>
    randomBytes(Math.ceil(digits / 2))
      .toString('hex')
      .slice(0, digits),
}
