/** Time and randomness as they are in the world; the simulator has its own. */
import { randomBytes, randomInt } from 'node:crypto'
import { native } from '@holdfast/addon'
import { bootInstant, type Clock, instant, type Random, type Scheduler } from '@holdfast/base'
import { atEndOfTurn } from '@holdfast/direct-socket'

export const systemClock: Clock = {
  now: () => instant(performance.now()),
  sinceBoot: () => bootInstant(native.millisecondsSinceBoot()),
  wallMs: () => Date.now(),
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
