import { faultRun } from '@holdfast/simulator'
import { tableChecksum } from '../../packages/volume-log/src/testing/crc32c.ts'
const from = Number(process.argv[2] ?? 1), count = Number(process.argv[3] ?? 1)
let bad = 0, acks = 0, elections = 0
const t = Date.now()
for (let seed = from; seed < from + count; seed++) {
  let r
  try { r = faultRun({ seed, checksum: tableChecksum, verbose: count === 1 }) } catch (e) { console.log(seed, 'THROW', (e as Error).stack?.split('\n').slice(0, 4).join(' | ')); bad++; continue }
  acks += r.acknowledgedWrites; elections += r.elections
  if (r.violations.length) { bad++; console.log(seed, r.violations[0], r.virtualMs | 0) }
  if (count === 1) console.log(r.timeline.slice(-Number(process.argv[4] ?? 80)).join('\n'))
}
console.log({ count, bad, acks, elections, ms: Date.now() - t })
