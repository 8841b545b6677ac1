/** The plots of the page. */
import { type Part, titlesOf } from '../growth/points.ts'
import { type Results, type Sample, series } from '../system/results.ts'
import { median } from '../system/statistics.ts'
import { barPanel, barPanelHeight, linePanel, sheet } from './svg.ts'

const COLUMNS = 3
const WIDTH = 300
const LINE_SIZE = { width: WIDTH, height: 190 }

export interface Databases {
  readonly names: readonly string[]
  readonly samples: readonly {
    readonly row: string
    readonly target: string
    readonly transactionsPerSecond: number
  }[]
}

const isOurs = (target: string): boolean => target.startsWith('holdfast')

/** A panel of bars for each row: one bar per target. */
function perRow(results: Results, title: string, field: Exclude<keyof Sample, 'row' | 'target'>): string {
  const names = results.targets.map(({ name }) => name)
  const size = { width: WIDTH, height: barPanelHeight(names.length) }
  const panels = results.rows.map(({ key, title: row, unit }) => {
    const bars = names.map((name) => {
      return { label: name, value: median(series(results, key, name, field)), strong: isOurs(name) }
    })
    return barPanel(field === 'value' ? `${row} (${unit})` : row, bars, size)
  })
  return sheet(title, panels, COLUMNS, size)
}

export function throughputChart(results: Results): string {
  return perRow(results, 'Throughput: more is better', 'value')
}

export function tailChart(results: Results): string {
  return perRow(results, 'p99.9 latency in µs: less is better', 'p999Us')
}

export function cpuChart(results: Results): string {
  return perRow(results, 'CPU seconds of the servers per million requests: less is better', 'cpuSecondsPerMillion')
}

export function databaseChart({ names, samples }: Databases): string {
  const rows = [...new Set(samples.map(({ row }) => row))]
  const size = { width: WIDTH, height: barPanelHeight(names.length) }
  const panels = rows.map((row) => {
    const of = (target: string): number[] =>
      samples
        .filter((sample) => sample.row === row && sample.target === target)
        .map((sample) => sample.transactionsPerSecond)
    const bars = names.map((name) => ({ label: name, value: median(of(name)), strong: isOurs(name) }))
    return barPanel(row, bars, size)
  })
  return sheet('Databases on a mounted volume: transactions per second', panels, 2, size)
}

/** A panel for each figure, since each has its own unit. */
export function growthChart(part: Part): string {
  const panels = titlesOf(part).map((title) => {
    const points = part.points.map(({ x, figures }) => ({ x, y: figures[title] ?? Number.NaN }))
    return linePanel(title, points, LINE_SIZE, { title: part.axis, logarithmic: part.logarithmic })
  })
  return sheet(part.title, panels, COLUMNS, LINE_SIZE)
}
