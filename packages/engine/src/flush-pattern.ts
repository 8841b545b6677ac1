/**
 * Learns after how many batches a volume's client flushes, so that the flush can begin with the last of them: a
 * database that writes its log and flushes it waits for the disk while the write is still being answered.
 *
 * Foretells only what two intervals in a row agree on, and once per flush: a client that stops flushing costs one
 * `fdatasync` for nothing.
 */

/** Who writes more than this between two flushes gains nothing. */
const BATCHES_MAX = 8

export class FlushPattern {
  #sinceFlush = 0
  #lastInterval = 0
  /** 0: nothing is foretold. */
  #expected = 0

  /** True when a flush is expected right behind this batch. */
  batchSealed(): boolean {
    return ++this.#sinceFlush === this.#expected
  }

  flushed(): void {
    const interval = this.#sinceFlush
    // Several who flush the same.
    if (interval === 0) return
    this.#expected = interval === this.#lastInterval && interval <= BATCHES_MAX ? interval : 0
    this.#lastInterval = interval
    this.#sinceFlush = 0
  }
}
