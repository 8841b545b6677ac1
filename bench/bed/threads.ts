/** CPU time of the single threads of processes. */
import { readdirSync, readFileSync } from 'node:fs'
import { TICKS_PER_SECOND } from './process-cost.ts'

/** By thread ID. Threads that end are forgotten. */
export function threadCpuSeconds(pids: readonly number[]): ReadonlyMap<string, number> {
  const times = new Map<string, number>()
  for (const pid of pids) {
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      try {
        const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'latin1')
        const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
        times.set(thread, (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND)
      } catch {
        // It has ended since it was listed.
      }
    }
  }
  return times
}

/** What each thread has used since `before`, the busiest first. */
export function threadShares(
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
): readonly number[] {
  return [...after].map(([thread, time]) => time - (before.get(thread) ?? 0)).sort((a, b) => b - a)
}
