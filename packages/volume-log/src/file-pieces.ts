/** A file in memory as pieces one behind the other: the map of a large volume is larger than one array of bytes may be. */
import { assert, type Checksum } from '@holdfast/base'

export class FilePieces {
  readonly length: number
  readonly #pieces: readonly Uint8Array[]
  /** Where each begins, and behind the last where that ends. */
  readonly #starts: readonly number[]

  constructor(pieces: readonly Uint8Array[]) {
    const starts = [0]
    let length = 0
    for (const piece of pieces) starts.push((length += piece.length))
    this.length = length
    this.#pieces = pieces
    this.#starts = starts
  }

  /** A copy of the bytes `[start, end)`, at the beginning of a buffer of its own. */
  copy(start: number, end: number): Uint8Array {
    const copy = new Uint8Array(end - start)
    let at = 0
    this.#each(start, end, (bytes) => {
      copy.set(bytes, at)
      at += bytes.length
    })
    return copy
  }

  /** CRC32C of the bytes `[start, end)`. */
  crc32c(checksum: Checksum, start: number, end: number): number {
    let crc = 0
    this.#each(start, end, (bytes) => {
      crc = checksum.crc32c(bytes, 0, bytes.length, crc)
    })
    return crc
  }

  #each(start: number, end: number, take: (bytes: Uint8Array) => void): void {
    assert(start >= 0 && start <= end && end <= this.length, 'bytes of the file', { start, end, length: this.length })
    for (let index = this.#pieceOf(start), at = start; at < end; index++) {
      const piece = this.#pieces[index] as Uint8Array
      const from = this.#starts[index] as number
      const bytes = piece.subarray(at - from, Math.min(piece.length, end - from))
      take(bytes)
      at += bytes.length
    }
  }

  /** The last piece that begins at or before `position`. */
  #pieceOf(position: number): number {
    let low = 0
    let high = this.#pieces.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if ((this.#starts[middle] as number) <= position) low = middle
      else high = middle - 1
    }
    return low
  }
}
