/** Keeps a slowdown by half from landing unseen. */
import { afterAll, expect, test } from 'vitest'
import { Host } from '../../bench/bed/host.ts'
import { speedRatios } from '../../bench/check.ts'

/** Far below what is reached on a quiet machine, where one copy is about level with nbdkit. */
const LEAST = 0.4

const host = new Host()
afterAll(() => host.close())

test('one copy keeps up with nbdkit at depth 32', { timeout: 60_000 }, async () => {
  const options = { rows: ['write-32', 'read-32'], rounds: 5, seconds: 0.3, sizeMiB: 32 }
  const ratios = await speedRatios(host, options)
  expect([...ratios.keys()]).toEqual(options.rows)
  for (const [row, ratio] of ratios) expect(ratio, `${row}: Holdfast over nbdkit`).toBeGreaterThan(LEAST)
})
