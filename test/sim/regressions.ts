/**
 * Schedules that once found a mistake, and which: kept whole, so that they outlive a change of what a seed stands for.
 * `npm run sim -- --plan FILE` plays one of them.
 */
import { readFileSync } from 'node:fs'
import type { RunPlan } from '@holdfast/simulator'

export interface Regression {
  readonly found: string
  readonly plan: RunPlan
}

export const REGRESSIONS = JSON.parse(
  readFileSync(new URL('regressions.json', import.meta.url), 'utf8'),
) as readonly Regression[]
