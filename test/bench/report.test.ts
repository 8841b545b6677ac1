/** The page keeps its prose, and the model its sums. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { bounds } from '../../bench/report/model.ts'
import { fillPlace } from '../../bench/report/page.ts'

test('only what is between the markers changes', () => {
  const page = 'before\n<!-- begin a -->\nold\n<!-- end a -->\nafter\n'
  const once = fillPlace(page, 'a', 'new\n')
  expect(once).toBe('before\n<!-- begin a -->\n\nnew\n\n<!-- end a -->\nafter\n')
  expect(fillPlace(once, 'a', 'new')).toBe(once)
  expect(() => fillPlace(page, 'b', '')).toThrow('<!-- begin b -->')
})

test('the page has a place for everything that is measured', () => {
  const page = readFileSync(new URL('../../docs/performance.md', import.meta.url), 'utf8')
  const places = ['settings', 'targets', 'ratios', 'tails', 'throughput', 'latency', 'cpu', 'memory', 'databases', 'pauses']
  for (const place of [...places, 'two-volumes', 'growth', 'growth-ends', 'model']) {
    expect(() => fillPlace(page, place, 'x'), place).not.toThrow()
  }
})

const hardware = { cores: 10, network: 1e9, diskWrites: 1e9, diskReads: 4e9 }

test('a node is bounded by CPU, network and disk', () => {
  const write = bounds(hardware, { kind: 'write', bytes: 4096, copies: 3, cpuSeconds: 20e-6 })
  expect(write.cpu).toBeCloseTo(500_000)
  expect(write.network).toBeCloseTo(1e9 / (2 * 4096 * (17 / 16) * 1.06))
  expect(write.disk).toBeCloseTo(1e9 / (3 * 4096 * (17 / 16) * 2))
  expect(bounds(hardware, { kind: 'write', bytes: 4096, copies: 1, cpuSeconds: 1 }).network).toBe(Infinity)
  const read = bounds(hardware, { kind: 'read', bytes: 4096, copies: 3, cpuSeconds: 10e-6 })
  expect(read.cpu).toBeCloseTo(1e6)
  expect(read).toMatchObject({ network: Infinity, disk: 4e9 / 4096 })
})
