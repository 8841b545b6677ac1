import type { ReadPieces } from './ports/disk.ts'

/** `Disk.tryReadPieces` of a disk that has no call for several files: one by one. */
export function tryReadOneByOne(pieces: ReadPieces, target: Uint8Array): boolean {
  const { count, files, positions, blockCounts, targetOffsets, crcs } = pieces
  let crcIndex = 0
  for (let i = 0; i < count; i++) {
    const blockCount = blockCounts[i] ?? 0
    const read = files[i]?.tryReadVerified(target, targetOffsets[i] ?? 0, blockCount, positions[i] ?? 0, crcs, crcIndex)
    if (read !== blockCount) return false
    crcIndex += blockCount
  }
  return true
}
