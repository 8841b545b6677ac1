/**
 * How many `fdatasync`s run at once: as many as have a thread of their own (decision 38), since a checkpoint asks for dozens,
 * and more at once don't make a disk faster.
 */
import { native } from '@holdfast/addon'

export type SyncTask = (ended: () => void) => void

export class SyncGate {
  #running = 0
  readonly #waiting: SyncTask[] = []

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
    if (this.#running >= native.syncThreads) return
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
