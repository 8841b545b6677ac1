/** Time and randomness as they are in the world; the simulator has its own. */
import { randomBytes, randomInt } from 'node:crypto'
import { type Clock, instant, type Random, type Scheduler } from '@holdfast/base'

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

type Task = () => void

/**
 * `soon` collects tasks and runs them right after the code that asked, before any later event: writes that came in
 * one piece of input make one append. Not `setImmediate`: a whole round of the event loop per write halves the rate at
 * depth 1.
 */
export function createScheduler(): Scheduler {
  // Two lists that take turns and keep their size: a turn of the event loop leaves no garbage by this.
  let queue: (Task | undefined)[] = []
  let queued = 0
  let other: (Task | undefined)[] = []
  const drain = (): void => {
    const tasks = queue
    const count = queued
    queue = other
    other = tasks
    queued = 0
    let next = 0
    try {
      while (next < count) {
        const task = tasks[next]
        tasks[next++] = undefined
        task?.()
      }
    } finally {
      // Only after a throw: what had been asked for still happens, should the process live on.
      if (next < count) {
        if (queued === 0) setImmediate(drain)
        queue = [...tasks.slice(next, count), ...queue.slice(0, queued)]
        queued = queue.length
        tasks.length = 0
      }
    }
  }
  return {
    after(ms, task) {
      const timer = setTimeout(task, ms)
      return () => clearTimeout(timer)
    },
    soon(task) {
      queue[queued++] = task
      if (queued === 1) process.nextTick(drain)
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
