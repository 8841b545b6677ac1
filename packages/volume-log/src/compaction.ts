/** Which live blocks to append anew, so that nearly dead segments become free (primary only). */
import type { Lsn } from '@holdfast/base'
import type { LogCore } from './log-core.ts'

export interface RelocationRun {
  readonly logicalBlock: number
  readonly blockCount: number
  /** Where the run lies now, one block after the other. */
  readonly oldLsn: Lsn
}
export interface RelocationPlan {
  readonly segment: number
  readonly blockCount: number
  readonly runs: readonly RelocationRun[]
}

export class Compaction {
  readonly #core: LogCore
  constructor(core: LogCore) {
    this.#core = core
  }
  work(_maxBlocks: number): RelocationPlan | undefined {
    return this.#core.usable ? undefined : undefined
  }
}
