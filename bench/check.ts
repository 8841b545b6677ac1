/**
 * A check of performance that a test can make: Holdfast's one copy against nbdkit in the same seconds on the
 * same machine. Ratios carry from machine to machine, times don't.
 */
import type { Host } from './bed/host.ts'
import { runFio, timed } from './bed/fio.ts'
import { chooseRows } from './system/rows.ts'
import { fill } from './system/runner.ts'
import { median } from './system/statistics.ts'
import { chooseTargets } from './system/targets/index.ts'

export interface CheckOptions {
  readonly rows: readonly string[]
  readonly rounds: number
  readonly seconds: number
  readonly sizeMiB: number
}

/**
 * Of each row, Holdfast's speed over nbdkit's: the median of the rounds. Other work on the machine hits
 * neighbours in time alike, so each round has its own ratio.
 */
export async function speedRatios(host: Host, options: CheckOptions): Promise<ReadonlyMap<string, number>> {
  const targets = chooseTargets(['nbdkit', 'holdfast-1'])
  const started = await Promise.all(targets.map((target) => target.start(host, options.sizeMiB * 2 ** 20)))
  for (const one of started) await fill(host, one, options.sizeMiB)
  const ratios = new Map<string, number[]>()
  for (let round = 0; round < options.rounds; round++) {
    for (const { key, fio } of chooseRows(options.rows)) {
      const speeds: number[] = []
      for (const one of started) {
        const args = [...one.fio, ...fio, `--size=${options.sizeMiB}M`, ...timed(options.seconds)]
        speeds.push((await runFio(host, args)).figures.iops)
      }
      const [nbdkit = Number.NaN, holdfast = Number.NaN] = speeds
      ratios.set(key, [...(ratios.get(key) ?? []), holdfast / nbdkit])
    }
  }
  return new Map([...ratios].map(([key, values]) => [key, median(values)]))
}
