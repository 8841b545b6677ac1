/**
 * How much memory the tables of block checksums may take, over all volumes of a node.
 *
 * A table has 4 bytes per block of its segment and is needed to verify reads from it. Those of segments
 * being appended to are pinned; the others go when the limit is passed, those not used lately first
 * (a clock hand over a use mark: a read only sets a flag).
 */

export interface CrcHolder {
  crcs: Uint32Array | undefined
  crcUsed: boolean
  crcPinned: boolean
}

export class CrcCache {
  readonly #bytesMax: number
  readonly #holders: CrcHolder[] = []
  #bytes = 0
  #hand = 0

  constructor(bytesMax = 32 * 1024 * 1024) {
    this.#bytesMax = bytesMax
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Gives a holder its table; others may lose theirs. */
  add(holder: CrcHolder, table: Uint32Array): void {
    this.remove(holder)
    holder.crcs = table
    holder.crcUsed = true
    this.#holders.push(holder)
    this.#bytes += table.byteLength
    this.#evict(holder)
  }

  remove(holder: CrcHolder): void {
    if (holder.crcs === undefined) return
    const index = this.#holders.indexOf(holder)
    if (index >= 0) this.#take(index)
  }

  #evict(keep: CrcHolder): void {
    // Two rounds: the first may only clear marks. Pinned ones alone may exceed the limit.
    let steps = this.#holders.length * 2
    while (this.#bytes > this.#bytesMax && steps > 0) {
      steps--
      if (this.#hand >= this.#holders.length) this.#hand = 0
      const holder = this.#holders[this.#hand]
      if (holder === undefined) return
      if (holder === keep || holder.crcPinned) this.#hand++
      else if (holder.crcUsed) {
        holder.crcUsed = false
        this.#hand++
      } else this.#take(this.#hand)
    }
  }

  #take(index: number): void {
    const holder = this.#holders[index]
    if (holder === undefined) return
    this.#bytes -= holder.crcs?.byteLength ?? 0
    holder.crcs = undefined
    const last = this.#holders.pop()
    if (last !== undefined && last !== holder) this.#holders[index] = last
  }
}
