/**
 * Which live blocks to append anew, so that nearly dead segments become free (primary only). The log decides from the
 * segment's summary, or else reads its batch headers; the engine reads the blocks and appends them as `relocate` records.
 */
import { lsn } from '@holdfast/base'
import type { Lsn } from '@holdfast/base'
import { BatchScan } from './batch-scan.ts'
import type { HeaderView } from './header-codec.ts'
import { op } from './header-codec.ts'
import type { LogCore } from './log-core.ts'
import type { Segment } from './segment-set.ts'

/** Records that a plan may need in a batch. */
const RUNS_MAX = 64
/** A segment with more live blocks than this share gains too little. */
const LIVE_SHARE_MAX = 0.9

export interface RelocationRun {
  readonly logicalBlock: number
  readonly blockCount: number
  /** Where the run lies now, one block after the other. */
  readonly oldLsn: Lsn
}

/** Fits one batch when `maxBlocks` does. Valid until other writes commit; stale runs do no harm. */
export interface RelocationPlan {
  readonly segment: number
  readonly blockCount: number
  readonly runs: readonly RelocationRun[]
}

/** A segment being emptied: everything that was written there, three numbers each. */
interface Victim {
  readonly segment: Segment
  /** Logical block, block count, log position. */
  readonly written: readonly number[]
  /** Next triple, and the block inside it. */
  cursor: number
  block: number
}

export class Compaction {
  readonly #core: LogCore
  #victim: Victim | undefined
  #scanning = false
  /** Emptied by plan, with the LSN above which the relocations would lie; until they commit. */
  readonly #planned = new Map<number, number>()

  constructor(core: LogCore) {
    this.#core = core
  }

  /**
   * The next piece of work, or undefined: nothing to do, or another segment has just been chosen (ask again a little
   * later, which also gives a stream the time to kill more of its blocks).
   */
  work(maxBlocks: number): RelocationPlan | undefined {
    const core = this.#core
    if (core.state !== 'ok' || this.#scanning || !this.#wanted()) return undefined
    const victim = this.#victim
    if (victim !== undefined && core.segments.get(victim.segment.number) === victim.segment) {
      const plan = this.#plan(victim, Math.max(1, maxBlocks))
      if (plan !== undefined) return plan
      this.#planned.set(victim.segment.number, core.appendedLsn)
    }
    this.#victim = undefined
    const next = this.#choose()
    if (next?.summary !== undefined) this.#begin(next, this.#runs(next, next.summary))
    else if (next !== undefined) this.#scan(next)
    return undefined
  }

  #begin(segment: Segment, written: readonly number[]): void {
    this.#victim = { segment, written, cursor: 0, block: 0 }
  }

  /** The runs of a summary, blocks that lie one after the other in both the volume and the log. */
  #runs(segment: Segment, summary: Uint32Array): number[] {
    const written: number[] = []
    const baseLsn = segment.number * this.#core.geometry.segmentBlocks
    let index = 0
    while (index < summary.length) {
      const first = summary[index] as number
      const start = index++
      if (first === 0) continue
      while (index < summary.length && summary[index] === first + index - start) index++
      written.push(first - 1, index - start, baseLsn + start)
    }
    return written
  }

  /** Segments with live blocks take much more room than the blocks, or the disk is nearly full. */
  #wanted(): boolean {
    const { geometry, segments, map, settings } = this.#core
    let used = 0
    for (const segment of segments.all) if (this.#full(segment)) used++
    const log = used * geometry.segmentBlocks
    const slack = settings.compactionSlackSegments * geometry.segmentBlocks
    if (log > 2 * map.mappedBlocks + slack) return true
    // The disk is asked last: it costs a system call.
    if (log <= map.mappedBlocks + 2 * geometry.segmentBlocks || segments.hasSpare) return false
    return !segments.hasRoom(false)
  }

  /** Wholly committed, with live blocks, and not emptied by plan already. */
  #full(segment: Segment): boolean {
    const { geometry, map, committedLsn } = this.#core
    if ((segment.number + 1) * geometry.segmentBlocks > committedLsn) return false
    return (map.live[segment.slot] ?? 0) > 0
  }

  #choose(): Segment | undefined {
    const { segments, map, geometry, committedLsn } = this.#core
    for (const [number, mark] of this.#planned) {
      // The relocations are committed (or were given up): what is left counts again.
      if (committedLsn > mark) this.#planned.delete(number)
    }
    let best: Segment | undefined
    let least = geometry.segmentBlocks * LIVE_SHARE_MAX
    for (const segment of segments.all) {
      const live = map.live[segment.slot] ?? 0
      if (live >= least || !this.#full(segment) || this.#planned.has(segment.number)) continue
      least = live
      best = segment
    }
    return best
  }

  #scan(segment: Segment): void {
    const core = this.#core
    const { geometry, segments } = core
    this.#scanning = true
    segments.retain(segment)
    const written: number[] = []
    const finish = (): void => {
      segments.release(segment)
      this.#scanning = false
      this.#begin(segment, written)
    }
    segments.open(segment, (error, file) => {
      if (file === undefined || error !== undefined) return finish()
      const baseLsn = segment.number * geometry.segmentBlocks
      const range = { file, baseLsn, fromIndex: 0, endIndex: geometry.segmentBlocks }
      new BatchScan(core.checksum, { ...range, seed: geometry.seed, payload: false, resync: true }, {
        batch: (header) => {
          collect(header, written)
          return true
        },
        end: finish,
      }).run()
    })
  }

  /** Live runs from the cursor on. */
  #plan(victim: Victim, maxBlocks: number): RelocationPlan | undefined {
    const { map } = this.#core
    const runs: RelocationRun[] = []
    let blockCount = 0
    while (victim.cursor < victim.written.length && blockCount < maxBlocks && runs.length < RUNS_MAX) {
      const logical = (victim.written[victim.cursor] ?? 0) + victim.block
      const left = (victim.written[victim.cursor + 1] ?? 0) - victim.block
      const position = (victim.written[victim.cursor + 2] ?? 0) + victim.block
      const entry = this.#core.entryOf(position)
      const limit = Math.min(left, maxBlocks - blockCount)
      let count = 0
      while (count < limit && map.get(logical + count) === entry + count) count++
      if (count > 0) runs.push({ logicalBlock: logical, blockCount: count, oldLsn: lsn(position) })
      blockCount += count
      this.#advance(victim, Math.max(1, count), left)
    }
    return runs.length > 0 ? { segment: victim.segment.number, blockCount, runs } : undefined
  }

  #advance(victim: Victim, count: number, left: number): void {
    victim.block += count
    if (count < left) return
    victim.cursor += 3
    victim.block = 0
  }
}

function collect(header: HeaderView, written: number[]): void {
  let position = header.lsn + 1
  for (let i = 0; i < header.recordCount; i++) {
    const operation = header.recordOp(i)
    if (operation !== op.WRITE && operation !== op.RELOCATE) continue
    written.push(header.recordLogical(i), header.recordBlocks(i), position)
    position += header.recordBlocks(i)
  }
}
