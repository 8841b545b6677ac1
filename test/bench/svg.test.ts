/** The plots are valid XML and show what they were given. */
import { expect, test } from 'vitest'
import { databaseChart, growthChart } from '../../bench/report/charts.ts'
import { barPanel, escape, linePanel, sheet, short } from '../../bench/report/svg.ts'

const SIZE = { width: 300, height: 190 }
const numbers = (text: string, pattern: RegExp): number[] => [...text.matchAll(pattern)].map(([, value]) => Number(value))

test('bars are as long as their values', () => {
  const bars = [10, 5, 0, Number.NaN].map((value, i) => ({ label: `t${i}`, value, strong: i === 0 }))
  const [longest = 0, ...rest] = numbers(barPanel('row', bars, SIZE), /<rect [^>]*width="([\d.]+)"/g)
  expect(longest).toBeGreaterThan(50)
  expect(rest).toEqual([longest / 2, 0, 0])
})

test('a line goes by factors where it is told to', () => {
  const points = [1, 10, 100].map((x) => ({ x, y: x }))
  const [a = 0, b = 0, c = 0] = numbers(linePanel('t', points, SIZE, { title: 'x', logarithmic: true }), /cx="([\d.]+)"/g)
  expect(b - a).toBeCloseTo(c - b, 0)
  const heights = numbers(linePanel('t', points, SIZE, { title: 'x', logarithmic: false }), /cy="([\d.]+)"/g)
  expect(heights).toEqual([...heights].sort((x, y) => y - x))
})

test('text can hold anything', () => {
  expect(escape('a < b & "c"')).toBe('a &lt; b &amp; &quot;c&quot;')
  expect(sheet('<title>', [], 1, SIZE)).not.toContain('<title><title>')
})

test('figures are short', () => {
  expect([0.1234, 999, 12_345, 1_234_567, Number.NaN].map(short)).toEqual(['0.123', '999', '12.3k', '1.23M', '–'])
})

test('every figure and target has its place', () => {
  const part = { key: 'k', title: 'Growth', axis: 'copies', logarithmic: false }
  const chart = growthChart({ ...part, points: [{ x: 1, figures: { 'a/s': 1, b: 2 } }, { x: 2, figures: { 'a/s': 3 } }] })
  for (const title of ['Growth', 'a/s', 'copies']) expect(chart).toContain(`>${title}</t`)
  const samples = [{ row: 'pgbench', target: 'holdfast-2', transactionsPerSecond: 123 }]
  expect(databaseChart({ names: ['holdfast-2'], samples })).toMatch(/pgbench.*holdfast-2.*123/s)
})
