/**
 * Reads of a primary that can't be answered where they come: those that must be read from disk, and those that came while
 * no read may be answered.
 *
 * Invariant (I8): a read that came while none may be answered waits until one may, or goes back to its session.
 */
import { type Clock, type Errno, errno } from '@holdfast/base'
import type { PieceSink } from '@holdfast/frontend'
import type { RepairDesk } from './repair-desk.ts'
import type { VolumeCounters } from './statistics.ts'

export interface SlowRead {
  readonly sink: PieceSink
  readonly seq: number
  /** Bytes, as `length` and `targetOffset`. */
  readonly offset: number
  readonly length: number
  readonly target: Uint8Array
  readonly targetOffset: number
  /** When it came, ms. */
  readonly startedAt: number
}

export class SlowReads {
  readonly #repairs: RepairDesk
  readonly #counters: VolumeCounters
  readonly #clock: Clock
  /** Whether the reign has ended. */
  readonly #closed: () => boolean
  #waiting: SlowRead[] = []

  constructor(repairs: RepairDesk, counters: VolumeCounters, clock: Clock, closed: () => boolean) {
    this.#repairs = repairs
    this.#counters = counters
    this.#clock = clock
    this.#closed = closed
  }

  get waiting(): boolean {
    return this.#waiting.length > 0
  }

  /** Until `serveAll`. */
  wait(read: SlowRead): void {
    this.#waiting.push(read)
  }

  /** From disk, mending what is damaged there. */
  serve({ sink, seq, offset, length, target, targetOffset, startedAt }: SlowRead): void {
    this.#repairs.read(offset, length, target, targetOffset, (outcome) => {
      if (outcome === 'elsewhere' || this.#closed()) {
        sink.pieceReturned(seq, undefined)
        return
      }
      const ok = outcome === 'read'
      this.#counters.read.add(length, this.#clock.now() - startedAt)
      if (!ok) this.#counters.read.errors++
      sink.pieceDone(seq, ok ? errno.OK : errno.EIO)
    })
  }

  serveAll(): void {
    if (this.#waiting.length > 0) for (const read of this.#waiting.splice(0)) this.serve(read)
  }

  failAll(error: Errno): void {
    for (const { sink, seq } of this.#waiting.splice(0)) sink.pieceDone(seq, error)
  }

  returnAll(): void {
    for (const { sink, seq } of this.#waiting.splice(0)) sink.pieceReturned(seq, undefined)
  }

  /** Forgets what a session still waits for. */
  forget(sink: PieceSink): void {
    this.#waiting = this.#waiting.filter((read) => read.sink !== sink)
  }
}
