/** Time and randomness as they are in the world; the simulator has its own. */
import { randomBytes, randomInt } from 'node:crypto'
import { type Clock, instant, type Random, type Scheduler } from '@holdfast/base'

/** CLOCK_MONOTONIC: counts while the process is stopped, not while the machine sleeps. */
export const systemClock: Clock = {
  now: () => instant(performance.now()),
  wallMs: () => Date.now(),
}

/**
 * `soon` collects tasks and runs them right after the code that asked, before any later event: writes that came in
 * one piece of input make one append. Not `setImmediate`: a whole round of the event loop per write halves the rate at
 * depth 1.
 */
export function createScheduler(): Scheduler {
  let queue: (() => void)[] = []
  const drain = (): void => {
    const tasks = queue
    queue = []
    let next = 0
    try {
      while (next < tasks.length) tasks[next++]?.()
    } finally {
      // Only after a throw: what had been asked for still happens, should the process live on.
      if (next < tasks.length) {
        if (queue.length === 0) setImmediate(drain)
        queue.unshift(...tasks.slice(next))
      }
    }
  }
  return {
    after(ms, task) {
      const timer = setTimeout(task, ms)
      return () => clearTimeout(timer)
    },
    soon(task) {
      if (queue.push(task) === 1) process.nextTick(drain)
    },
  }
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
