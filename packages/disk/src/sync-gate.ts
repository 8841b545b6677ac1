/**
 * How many `fdatasync`s run at once. Each holds a thread of libuv's pool for as long as the disk takes, and a
 * checkpoint asks for dozens: unbounded they would leave no thread for writes, reads and new segments.
 */
import { native } from './native.ts'

/** Of the pool's four threads one is always there for what does not wait for the disk. */
const RUNNING_MAX = 3

export type SyncTask = (ended: () => void) => void

export class SyncGate {
  #running = 0
  readonly #waiting: SyncTask[] = []

  /** `fdatasync` on a thread, now or in its turn. */
  datasync(fd: number, done: (error: unknown) => void): void {
    this.run((ended) => {
      native.datasync(fd, (error) => {
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
    if (this.#running >= RUNNING_MAX) return
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
