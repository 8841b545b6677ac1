/** The benchmark's arithmetic: medians, ratios, fio's reports, the search for pauses, the bars. */
import { expect, test } from 'vitest'
import { figuresOf } from '../../bench/bed/fio.ts'
import { judge, judgeTails } from '../../bench/system/bars.ts'
import { histogram, readPauses } from '../../bench/system/pauses.ts'
import { figure, markdown } from '../../bench/system/report.ts'
import type { Results, Sample } from '../../bench/system/results.ts'
import { rotated } from '../../bench/system/runner.ts'
import { median, ratio } from '../../bench/system/statistics.ts'

test('a median of an even count is between the middle two', () => {
  expect(median([3, 1, 2])).toBe(2)
  expect(median([4, 1, 3, 2])).toBe(2.5)
  expect(median([])).toBeNaN()
})

test('a ratio is taken round by round', () => {
  expect(ratio([10, 40, 10], [10, 20, 5])).toEqual({ median: 2, min: 1, max: 2 })
  expect(ratio([10], [])).toBeUndefined()
  expect(ratio([10], [0])).toBeUndefined()
})

test('every target is first in some round', () => {
  expect([0, 1, 2, 3].map((round) => rotated(['a', 'b', 'c'], round).join(''))).toEqual(['abc', 'bca', 'cab', 'abc'])
  expect(rotated([], 3)).toEqual([])
})

const side = (iops: number, p999: number) => {
  const clat = { max: p999 * 2, percentile: { '50.000000': 1000, '99.000000': 2000, '99.900000': p999 } }
  return { total_ios: iops * 2, iops, bw_bytes: iops * 4096, clat_ns: clat }
}
const job = { error: 0, job_runtime: 2000, usr_cpu: 25, sys_cpu: 25 }

test('figures of several jobs are added, the worst latency counts', () => {
  const figures = figuresOf([
    { ...job, mixed: side(100, 5000) },
    { ...job, mixed: side(50, 9000) },
  ])
  expect(figures).toMatchObject({ iops: 150, requests: 300, p50Us: 1, p999Us: 9, maxUs: 18, clientCpuSeconds: 2 })
})

test('a flush belongs to its write', () => {
  const flush = { total_ios: 10, lat_ns: side(1, 30_000).clat_ns }
  expect(figuresOf([{ ...job, mixed: side(100, 5000), sync: flush }])).toMatchObject({ p50Us: 2, p999Us: 35 })
})

test('a job that failed is an error', () => {
  expect(() => figuresOf([{ ...job, error: 5, mixed: side(1, 1) }])).toThrow('fio failed with error 5')
  expect(() => figuresOf([])).toThrow('no job')
})

test('pauses are found in the latency log of fio', () => {
  const log = '12, 150000, 1, 4096, 0, 0\n1500, 25000000, 1, 4096, 0, 0\n2500, 700000000, 1, 4096, 0, 0\n'
  const pauses = readPauses(log)
  expect(pauses).toEqual([
    { atSeconds: 1.5, ms: 25 },
    { atSeconds: 2.5, ms: 700 },
  ])
  expect(histogram(pauses).filter((line) => !line.endsWith(': 0'))).toEqual([
    '   20 ms to 30 ms: 1',
    '  500 ms to 1000 ms: 1',
  ])
})

function resultsOf(values: Readonly<Record<string, readonly number[]>>): Results {
  const rest = { p50Us: 1, p99Us: 1, p999Us: 1, maxUs: 1, cpuSecondsPerMillion: 1, clientCpuSecondsPerMillion: 1 }
  const cost = { memoryMiB: 1, anonymousMiB: 1, othersShare: 0 }
  const samples: Sample[] = Object.entries(values).flatMap(([target, series]) =>
    series.map((value, round) => ({ round, row: 'write-1', target, value, ...rest, ...cost })),
  )
  const machine = { cpu: '', cores: 2, memoryGiB: 1, kernel: '', node: '' }
  const settings = { rounds: 2, seconds: 1, sizeMiB: 1 }
  return { commit: '', takenAt: '', machine, settings, targets: [], leftOut: [], rows: [], samples }
}

test('the best peer is the one that counts', () => {
  const results = resultsOf({ 'holdfast-1': [90, 110], nbdkit: [100, 100], 'nbd-server': [50, 50] })
  expect(judge(results)).toMatchObject([{ ours: 'holdfast-1', theirs: 'nbdkit', atLeast: 1, met: true }])
  const slower = resultsOf({ 'holdfast-1': [90, 90], nbdkit: [50, 50], 'nbd-server': [100, 100] })
  expect(judge(slower)).toMatchObject([{ theirs: 'nbd-server', met: false, ratio: { median: 0.9 } }])
})

test('what was not measured is not judged', () => {
  expect(judge(resultsOf({ 'holdfast-1': [1] }))).toEqual([])
  expect(judge(resultsOf({ nbdkit: [1] }))).toEqual([])
})

test('a tail is judged against the simple server of the same rounds', () => {
  const { samples, ...rest } = resultsOf({ nbdkit: [1, 1], 'holdfast-1': [1, 1] })
  const slow = samples.map((sample) => (sample.target === 'nbdkit' ? sample : { ...sample, p999Us: 3 + sample.round }))
  const targets = ['nbdkit', 'holdfast-1'].map((name) => ({ name, copies: 1, what: '', version: '' }))
  const [verdict] = judgeTails({ ...rest, targets, samples: slow })
  expect(verdict).toMatchObject({ row: 'write-1', ours: 'holdfast-1', met: false, ratio: { median: 3.5 } })
  expect(judgeTails({ ...rest, targets, samples })).toMatchObject([{ met: true, ratio: { median: 1 } }])
})

test('tables and figures', () => {
  expect([0.12345, 12.34, 123.4, 12345, Number.NaN].map(figure)).toEqual(['0.123', '12.3', '123', '12,345', '–'])
  expect(markdown([['a', 'b'], ['c', '1']])).toBe('| a | b |\n| --- | --: |\n| c | 1 |')
})
