/** Blocks of a segment one by one, where the disk does not give all of them at once: single sectors may be bad. */
import { BLOCK_BYTES } from '@holdfast/base'
import type { DiskError, DiskFile } from '@holdfast/base'
import type { HeaderView } from './header-codec.ts'

/** So many blocks that can't be read, and none that can, are no bad sectors: the disk fails. */
export const ALL_UNREADABLE_MIN = 16

/** `unreadable`: indexes in the file of the blocks that were not given. */
export type AroundDone = (error: DiskError | undefined, unreadable: readonly number[]) => void

export interface BlockRange {
  readonly file: DiskFile
  /** Of the first one, in the file. */
  readonly index: number
  readonly count: number
}

/**
 * Reads each block of the range into its place in `target`, whose first block is the range's. One that is not given is
 * zeroes there, and `unreadable` is told its index in the file: false ends the walk with its error.
 */
export function readSingly(
  { file, index, count }: BlockRange,
  target: Uint8Array,
  visitor: {
    unreadable(index: number): boolean
    done(error: DiskError | undefined): void
  },
): void {
  const readFrom = (at: number): void => {
    if (at === count) return visitor.done(undefined)
    const offset = at * BLOCK_BYTES
    file.read(target, offset, BLOCK_BYTES, (index + at) * BLOCK_BYTES, (error) => {
      if (error !== undefined) {
        target.fill(0, offset, offset + BLOCK_BYTES)
        if (!visitor.unreadable(index + at)) return visitor.done(error)
      }
      readFrom(at + 1)
    })
  }
  readFrom(0)
}

/**
 * Reads the range with zeroes where the disk does not give a block: who has its checksum knows it for damage. An error only
 * where the disk fails.
 */
export function readAround(range: BlockRange, target: Uint8Array, done: AroundDone): void {
  const { file, index, count } = range
  file.read(target, 0, count * BLOCK_BYTES, index * BLOCK_BYTES, (failure) => {
    if (failure === undefined) return done(undefined, [])
    const unreadable: number[] = []
    readSingly(range, target, {
      unreadable: (block) => unreadable.push(block) < Math.max(count, ALL_UNREADABLE_MIN),
      done: (error) => done(error, unreadable),
    })
  })
}

/** A batch as a walk has read it. */
export interface ReadBatch {
  readonly header: HeaderView
  /** Hold its payload from `offset` on, and its header before. */
  readonly bytes: Uint8Array
  readonly offset: number
  /** Indexes in the file of blocks that were not given. */
  readonly unreadable: ReadonlySet<number>
}

/**
 * Writes a batch again at `index` of its file, with the very bytes that were read, but for blocks that were not given: the disk
 * may give them later. The bytes may be used again at once. `done` may be called at once.
 */
export function rewriteReadable(
  file: DiskFile,
  index: number,
  { header, bytes, offset, unreadable }: ReadBatch,
  done: (error: DiskError | undefined) => void,
): void {
  const count = 1 + header.payloadBlocks
  const start = offset - BLOCK_BYTES
  let open = 1
  let failure: DiskError | undefined
  const ended = (error: DiskError | undefined): void => {
    failure ??= error
    if (--open === 0) done(failure)
  }
  for (let from = 0, to = 0; from < count; from = to + 1) {
    for (to = from; to < count && !unreadable.has(index + to); ) to++
    if (to === from) continue
    open++
    const copy = bytes.slice(start + from * BLOCK_BYTES, start + to * BLOCK_BYTES)
    if (file.write([copy], (index + from) * BLOCK_BYTES, ended)) ended(undefined)
  }
  ended(undefined)
}
