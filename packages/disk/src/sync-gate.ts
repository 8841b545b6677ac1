/**
 * How many `fdatasync`s run at once. Each holds a thread of libuv's pool for as long as the disk takes, and a
 * checkpoint asks for dozens: unbounded they would leave no thread for writes, reads and new segments.
 */
import { native } from './native.ts'

/** More at once don't make a disk faster. */
const RUNNING_MAX = 3
/** What libuv takes where the environment does not say. */
const POOL_THREADS = 4

/**
 * How many may run at once in each of `shardCount` threads that share the pool: of its threads one is always there for
 * what does not wait for the disk.
 */
export function syncShare(shardCount: number, poolThreads = Number(process.env['UV_THREADPOOL_SIZE'])): number {
  const threads = poolThreads > 0 ? poolThreads : POOL_THREADS
  return Math.max(1, Math.min(RUNNING_MAX, Math.floor((threads - 1) / shardCount)))
}

export type SyncTask = (ended: () => void) => void

export class SyncGate {
  readonly #runningMax: number
  #running = 0
  readonly #waiting: SyncTask[] = []

  constructor(runningMax = RUNNING_MAX) {
    this.#runningMax = runningMax
  }

  /** `fdatasync` on a thread, now or in its turn. See `native.datasync` for the range. */
  datasync(fd: number, position: number, length: number, done: (error: unknown) => void): void {
    this.run((ended) => {
      native.datasync(fd, position, length, (error) => {
        ended()
        done(error)
      })
    })
  }

  /** Runs the task now or in its turn; it calls `ended` once. */
  run(task: SyncTask): void {
    this.#waiting.push(task)
    this.#next()
  }

  #next(): void {
    if (this.#running >= this.#runningMax) return
    const task = this.#waiting.shift()
    if (task === undefined) return
    this.#running++
    task(this.#ended)
  }

  readonly #ended = (): void => {
    this.#running--
    this.#next()
  }
}
