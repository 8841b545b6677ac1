/**
 * Makes the log durable. One flush runs, all that ask meanwhile share the next one (I3); the first one of a turn does not
 * wait for others of that turn. Where segments were used again
 * on the word of a soft checkpoint, a durable checkpoint behind them comes first: without it nothing above is durable.
 */
import { assert } from '@holdfast/base'
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
  #syncs = 0
  /** Writes a durable checkpoint. Set by who makes checkpoints, which need this flusher themselves. */
  closeHole: (done: (error: DiskError | undefined) => void) => void = (done) => done(undefined)

  constructor(core: LogCore) {
    this.#core = core
  }

  flush(done: FlushDone): void {
    this.#waiting.push(done)
    if (this.#busy) return
    this.#busy = true
    // Before anything else that this turn still does: the disk is what everybody waits for. Not where nothing is left to
    // do, which would call back from inside the call.
    if (!this.#core.hasHole && this.#core.segments.anyDirty) this.#round()
    else this.#core.scheduler.soon(this.#start)
  }

  get busy(): boolean {
    return this.#busy || this.#syncs > 0
  }

  /** Calls back, at once perhaps, when no flush is under way. */
  whenIdle(callback: () => void): void {
    if (this.busy) this.#idle.push(callback)
    else callback()
  }

  /** Everything written so far goes to the disk, and nothing is promised: for the checkpoint that a flush waits for. */
  sync(done: (error: DiskError | undefined) => void): void {
    assert(this.#outstanding === 0, 'sync beside a flush')
    this.#syncs++
    let outstanding = 1
    let failure = this.#core.failure
    const ended = (error: DiskError | undefined): void => {
      failure ??= error
      if (--outstanding > 0) return
      this.#syncs--
      if (failure !== undefined) this.#core.fail(failure)
      done(failure)
      this.#announceIdle()
    }
    this.#syncDirty(() => {
      outstanding++
      return ended
    })
    this.#core.scheduler.soon(() => ended(undefined))
  }

  readonly #start = (): void => {
    if (!this.#core.hasHole) return this.#round()
    this.closeHole((error) => {
      if (error === undefined) return this.#round()
      // Not even begun: what was durable is so still, and the next flush tries again.
      const waiting = this.#waiting
      this.#waiting = []
      this.#busy = false
      for (const done of waiting) done(error, this.#core.durableLsn)
      this.#announceIdle()
    })
  }

  #round(): void {
    const core = this.#core
    assert(!core.hasHole, 'flush over a hole in the log')
    const running = this.#waiting
    this.#waiting = this.#running
    this.#running = running
    this.#target = core.writtenLsn
    core.flushes++
    core.cutSinceFlush = Number.POSITIVE_INFINITY
    this.#error = core.failure
    this.#outstanding = 1
    this.#syncDirty(() => {
      this.#outstanding++
      return this.#ended
    })
    this.#ended(undefined)
  }

  #syncDirty(begin: () => (error: DiskError | undefined) => void): void {
    const { segments } = this.#core
    for (const segment of segments.dirty) {
      const { file } = segment
      if (file === undefined) continue
      segments.markClean(segment)
      const ended = begin()
      segments.retain(segment)
      file.datasync((error) => {
        if (error === undefined) segment.nameOwed = false
        segments.release(segment)
        ended(error)
      })
    }
  }

  readonly #ended = (error: DiskError | undefined): void => {
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
    this.#announceIdle()
  }

  #announceIdle(): void {
    if (this.busy || this.#idle.length === 0) return
    for (const callback of this.#idle.splice(0)) callback()
  }
}
