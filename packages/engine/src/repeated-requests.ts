/** Requests sent again whose first sending is in the log already: they are answered once that is committed. */
import { type Errno, errno, type Lsn } from '@holdfast/base'
import type { PieceSink } from '@holdfast/frontend'
import type { FlushRounds } from './flush-rounds.ts'

export interface RepeatedRequest {
  /** Below it lies what it asked for. */
  readonly lsn: Lsn
  readonly sink: PieceSink
  readonly seq: number
  readonly fua: boolean
  readonly payload: Uint8Array | undefined
}

export class RepeatedRequests {
  readonly #flushes: FlushRounds
  #waiting: RepeatedRequest[] = []

  constructor(flushes: FlushRounds) {
    this.#flushes = flushes
  }

  get waiting(): boolean {
    return this.#waiting.length > 0
  }

  wait(request: RepeatedRequest): void {
    this.#waiting.push(request)
  }

  answer(committed: Lsn): void {
    if (this.#waiting.length === 0) return
    const ready = this.#waiting.filter((request) => request.lsn <= committed)
    if (ready.length === 0) return
    this.#waiting = this.#waiting.filter((request) => request.lsn > committed)
    for (const { sink, seq, fua, payload } of ready) {
      if (fua) this.#flushes.wait(committed, sink, seq, payload)
      else sink.pieceDone(seq, errno.OK)
    }
  }

  failAll(error: Errno): void {
    for (const { sink, seq } of this.#waiting.splice(0)) sink.pieceDone(seq, error)
  }

  returnAll(): void {
    for (const { sink, seq, payload } of this.#waiting.splice(0)) sink.pieceReturned(seq, payload)
  }
}
