/** What a run leaves behind: a table for who watches, files for later. */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Journal } from './journal.ts'
import type { Options } from './options.ts'
import { htmlReport } from './report-html.ts'
import type { Run } from './runner.ts'

/** Fields of report.json. */
export interface Report {
  readonly seed: number
  /** False when it was interrupted. */
  readonly complete: boolean
  readonly seconds: number
  /** Nemeses that this machine does not allow, and why. */
  readonly leftOut: readonly string[]
  readonly violations: readonly string[]
  readonly operations: Readonly<Record<string, number>>
  readonly blocks: HistoryCounts | undefined
  readonly faults: Journal['faults']
  /** Answers per second of the run. */
  readonly series: Readonly<Record<string, readonly number[]>>
}

interface HistoryCounts {
  readonly reads: number
  readonly acknowledgedWrites: number
  /** Requests never answered. */
  readonly unknown: number
  readonly errors: number
}

/** Writes the report and prints its table; the exit code. */
export function writeReport(run: Run, options: Options, complete: boolean, leftOut: readonly string[]): number {
  const { journal } = run
  const history = run.blocks?.history
  const report: Report = {
    seed: options.seed,
    complete,
    seconds: Number(journal.now.toFixed(1)),
    leftOut,
    violations: journal.violations,
    operations: Object.fromEntries([...journal.series.keys()].map((name) => [name, journal.operations(name)])),
    blocks: history && {
      reads: history.checker.reads,
      acknowledgedWrites: history.checker.acknowledgedWrites,
      unknown: history.unknown,
      errors: history.errors,
    },
    faults: journal.faults,
    series: Object.fromEntries(journal.series),
  }
  const counts = Object.entries({ ...report.operations, ...report.blocks }).map(([name, count]) => `${count} ${name}`)
  writeFileSync(join(options.out, 'report.json'), `${JSON.stringify(report, undefined, 1)}\n`)
  const facts = {
    seed: String(report.seed),
    seconds: String(report.seconds),
    answers: counts.join(', '),
    'left out': leftOut.join('; ') || 'nothing',
    ...(complete ? {} : { incomplete: 'interrupted' }),
  }
  writeFileSync(join(options.out, 'report.html'), htmlReport(journal, facts))
  for (const line of table(journal)) journal.say(line)
  journal.say(`answers: ${counts.join(', ')}`)
  const bad = journal.violations.length
  if (bad === 0) rmSync(join(options.out, 'logs'), { recursive: true, force: true })
  journal.say(`${bad} violations${complete ? '' : ', interrupted'}; seed ${options.seed}; report in ${options.out}`)
  return bad > 0 || !complete ? 1 : 0
}

function table({ faults, series }: Journal): string[] {
  const seconds = (ms: number): string => (ms / 1000).toFixed(1)
  const names = [...series.keys()]
  const rows = faults.map(({ name, pauses, wholeAt, endedAt, violations }) => [
    name,
    ...names.map((workload) => {
      const { hit = 0, others = 0 } = pauses[workload] ?? {}
      return `${seconds(others)}${hit > 0 ? ` / ${seconds(hit)}` : ''}`
    }),
    wholeAt === undefined ? 'never' : (wholeAt - endedAt).toFixed(1),
    String(violations.length),
  ])
  const head = ['fault', ...names.map((name) => `pause ${name}`), 'redundant after', 'violations']
  const all = [head, ...rows]
  const widths = head.map((_, i) => Math.max(...all.map((row) => (row[i] ?? '').length)))
  const lines = all.map((row) => row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  ').trimEnd())
  return ['', 'seconds; a pause after the slash: of clients at the hosts that were hit', ...lines, '']
}
