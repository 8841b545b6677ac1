import type { DiskError, Lsn } from '@holdfast/base'
import type { LogCore } from './log-core.ts'

export interface RebuildTarget {
  /** Writes a piece of a segment; pieces of one segment come in order. */
  writeSegment(
    segment: number,
    offsetBytes: number,
    bytes: Uint8Array,
    done: (error: DiskError | undefined) => void,
  ): void
  /** Needed segments that are not whole yet. */
  missing(): number[]
  install(checkpoint: Uint8Array, done: (error: DiskError | undefined) => void): void
  abort(): void
}

export class Rebuild implements RebuildTarget {
  constructor(_core: LogCore, _fork: Lsn, _needed: readonly number[], _installed: () => void) {}
  writeSegment(): void {}
  missing(): number[] {
    return []
  }
  install(): void {}
  abort(): void {}
}
