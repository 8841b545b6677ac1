/** How V8 collects the garbage of a node (decision 26). */
import { setFlagsFromString } from 'node:v8'

/**
 * How far the old generation may grow beyond what the last collection of everything left, in percent of that, before the
 * next one begins. V8's own rule leaves a small heap 8 MiB, which is less than the young generation of a busy node has
 * (16 MiB): then it is always about to be full, and one collection of everything follows another.
 */
const GROWTH_PERCENT = 300

/** For all threads of the process, whenever they were started: V8 looks at it at the end of each such collection. */
export function collectLessOften(): void {
  setFlagsFromString(`--heap-growing-percent=${GROWTH_PERCENT}`)
}
