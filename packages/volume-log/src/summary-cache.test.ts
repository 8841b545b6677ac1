import { expect, it } from 'vitest'
import { SummaryCache, type SummaryHolder } from './summary-cache.ts'

const holder = (): SummaryHolder => ({ summary: undefined })

it('gives the oldest up where the limit is passed, and counts what is left', () => {
  const cache = new SummaryCache(3 * 16 * 4)
  const holders = Array.from({ length: 5 }, holder)
  for (const each of holders) cache.begin(each, new Uint32Array(16))
  expect(holders.map(({ summary }) => summary?.length)).toEqual([undefined, undefined, 16, 16, 16])
  expect(cache.bytes).toBe(3 * 16 * 4)
  cache.remove(holders[3] as SummaryHolder)
  cache.remove(holders[0] as SummaryHolder)
  expect(cache.bytes).toBe(2 * 16 * 4)
  cache.begin(holders[0] as SummaryHolder, new Uint32Array(16))
  expect(holders.map(({ summary }) => summary !== undefined)).toEqual([true, false, true, false, true])
})

it('counts one that takes the place of another once', () => {
  const cache = new SummaryCache(1 << 20)
  const one = holder()
  const summary = new Uint32Array(8)
  cache.begin(one, new Uint32Array(8))
  cache.begin(one, summary)
  expect(one.summary).toBe(summary)
  expect(cache.bytes).toBe(32)
})

it('keeps none that is larger than the limit', () => {
  const cache = new SummaryCache(31)
  const one = holder()
  cache.begin(one, new Uint32Array(8))
  expect([one.summary, cache.bytes]).toEqual([undefined, 0])
})
