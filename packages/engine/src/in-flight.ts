/** Batches that are sealed and not yet committed, with the requests that wait for them. */
import { copyBytes, empty, type Lsn } from '@holdfast/base'
import type { PieceSink } from '@holdfast/frontend'
import type { Batch } from '@holdfast/volume-log'

/** One batch's requests as parallel arrays, reused with their capacity. */
export class BatchRequests {
  readonly sinks: PieceSink[] = []
  readonly seqs: number[] = []
  /** Where the payload lies in the batch's buffer; -1: no payload, or kept in `originals`. */
  readonly payloadStarts: number[] = []
  readonly lengths: number[] = []
  readonly fuas: boolean[] = []
  /** When it was submitted, ms; for the latency histogram. */
  readonly startedAt: number[] = []
  /** What an unaligned write brought, by index: its blocks in the batch hold more than that. */
  readonly originals = new Map<number, Uint8Array>()
  count = 0
  /** One of them at least asks for more than the page caches. */
  anyFua = false

  add(
    sink: PieceSink,
    seq: number,
    payloadStart: number,
    length: number,
    fua: boolean,
    startedAt: number,
  ): void {
    const at = this.count++
    this.sinks[at] = sink
    this.seqs[at] = seq
    this.payloadStarts[at] = payloadStart
    this.lengths[at] = length
    this.fuas[at] = fua
    if (fua) this.anyFua = true
    this.startedAt[at] = startedAt
  }

  clear(): void {
    this.count = 0
    this.anyFua = false
    empty(this.sinks)
    if (this.originals.size > 0) this.originals.clear()
  }
}

export interface InFlightBatch {
  batch: Batch
  lsn: Lsn
  endLsn: Lsn
  requests: BatchRequests
  written: boolean
}

/** First in, first out. */
export class InFlight {
  readonly #entries: (InFlightBatch | undefined)[] = []
  #head = 0
  readonly #spare: BatchRequests[] = []

  get head(): InFlightBatch | undefined {
    return this.#entries[this.#head]
  }
  get empty(): boolean {
    return this.#head === this.#entries.length
  }

  takeRequests(): BatchRequests {
    return this.#spare.pop() ?? new BatchRequests()
  }

  push(entry: InFlightBatch): void {
    this.#entries.push(entry)
  }

  shift(): InFlightBatch | undefined {
    const entry = this.#entries[this.#head]
    if (entry === undefined) return undefined
    this.#entries[this.#head++] = undefined
    if (this.#head === this.#entries.length) {
      empty(this.#entries)
      this.#head = 0
    } else if (this.#head > 1024) {
      this.#entries.splice(0, this.#head)
      this.#head = 0
    }
    return entry
  }

  recycle(requests: BatchRequests): void {
    requests.clear()
    if (this.#spare.length < 64) this.#spare.push(requests)
  }

  *[Symbol.iterator](): Generator<InFlightBatch> {
    for (let at = this.#head; at < this.#entries.length; at++) {
      const entry = this.#entries[at]
      if (entry !== undefined) yield entry
    }
  }
}

/** Gives every request of a batch back to its session, with what it brought. */
export function returnRequests(batch: Batch, requests: BatchRequests): void {
  for (let at = 0; at < requests.count; at++) {
    const payload = payloadOf(batch, requests, at)
    requests.sinks[at]?.pieceReturned(requests.seqs[at] as number, payload)
  }
}

/** A copy of what one write of a batch brought; undefined where it brought nothing. */
export function payloadOf(batch: Batch, requests: BatchRequests, at: number): Uint8Array | undefined {
  const start = requests.payloadStarts[at] as number
  const length = requests.lengths[at] as number
  return requests.originals.get(at) ?? (start < 0 ? undefined : copyBytes(batch.buffer, start, start + length))
}
