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
/** Beside clients: 64 headers decoded at once are a tenth of a millisecond. */
const READ_BYTES_MAX = 256 * 1024

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

/** A segment being emptied. */
interface Victim {
  readonly segment: Segment
  /**
   * What was written there: logical block plus one at each index, 0 where there is none. Another segment's as soon as this one
   * is freed.
   */
  readonly written: Uint32Array | Float64Array
  /** Where to go on. */
  index: number
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
    // Not freed since.
    if (victim !== undefined && core.segments.get(victim.segment.number) === victim.segment) {
      const plan = this.#plan(victim, Math.max(1, maxBlocks))
      if (plan !== undefined) return plan
      this.#planned.set(victim.segment.number, core.appendedLsn)
    }
    this.#victim = undefined
    const next = this.#choose()
    if (next?.summary !== undefined) this.#victim = { segment: next, written: next.summary, index: 0 }
    else if (next !== undefined) this.#scan(next)
    return undefined
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
    // Not a summary: a block of any number may be in a header.
    const written = new Float64Array(geometry.segmentBlocks)
    const finish = (): void => {
      segments.release(segment)
      this.#scanning = false
      this.#victim = { segment, written, index: 0 }
    }
    segments.open(segment, (error, file) => {
      if (file === undefined || error !== undefined) return finish()
      const baseLsn = segment.number * geometry.segmentBlocks
      const range = { file, baseLsn, fromIndex: 0, endIndex: geometry.segmentBlocks, readBytesMax: READ_BYTES_MAX }
      new BatchScan(core.checksum, { ...range, seed: geometry.seed, payload: false, resync: true, pastUnreadable: true }, {
        batch: (header) => {
          collect(header, written, header.lsn - baseLsn + 1)
          return true
        },
        end: finish,
      }).run()
    })
  }

  /** Live runs from where the last plan ended: blocks that lie one after the other in the volume and in the log. */
  #plan(victim: Victim, maxBlocks: number): RelocationPlan | undefined {
    const { map, geometry } = this.#core
    const { segment, written } = victim
    const runs: RelocationRun[] = []
    const baseLsn = segment.number * geometry.segmentBlocks
    const baseEntry = this.#core.entryOf(baseLsn)
    let blockCount = 0
    while (victim.index < written.length && blockCount < maxBlocks && runs.length < RUNS_MAX) {
      const index = victim.index
      const first = written[index] as number
      const limit = Math.min(written.length - index, maxBlocks - blockCount)
      let count = 0
      while (count < limit && first > 0 && written[index + count] === first + count) {
        if (map.get(first - 1 + count) !== baseEntry + index + count) break
        count++
      }
      if (count > 0) runs.push({ logicalBlock: first - 1, blockCount: count, oldLsn: lsn(baseLsn + index) })
      blockCount += count
      victim.index += Math.max(1, count)
    }
    return runs.length > 0 ? { segment: segment.number, blockCount, runs } : undefined
  }
}

/** Fills in what a header says was written from `index` on. */
function collect(header: HeaderView, written: Float64Array, index: number): void {
  let at = index
  for (let i = 0; i < header.recordCount; i++) {
    const operation = header.recordOp(i)
    if (operation !== op.WRITE && operation !== op.RELOCATE) continue
    const first = header.recordLogical(i) + 1
    const count = header.recordBlocks(i)
    for (let block = 0; block < count; block++) written[at + block] = first + block
    at += count
  }
}
