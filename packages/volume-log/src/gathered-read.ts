/** The runs of blocks that one read needs, of however many segments, to be asked of the disk in one call. */
import { BLOCK_BYTES } from '@holdfast/base'
import type { Disk, DiskFile, ReadPieces } from '@holdfast/base'
import type { Segment } from './segment-set.ts'

/** So much is taken in one call: 256 single blocks are 1 MiB that was written at random. */
const PIECES_MAX = 256
/** A run that is longer than that costs a call of its own little. */
const PIECE_BLOCKS_MAX = 64

export class GatheredRead implements ReadPieces {
  count = 0
  /** Behind `count` are those of reads before: closed ones, perhaps, and small. */
  readonly files: DiskFile[] = []
  readonly positions = new Float64Array(PIECES_MAX)
  readonly blockCounts = new Uint32Array(PIECES_MAX)
  readonly targetOffsets = new Uint32Array(PIECES_MAX)
  readonly crcs = new Uint32Array(PIECES_MAX * PIECE_BLOCKS_MAX)
  #disk: Disk | undefined
  #crcCount = 0

  /** Forgets what a read before has left: one that found something missing ends in the middle. */
  begin(disk: Disk): void {
    this.#disk = disk
    this.#forget()
  }

  #forget(): void {
    this.count = 0
    this.#crcCount = 0
  }

  /**
   * Takes `blockCount` blocks from `index` of a segment on, to be read to `targetOffset`; reads what it has when there is no
   * room for more. False: something is not in the page cache or not right.
   */
  add(segment: Segment, index: number, blockCount: number, target: Uint8Array, targetOffset: number): boolean {
    const { file, crcs } = segment
    if (file === undefined || crcs === undefined) return false
    if (blockCount > PIECE_BLOCKS_MAX) {
      return file.tryReadVerified(target, targetOffset, blockCount, index * BLOCK_BYTES, crcs, index) === blockCount
    }
    if (this.count === PIECES_MAX && !this.finish(target)) return false
    this.files[this.count] = file
    this.positions[this.count] = index * BLOCK_BYTES
    this.blockCounts[this.count] = blockCount
    this.targetOffsets[this.count] = targetOffset
    for (let i = 0; i < blockCount; i++) this.crcs[this.#crcCount + i] = crcs[index + i] ?? 0
    this.#crcCount += blockCount
    this.count++
    return true
  }

  /** Reads what was taken and not read yet. */
  finish(target: Uint8Array): boolean {
    const whole = this.count === 0 || this.#disk?.tryReadPieces(this, target) === true
    this.#forget()
    return whole
  }
}
