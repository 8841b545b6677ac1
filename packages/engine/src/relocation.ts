/** Reads the blocks of a relocation plan into a batch that appends them anew (compaction). */
import type { Batch, RelocationPlan, ReplicaLog } from '@holdfast/volume-log'

/** `done(undefined)`: a block could not be read; scrub and repair see to it, compaction passes on. */
export function readRelocation(
  log: ReplicaLog,
  plan: RelocationPlan,
  done: (batch: Batch | undefined) => void,
): void {
  const batch = log.newBatch(plan.blockCount)
  const runs = [...plan.runs]
  const next = (): void => {
    const run = runs.shift()
    if (run === undefined) {
      done(batch)
      return
    }
    const { logicalBlock, blockCount, oldLsn } = run
    const start = batch.addRelocate(logicalBlock, blockCount, oldLsn)
    const target = batch.buffer.subarray(start, start + blockCount * 4096)
    log.readBlockAt(oldLsn, blockCount, target, (error) => {
      if (error === undefined) {
        next()
        return
      }
      batch.release()
      done(undefined)
    })
  }
  next()
}
