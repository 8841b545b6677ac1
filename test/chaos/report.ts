/** What a run leaves behind: a table for who watches, files for later. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Options } from './options.ts'
import type { Run } from './runner.ts'

/** Writes the report and prints its table; the exit code. */
export async function writeReport(
  run: Run,
  options: Options,
  complete: boolean,
  leftOut: readonly string[],
): Promise<number> {
  const { journal } = run
  const history = run.blocks?.history
  const report = {
    seed: options.seed,
    complete,
    seconds: journal.now,
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
  writeFileSync(join(options.out, 'report.json'), `${JSON.stringify(report, undefined, 1)}\n`)
  for (const line of table(run)) journal.say(line)
  journal.say(JSON.stringify({ ...report, faults: undefined, series: undefined, violations: journal.violations.length }))
  return journal.violations.length > 0 || !complete ? 1 : 0
}

function table({ journal }: Run): string[] {
  const seconds = (ms: number): string => (ms / 1000).toFixed(1)
  const rows = journal.faults.map(({ name, pauses, wholeAt, endedAt, violations }) => [
    name,
    ...[...journal.series.keys()].map((workload) => {
      const { hit = 0, others = 0 } = pauses[workload] ?? {}
      return `${seconds(others)}${hit > 0 ? ` / ${seconds(hit)}` : ''}`
    }),
    wholeAt === undefined ? 'never' : (wholeAt - endedAt).toFixed(1),
    String(violations.length),
  ])
  const head = ['fault', ...[...journal.series.keys()].map((name) => `pause ${name}`), 'redundant after', 'violations']
  const all = [head, ...rows]
  const widths = head.map((_, i) => Math.max(...all.map((row) => (row[i] ?? '').length)))
  return all.map((row) => row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  ').trimEnd())
}
