/** Makes the log durable. One flush runs, all that ask meanwhile share the next one (I3). */
import type { DiskError, Lsn } from '@holdfast/base'
import type { LogCore } from './log-core.ts'

export type FlushDone = (error: DiskError | undefined, durableLsn: Lsn) => void

export class Flusher {
  readonly #core: LogCore
  #running: FlushDone[] = []
  #waiting: FlushDone[] = []
  #idle: (() => void)[] = []
  #busy = false
  #outstanding = 0
  #target = 0
  #error: DiskError | undefined

  constructor(core: LogCore) {
    this.#core = core
  }

  flush(done: FlushDone): void {
    this.#waiting.push(done)
    if (this.#busy) return
    this.#busy = true
    // At the end of the turn: flushes asked for in one turn are one fdatasync.
    this.#core.scheduler.soon(this.#start)
  }

  get busy(): boolean {
    return this.#busy
  }

  /** Calls back, at once perhaps, when no flush is under way. */
  whenIdle(callback: () => void): void {
    if (this.#busy) this.#idle.push(callback)
    else callback()
  }

  readonly #start = (): void => {
    const core = this.#core
    const running = this.#waiting
    this.#waiting = this.#running
    this.#running = running
    this.#target = core.writtenLsn
    core.flushes++
    core.cutSinceFlush = Number.POSITIVE_INFINITY
    this.#error = core.failure
    this.#outstanding = 1
    for (const segment of core.segments.all) {
      const file = segment.file
      if (!segment.dirty || file === undefined) continue
      segment.dirty = false
      this.#outstanding++
      core.segments.retain(segment)
      file.datasync((error) => {
        if (error === undefined) segment.nameOwed = false
        core.segments.release(segment)
        this.#ended(error)
      })
    }
    this.#ended(undefined)
  }

  #ended(error: DiskError | undefined): void {
    if (error !== undefined) this.#error ??= error
    this.#outstanding--
    if (this.#outstanding > 0) return
    const core = this.#core
    const target = Math.min(this.#target, core.cutSinceFlush, core.writtenLsn) as Lsn
    // After a failed fdatasync the kernel may have dropped the pages: never try again, never trust it.
    if (this.#error !== undefined) core.fail(this.#error)
    else if (target > core.durableLsn) core.durableLsn = target
    const finished = this.#running
    this.#running = []
    this.#busy = this.#waiting.length > 0
    if (this.#busy) core.scheduler.soon(this.#start)
    for (const done of finished) done(this.#error, core.durableLsn)
    if (!this.#busy && this.#idle.length > 0) for (const callback of this.#idle.splice(0)) callback()
  }
}
