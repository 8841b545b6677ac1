/** Sizes derived from a volume's segment size, and the names of its files. */
import { assert, BLOCK_BYTES } from '@holdfast/base'
import type { VolumeId } from '@holdfast/base'

const MIB_BLOCKS = 256

/**
 * Blocks per segment for a volume of `sizeBytes`: about 1/16 of the volume from 4 to 16 MiB, then 1/64 up to 64 MiB, so that a
 * small volume stays small on disk and a large one does not need thousands of files. Whatever streams over a volume pays for
 * each turn to another segment.
 */
export function segmentBlocksFor(sizeBytes: number): number {
  let blocks = 4 * MIB_BLOCKS
  while (blocks < 16 * MIB_BLOCKS && blocks * BLOCK_BYTES * 16 < sizeBytes) blocks *= 2
  while (blocks < 64 * MIB_BLOCKS && blocks * BLOCK_BYTES * 64 < sizeBytes) blocks *= 2
  return blocks
}

export class Geometry {
  readonly segmentBlocks: number
  readonly segmentBytes: number
  /** LSN = segment * 2^shift + index. */
  readonly mask: number
  /** Segments whose blocks a map entry of 32 bits can tell apart; 0 is no entry. */
  readonly slotsMax: number
  /** Low 32 bits of the volume's id; in every header. */
  readonly seed: number
  readonly path: string

  constructor(segmentBlocks: number, volume: VolumeId, path: string) {
    const powerOfTwo = segmentBlocks >= 8 && (segmentBlocks & (segmentBlocks - 1)) === 0
    assert(powerOfTwo, 'segmentBlocks must be a power of two of at least 8', { segmentBlocks })
    this.segmentBlocks = segmentBlocks
    this.segmentBytes = segmentBlocks * BLOCK_BYTES
    this.mask = segmentBlocks - 1
    this.slotsMax = Math.floor((2 ** 32 - 1) / segmentBlocks)
    this.seed = Number.parseInt(volume.slice(-8), 16) >>> 0
    this.path = path
  }

  segmentOf(lsn: number): number {
    return Math.floor(lsn / this.segmentBlocks)
  }

  indexOf(lsn: number): number {
    return lsn % this.segmentBlocks
  }

  segmentPath(segment: number): string {
    return `${this.path}/segment-${String(segment).padStart(12, '0')}`
  }

  checkpointPath(lsn: number): string {
    return `${this.path}/checkpoint-${String(lsn).padStart(16, '0')}`
  }

  /** A checkpoint that is not durable (decision 20). */
  softPath(lsn: number): string {
    return `${this.path}/soft-${String(lsn).padStart(16, '0')}`
  }

  get metaPath(): string {
    return `${this.path}/meta`
  }
}

/** The number behind a prefix of a file name, or -1. */
export function numberInName(name: string, prefix: string): number {
  if (!name.startsWith(prefix)) return -1
  const digits = name.slice(prefix.length)
  return /^\d+$/.test(digits) ? Number(digits) : -1
}
