/** `npm run sim -- [--seed N] [--seeds N]`: seeded fault runs; a failing seed prints its timeline and ends with 1. */
import { parseArgs } from 'node:util'
import { nativeChecksum } from '@holdfast/disk'
import { faultRun } from '@holdfast/simulator'

const { values } = parseArgs({
  options: { seed: { type: 'string', default: '1' }, seeds: { type: 'string', default: '1000' } },
})
const first = Number(values.seed)
const count = process.argv.includes('--seed') && !process.argv.includes('--seeds') ? 1 : Number(values.seeds)
const started = performance.now()
let acknowledged = 0
let elections = 0
let virtualMs = 0
let failed = 0
for (let seed = first; seed < first + count; seed++) {
  const result = faultRun({ seed, checksum: nativeChecksum, verbose: count === 1 })
  acknowledged += result.acknowledgedWrites
  elections += result.elections
  virtualMs += result.virtualMs
  if (count === 1) process.stdout.write(`${result.timeline.join('\n')}\n`)
  if (result.violations.length === 0) continue
  failed++
  process.stdout.write(`seed ${seed}: ${result.violations.join('; ')}\n  again: npm run sim -- --seed ${seed}\n`)
}
const seconds = (performance.now() - started) / 1000
process.stdout.write(
  `${count} seeds, ${failed} failed, ${acknowledged} writes acknowledged, ${elections} elections, ` +
    `${(virtualMs / 60_000).toFixed(1)} simulated minutes in ${seconds.toFixed(1)} s\n`,
)
process.exitCode = failed === 0 ? 0 : 1
