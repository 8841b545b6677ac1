/** Cuts a byte stream into frames: a header of fixed size that says how long the whole frame is. */
export class FrameReader {
  readonly #headerBytes: number
  readonly #lengthOf: (header: Buffer) => number
  readonly #onFrame: (frame: Buffer) => void
  #partial: Buffer
  #filled = 0
  #total = 0

  /** `lengthOf` gets a header and returns the length of the frame in bytes, header included; it may throw. */
  constructor(headerBytes: number, lengthOf: (header: Buffer) => number, onFrame: (frame: Buffer) => void) {
    this.#headerBytes = headerBytes
    this.#lengthOf = lengthOf
    this.#onFrame = onFrame
    this.#partial = Buffer.alloc(headerBytes)
  }

  push(chunk: Buffer): void {
    let offset = 0
    while (offset < chunk.length) {
      if (this.#filled === 0 && chunk.length - offset >= this.#headerBytes) {
        const total = this.#lengthOf(chunk.subarray(offset, offset + this.#headerBytes))
        if (chunk.length - offset >= total) {
          this.#onFrame(chunk.subarray(offset, offset + total))
          offset += total
          continue
        }
      }
      offset += this.#fill(chunk, offset)
    }
  }

  #fill(chunk: Buffer, offset: number): number {
    const wanted = this.#total === 0 ? this.#headerBytes : this.#total
    const count = chunk.copy(this.#partial, this.#filled, offset, offset + wanted - this.#filled)
    this.#filled += count
    if (this.#filled < wanted) return count
    if (this.#total === 0) {
      this.#total = this.#lengthOf(this.#partial.subarray(0, this.#headerBytes))
      if (this.#total > this.#headerBytes) {
        const whole = Buffer.allocUnsafe(this.#total)
        this.#partial.copy(whole, 0, 0, this.#headerBytes)
        this.#partial = whole
        return count
      }
    }
    const frame = this.#partial
    this.#partial = Buffer.allocUnsafe(this.#headerBytes)
    this.#filled = 0
    this.#total = 0
    this.#onFrame(frame)
    return count
  }
}
