/** Tables for people, JSON for scripts. */
import Table from 'cli-table3'
import type { Terminal } from './terminal.ts'

const INVISIBLE = Object.fromEntries(
  [
    'top',
    'top-mid',
    'top-left',
    'top-right',
    'bottom',
    'bottom-mid',
    'bottom-left',
    'bottom-right',
    'left',
    'left-mid',
    'mid',
    'mid-mid',
    'right',
    'right-mid',
    'middle',
  ].map((part) => [part, '']),
)

/** Columns two blanks apart, no lines, nothing cut. */
export function formatTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const table = new Table({
    ...(head.length > 0 ? { head: [...head] } : {}),
    chars: { ...INVISIBLE, middle: '  ' },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  })
  for (const row of rows) table.push([...row])
  return table
    .toString()
    .split('\n')
    .map((line) => `${line.trimEnd()}\n`)
    .join('')
}

/** `name:  value` lines; an undefined value leaves its line out. */
export function formatFields(fields: Readonly<Record<string, string | undefined>>): string {
  const rows = Object.entries(fields).flatMap(([name, value]) => {
    return value === undefined ? [] : [[`${name}:`, value]]
  })
  return rows.length === 0 ? '' : formatTable([], rows)
}

export function formatLabels(labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels).map(([key, value]) => `${key}=${value}`)
  return pairs.length === 0 ? '-' : pairs.sort().join(',')
}

export function printJson(terminal: Terminal, value: unknown): void {
  terminal.out(`${JSON.stringify(value, null, 2)}\n`)
}
