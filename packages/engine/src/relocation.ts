/** Reads the blocks of a relocation plan into a batch that appends them anew (compaction). */
import { BLOCK_BYTES } from '@holdfast/base'
import type { Batch, RelocationPlan, RelocationRun, ReplicaLog } from '@holdfast/volume-log'

/**
 * What the page cache has is read at once: a thread for each of the few blocks of a plan would cost more than the copy, and
 * take a processor from the requests meanwhile.
 *
 * @param done Called at once perhaps. `undefined`: a block could not be read; scrub and repair see to it, compaction passes on.
 */
export function readRelocation(
  log: ReplicaLog,
  plan: RelocationPlan,
  done: (batch: Batch | undefined) => void,
): void {
  const batch = log.newBatch(plan.blockCount)
  const { runs } = plan
  let taken = 0
  const next = (): void => {
    while (taken < runs.length) {
      const { logicalBlock, blockCount, oldLsn } = runs[taken++] as RelocationRun
      const start = batch.addRelocate(logicalBlock, blockCount, oldLsn)
      const target = batch.buffer.subarray(start, start + blockCount * BLOCK_BYTES)
      if (log.tryReadBlockAt(oldLsn, blockCount, target)) continue
      log.readBlockAt(oldLsn, blockCount, target, (error) => {
        if (error === undefined) return next()
        batch.release()
        return done(undefined)
      })
      return
    }
    done(batch)
  }
  next()
}
