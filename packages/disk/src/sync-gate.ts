/**
 * How many `fdatasync`s run at once. Each holds a thread of libuv's pool for as long as the disk takes, and a
 * checkpoint asks for dozens: unbounded they would leave no thread for writes, reads and new segments.
 */

/** Of the pool's four threads one is always there for what does not wait for the disk. */
const RUNNING_MAX = 3

export type SyncTask = (ended: () => void) => void

export class SyncGate {
  #running = 0
  readonly #waiting: SyncTask[] = []

  /** Runs the task now or in its turn; it calls `ended` once. */
  run(task: SyncTask): void {
    if (this.#running >= RUNNING_MAX) {
      this.#waiting.push(task)
      return
    }
    this.#running++
    task(this.#ended)
  }

  readonly #ended = (): void => {
    this.#running--
    const next = this.#waiting.shift()
    if (next === undefined) return
    this.#running++
    next(this.#ended)
  }
}
