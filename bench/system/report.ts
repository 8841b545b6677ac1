/** Tables in Markdown from the results of a run. */
import { judge, judgeTails, TAIL_AT_MOST } from './bars.ts'
import { type Results, type Sample, series } from './results.ts'
import { median, type Spread } from './statistics.ts'

export type Table = readonly (readonly string[])[]

/** The first line is the head. */
export function markdown(table: Table): string {
  const [head = [], ...rest] = table
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map((_, i) => (i === 0 ? '---' : '--:'))), ...rest.map(line)].join('\n')
}

/** Three significant digits, with thousands apart. */
export function figure(value: number): string {
  if (!Number.isFinite(value)) return '–'
  return value >= 100 ? Math.round(value).toLocaleString('en-US') : String(Number(value.toPrecision(3)))
}

/** The median, and in brackets the least and the most. */
export function spread(of: Spread | undefined): string {
  if (of === undefined) return '–'
  return `${of.median.toFixed(2)} (${of.min.toFixed(2)}–${of.max.toFixed(2)})`
}

type Field = Exclude<keyof Sample, 'row' | 'target'>

function perTarget(results: Results, cell: (row: string, target: string) => string): Table {
  const names = results.targets.map(({ name }) => name)
  return [
    ['row', ...names],
    ...results.rows.map(({ key, title, unit }) => {
      return [`${title} (${unit})`, ...names.map((name) => cell(key, name))]
    }),
  ]
}

const middle = (results: Results, row: string, target: string, field: Field): number =>
  median(series(results, row, target, field))

export function throughputTable(results: Results): Table {
  return perTarget(results, (row, target) => figure(middle(results, row, target, 'value')))
}

/** p50 / p99 / p99.9 and the longest pause of all rounds. */
export function latencyTable(results: Results): Table {
  return perTarget(results, (row, target) => {
    const of = (field: Field): string => figure(middle(results, row, target, field))
    const longest = Math.max(...series(results, row, target, 'maxUs')) / 1000
    return `${of('p50Us')} / ${of('p99Us')} / ${of('p999Us')} / ${figure(longest)} ms`
  })
}

export function cpuTable(results: Results): Table {
  return perTarget(results, (row, target) => figure(middle(results, row, target, 'cpuSecondsPerMillion')))
}

/** The largest of all rows and rounds. */
export function memoryTable(results: Results): Table {
  return [
    ['target', 'memory (MiB)', 'of it anonymous (MiB)'],
    ...results.targets.map(({ name }) => {
      const most = (field: 'memoryMiB' | 'anonymousMiB'): string => {
        const samples = results.samples.filter(({ target }) => target === name)
        return figure(Math.max(...samples.map((sample) => sample[field])))
      }
      return [name, most('memoryMiB'), most('anonymousMiB')]
    }),
  ]
}

const titleOf = (results: Results, key: string): string =>
  results.rows.find((row) => row.key === key)?.title ?? key

/** Our p99.9 over nbdkit's. */
export function tailTable(results: Results): Table {
  return [
    ['row', 'p99.9', 'ratio (spread)', 'at most', ''],
    ...judgeTails(results).map(({ row, ours, ratio, met }) => {
      const what = `${ours} ÷ nbdkit`
      return [titleOf(results, row), what, spread(ratio), String(TAIL_AT_MOST), met ? 'met' : 'missed']
    }),
  ]
}

/** Our figures over the peers', with what we have set ourselves. */
export function ratioTable(results: Results): Table {
  return [
    ['row', 'ours ÷ theirs', 'ratio (spread)', 'at least', ''],
    ...judge(results).map(({ row, ours, theirs, ratio, atLeast, met }) => {
      return [titleOf(results, row), `${ours} ÷ ${theirs}`, spread(ratio), String(atLeast), met ? 'met' : 'missed']
    }),
  ]
}

export function targetTable(results: Results): Table {
  return [
    ['target', 'version', 'what it is, and where a write is when it is acknowledged'],
    ...results.targets.map(({ name, version, what }) => [name, version, what]),
  ]
}

export function settingsLine(results: Results): string {
  const { commit, takenAt, machine, settings } = results
  const { rounds, seconds, sizeMiB, awake, alone } = settings
  const { cpu, cores, memoryGiB, kernel, node } = machine
  const machineText = `${cores} cores (${cpu}), ${memoryGiB} GiB, Linux ${kernel}, Node ${node}`
  const others = Math.round(median(results.samples.map(({ othersShare }) => othersShare)) * 100)
  return (
    `Commit ${commit}, ${takenAt.slice(0, 16)}Z: ${rounds} interleaved round${rounds === 1 ? '' : 's'} of ` +
    `${seconds} s per row and target, volumes of ${sizeMiB} MiB, filled; ${machineText}. ` +
    (awake === true ? 'Processors were kept from sleeping all the time, for all targets. ' : '') +
    (alone === true ? 'Only these were there. ' : '') +
    `Other processes had ${others} % of the machine meanwhile (median).`
  )
}

export function summary(results: Results): string {
  const part = (title: string, table: Table): string => `${title}\n\n${markdown(table)}\n`
  return [
    `${settingsLine(results)}\n`,
    part('Throughput (medians)', throughputTable(results)),
    part('Latency: p50 / p99 / p99.9 in µs / longest pause', latencyTable(results)),
    part('CPU seconds of the servers per million requests', cpuTable(results)),
    part('Memory', memoryTable(results)),
    part('Ratios', ratioTable(results)),
    part('Tails', tailTable(results)),
    ...results.leftOut.map((line) => `${line}\n`),
  ].join('\n')
}
