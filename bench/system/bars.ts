/** What Holdfast has set itself: our figure over theirs, row by row. */
import { median, ratio, type Spread } from './statistics.ts'
import { type Results, series } from './results.ts'

export interface Bar {
  readonly ours: string
  /** The best of them counts, the one with the highest median. */
  readonly theirs: readonly string[]
  readonly atLeast: number
  readonly rows: readonly string[]
}

const WRITES = ['write-1', 'write-32', 'write-128']
const READS = ['read-1', 'read-32', 'read-128']
const SEQUENTIAL = ['sequential-write', 'sequential-read']

function replicated(copies: 2 | 3): readonly Bar[] {
  const ours = `holdfast-${copies}`
  const quorum = [`quorum-${copies}`]
  return [
    { ours, theirs: quorum, atLeast: 1, rows: ['write-1', 'read-1', 'sequential-write'] },
    { ours, theirs: quorum, atLeast: 2, rows: ['write-32', 'write-128', 'read-32', 'read-128'] },
    { ours, theirs: quorum, atLeast: 1.5, rows: ['flush'] },
    { ours, theirs: quorum, atLeast: 3, rows: ['mixed'] },
    { ours, theirs: ['holdfast-1'], atLeast: 0.9, rows: [...READS, 'sequential-read'] },
    { ours, theirs: [`gluster-${copies}`], atLeast: 5, rows: WRITES },
    { ours, theirs: [`ceph-${copies}`], atLeast: 12, rows: WRITES },
  ]
}

export const BARS: readonly Bar[] = [
  {
    ours: 'holdfast-1',
    theirs: ['nbdkit', 'nbd-server'],
    atLeast: 1,
    rows: [...WRITES, ...READS, 'mixed', ...SEQUENTIAL],
  },
  { ours: 'holdfast-1', theirs: ['nbdkit', 'nbd-server'], atLeast: 1.3, rows: ['flush'] },
  ...replicated(2),
  ...replicated(3),
]

export interface Verdict {
  readonly row: string
  readonly ours: string
  readonly theirs: string
  readonly atLeast: number
  readonly ratio: Spread
  readonly met: boolean
}

/** Only the bars of which both sides were measured. */
export function judge(results: Results): readonly Verdict[] {
  return BARS.flatMap(({ ours, theirs, atLeast, rows }) =>
    rows.flatMap((row) => {
      const speed = (target: string): number => median(series(results, row, target))
      const rivals = theirs.filter((target) => series(results, row, target).length > 0)
      const best = rivals.sort((a, b) => speed(b) - speed(a))[0]
      if (best === undefined) return []
      const spread = ratio(series(results, row, ours), series(results, row, best))
      if (spread === undefined) return []
      return [{ row, ours, theirs: best, atLeast, ratio: spread, met: spread.median >= atLeast }]
    }),
  )
}

/** Our p99.9 over that of the quickest simple server is at most this, in every row of 4 KiB requests. */
export const TAIL_AT_MOST = 3
const TAIL_OVER = 'nbdkit'

export interface TailVerdict {
  readonly row: string
  readonly ours: string
  readonly ratio: Spread
  readonly met: boolean
}

/** Of every target of ours that was measured beside it. */
export function judgeTails(results: Results): readonly TailVerdict[] {
  const own = results.targets.map(({ name }) => name).filter((name) => name.startsWith('holdfast-'))
  return [...WRITES, ...READS, 'flush'].flatMap((row) =>
    own.flatMap((ours) => {
      const spread = ratio(series(results, row, ours, 'p999Us'), series(results, row, TAIL_OVER, 'p999Us'))
      return spread === undefined ? [] : [{ row, ours, ratio: spread, met: spread.median <= TAIL_AT_MOST }]
    }),
  )
}
