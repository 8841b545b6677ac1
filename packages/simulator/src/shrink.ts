/** Makes a failing schedule smaller: fewer faults, a shorter run, while something is still violated. */
import type { RunPlan, RunResult } from './fault-run.ts'

/** What was violated, without the numbers and names of this run. */
function kindOf({ violations: [first] }: RunResult): string | undefined {
  return first?.replace(/[0-9]+/g, '').slice(0, 40)
}

/**
 * @param run Plays a plan.
 * @param runsMax After so many runs the best found so far is good enough.
 * @returns The smallest failing run found; `failing` itself when nothing could be left out.
 */
export function shrink(failing: RunResult, run: (plan: RunPlan) => RunResult, runsMax = 200): RunResult {
  let best = failing
  let runs = 0
  const attempt = (plan: RunPlan): boolean => {
    runs++
    const result = run(plan)
    if (kindOf(result) !== kindOf(failing)) return false
    best = result
    return true
  }
  for (let pieces = 2; runs < runsMax; ) {
    const { faults } = best.plan
    const size = Math.max(1, Math.ceil(faults.length / pieces))
    let smaller = false
    for (let first = 0; first < faults.length && runs < runsMax; first += size) {
      const without = faults.filter((_, at) => at < first || at >= first + size)
      if (without.length === faults.length) continue
      if (attempt({ ...best.plan, faults: without })) {
        smaller = true
        break
      }
    }
    if (!smaller && size === 1) break
    pieces = smaller ? Math.max(2, pieces - 1) : pieces * 2
  }
  const last = best.plan.faults.at(-1)
  if (last !== undefined && runs < runsMax && last.atMs + 500 < best.plan.lengthMs) {
    attempt({ ...best.plan, lengthMs: last.atMs + 500 })
  }
  for (const volume of best.plan.volumes) {
    if (best.plan.volumes.length > 1 && volume !== best.plan.volumes[0]) {
      attempt({ ...best.plan, volumes: best.plan.volumes.filter((one) => one !== volume) })
    }
  }
  return best
}
