/** Blocks of a segment one by one, where the disk does not give all of them at once: single sectors may be bad. */
import { BLOCK_BYTES } from '@holdfast/base'
import type { DiskError, DiskFile } from '@holdfast/base'

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
  at = 0,
): void {
  if (at === count) return visitor.done(undefined)
  const offset = at * BLOCK_BYTES
  file.read(target, offset, BLOCK_BYTES, (index + at) * BLOCK_BYTES, (error) => {
    if (error !== undefined) {
      target.fill(0, offset, offset + BLOCK_BYTES)
      if (!visitor.unreadable(index + at)) return visitor.done(error)
    }
    readSingly({ file, index, count }, target, visitor, at + 1)
  })
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

/**
 * Writes blocks again that were read at `index` (in blocks of the file), but for those that were not given: the disk may give
 * them later. The bytes may be used again at once. `done` may be called at once.
 */
export function rewriteReadable(
  file: DiskFile,
  blocks: Uint8Array,
  index: number,
  unreadable: ReadonlySet<number>,
  done: (error: DiskError | undefined) => void,
): void {
  const count = blocks.length / BLOCK_BYTES
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
    const copy = blocks.slice(from * BLOCK_BYTES, to * BLOCK_BYTES)
    if (file.write([copy], (index + from) * BLOCK_BYTES, ended)) ended(undefined)
  }
  ended(undefined)
}
