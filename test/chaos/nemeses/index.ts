import type { Nemesis } from './nemesis.ts'
import { killPrimary, killSecondary, pausePrimary, pauseSecondary, rollingRestart, stutter } from './processes.ts'

/** In the order in which they take their turns. */
export const NEMESES: readonly Nemesis[] = [
  killPrimary,
  killSecondary,
  pausePrimary,
  pauseSecondary,
  stutter,
  rollingRestart,
]
