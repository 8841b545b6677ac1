/**
 * Compaction as the primary does it: live blocks of mostly dead segments are appended anew, a little at a time until
 * there is nothing left to do.
 *
 * Invariant: one relocation follows another, whoever asks for more meanwhile. What streams over the volume kills most of
 * those blocks itself if it is given the time.
 */
import { BLOCK_BYTES, type Scheduler } from '@holdfast/base'
import type { Batch, RelocationPlan, RelocationRun, ReplicaLog } from '@holdfast/volume-log'

/** So few that a client's write never waits long behind them, here or at a secondary. */
const RELOCATED_BLOCKS = 16
/** Between two relocations. */
const RELOCATION_PAUSE_MS = 2

export interface RelocationHost {
  /** Whether it may append what no client asked for. */
  readonly mayRelocate: boolean
  appendRelocation(batch: Batch): void
}

export class Relocations {
  readonly #log: ReplicaLog
  readonly #scheduler: Scheduler
  readonly #host: RelocationHost
  readonly #blocksMax: number
  #busy = false

  constructor(log: ReplicaLog, scheduler: Scheduler, segmentBlocks: number, host: RelocationHost) {
    this.#log = log
    this.#scheduler = scheduler
    this.#host = host
    this.#blocksMax = Math.min(RELOCATED_BLOCKS, segmentBlocks - 1)
  }

  /** From the beginning of one relocation to the end of the pause behind it. */
  get busy(): boolean {
    return this.#busy
  }

  /** Relocates until nothing is left; does nothing where that is under way. */
  begin(): void {
    if (this.#busy || !this.#host.mayRelocate) return
    const plan = this.#log.compactionWork(this.#blocksMax)
    if (plan === undefined) return
    this.#busy = true
    readRelocation(this.#log, plan, this.#append)
  }

  readonly #append = (batch: Batch | undefined): void => {
    // Asking for room may make a segment ready, in a log that is being closed, too.
    if (batch === undefined || !this.#host.mayRelocate || this.#log.canAppend(batch.payloadBlocks, true) !== 'yes') {
      batch?.release()
      this.#busy = false
      return
    }
    this.#host.appendRelocation(batch)
    this.#scheduler.after(RELOCATION_PAUSE_MS, this.#next)
  }

  readonly #next = (): void => {
    this.#busy = false
    this.begin()
  }
}

/**
 * Reads the blocks of a plan into a batch that appends them anew.
 *
 * What the page cache has is read at once: a thread for each of the few blocks of a plan would cost more than the copy, and
 * take a processor from the requests meanwhile.
 *
 * @param done Called at once perhaps. `undefined`: a block could not be read; scrub and repair see to it, compaction passes on.
 */
function readRelocation(
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
