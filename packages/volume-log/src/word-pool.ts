/**
 * Arrays of 32-bit words to be used again, for all logs of a node: tables of segments and pages of block maps.
 *
 * Their memory lies outside of V8's heap, and they live long enough to be old objects. A log that is written to gives up
 * a few hundred of them a second; left to V8 they stay until it has looked through its whole heap, and it does so
 * for every 64 MiB of them, with the requests waiting.
 *
 * Invariant: whoever gives an array has the only reference to it, and forgets it.
 */
import { assert } from '@holdfast/base'

export class WordPool {
  readonly #bytesMax: number
  readonly #byLength = new Map<number, Uint32Array[]>()
  #bytes = 0

  /** `bytesMax`: what lies here unused at most. */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  get bytes(): number {
    return this.#bytes
  }

  /** An array of so many zeroes. */
  take(length: number): Uint32Array {
    const used = this.#used(length)
    return used === undefined ? new Uint32Array(length) : used.fill(0)
  }

  /** An array of the same words. */
  copy(words: Uint32Array): Uint32Array {
    const used = this.#used(words.length)
    if (used === undefined) return words.slice()
    used.set(words)
    return used
  }

  give(words: Uint32Array): void {
    const same = this.#byLength.get(words.length) ?? []
    if ((same.length + 1) * words.byteLength > this.#bytesMax) return
    while (this.#bytes + words.byteLength > this.#bytesMax) this.#dropOther(words.length)
    this.#bytes += words.byteLength
    same.push(words)
    this.#byLength.set(words.length, same)
  }

  /** Makes room: what nobody takes any more, of a volume that is gone for instance, must not lie here for good. */
  #dropOther(length: number): void {
    for (const other of this.#byLength.keys()) if (other !== length && this.#used(other) !== undefined) return
    assert(false, 'the pool counts more than it holds', { bytes: this.#bytes })
  }

  #used(length: number): Uint32Array | undefined {
    const words = this.#byLength.get(length)?.pop()
    if (words !== undefined) this.#bytes -= words.byteLength
    return words
  }
}
