/** When upkeep is due. */
import { BLOCK_BYTES } from '@holdfast/base'
import type { LogCore } from './log-core.ts'

/** Enough new log since the last checkpoint, or enough dead segments that only a checkpoint frees. */
export function needsCheckpoint(core: LogCore): boolean {
  const last = core.lastCheckpoint
  const newBytes = (core.committedLsn - (last?.lsn ?? 0)) * BLOCK_BYTES
  if (newBytes === 0) return false
  const { checkpointBytesMin, deadSegmentsMax } = core.settings
  if (newBytes >= Math.max(checkpointBytesMin, 4 * (last?.bytes ?? 0))) return true
  const dead = deadSegments(core)
  if (dead === 0) return false
  // Space that is wanted is worth a checkpoint; else only when it is worth its own bytes.
  if (!core.segments.hasRoom(false) && !core.segments.hasSpare) return true
  const worth = dead * core.geometry.segmentBytes >= 2 * (last?.bytes ?? 0)
  return dead >= deadSegmentsMax && worth
}

/** Segments wholly below the commit position without a live block. */
export function deadSegments(core: LogCore): number {
  const { geometry, segments, map, committedLsn } = core
  let dead = 0
  for (const segment of segments.all) {
    if ((segment.number + 1) * geometry.segmentBlocks > committedLsn) continue
    if ((map.live[segment.slot] ?? 0) === 0) dead++
  }
  return dead
}
