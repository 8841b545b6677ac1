/**
 * How much memory the summaries of segments may take, over all volumes of a node.
 *
 * A summary says for which logical block each block of its segment was written (Rosenblum and Ousterhout, "The design and
 * implementation of a log-structured file system", section 3.3): 4 bytes a block. Compaction needs it once, to find what
 * is live, and would have to read the whole segment for its headers otherwise. The oldest go when the limit is passed.
 *
 * Invariant: a summary is whole. It is begun while its segment is empty, or not at all.
 */

/** Logical blocks from here on can't be said: entry 0 is for what holds none. */
export const SUMMARY_BLOCKS_MAX = 2 ** 32 - 1

export interface SummaryHolder {
  /** Logical block plus one at each index, 0 for headers and what is not committed. Undefined: only its headers know. */
  summary: Uint32Array | undefined
}

export class SummaryCache {
  readonly #bytesMax: number
  /** In the order in which they were begun. */
  readonly #holders = new Set<SummaryHolder>()
  #bytes = 0

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Gives a holder that is empty its summary, all zeroes; others may lose theirs. */
  begin(holder: SummaryHolder, summary: Uint32Array): void {
    this.remove(holder)
    if (summary.byteLength > this.#bytesMax) return
    holder.summary = summary
    this.#holders.add(holder)
    this.#bytes += summary.byteLength
    for (const oldest of this.#holders) {
      if (this.#bytes <= this.#bytesMax) break
      this.remove(oldest)
    }
  }

  remove(holder: SummaryHolder): void {
    if (!this.#holders.delete(holder)) return
    this.#bytes -= holder.summary?.byteLength ?? 0
    holder.summary = undefined
  }
}
