/** What a run of the chaos harness is asked to do. */
import { parseArgs } from 'node:util'

export const WORKLOAD_NAMES = ['blocks', 'ext4', 'sqlite'] as const
export type WorkloadName = (typeof WORKLOAD_NAMES)[number]

export interface Options {
  readonly minutes: number
  /** Names of nemeses; empty: all. */
  readonly only: readonly string[]
  readonly seed: number
  readonly out: string
  readonly nodes: number
  readonly workloads: readonly WorkloadName[]
  /** Each nemesis once, then the end, whatever the minutes. */
  readonly once: boolean
  /** Faults that last, last at least so many seconds. */
  readonly hold: number
  readonly loopback: boolean
  readonly keep: boolean
  readonly program: string
}

export const USAGE = `usage: npm run chaos -- [options]
  --minutes N          how long (default 10); the fault that has begun is brought to its end
  --once               every chosen nemesis once, instead
  --only a,b           these nemeses only (--list shows them)
  --seed N             of victims and contents (default: from the clock; printed)
  --out DIR            where the report goes (default test/chaos/results/<time>)
  --nodes N            storage hosts (default 3)
  --workloads a,b      of ${WORKLOAD_NAMES.join(', ')} (default: all)
  --hold N             faults that last, last at least N seconds
  --loopback           no namespaces, even as root
  --keep               keep the data of the nodes after a violation, and say where
  --program FILE       the holdfast program (default: this checkout's)
  --list               names the nemeses
`

/** Throws an Error that names what is wrong. */
export function readOptions(args: readonly string[]): Options & { readonly list: boolean; readonly help: boolean } {
  const { values } = parseArgs({
    args: [...args],
    options: {
      minutes: { type: 'string', default: '10' },
      only: { type: 'string', default: '' },
      seed: { type: 'string' },
      out: { type: 'string' },
      nodes: { type: 'string', default: '3' },
      hold: { type: 'string', default: '0' },
      workloads: { type: 'string', default: WORKLOAD_NAMES.join(',') },
      program: { type: 'string' },
      once: { type: 'boolean', default: false },
      loopback: { type: 'boolean', default: false },
      keep: { type: 'boolean', default: false },
      list: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const number = (name: 'minutes' | 'nodes' | 'hold', least: number): number => {
    const value = Number(values[name])
    if (!(value >= least)) throw new Error(`--${name} must be a number from ${least}: ${values[name]}`)
    return value
  }
  const stamp = new Date().toISOString().replace(/[:.]/g, '-').slice(0, 19)
  const here = new URL('.', import.meta.url).pathname
  const seed = Number(values.seed ?? Date.now() % 1_000_000)
  if (!Number.isSafeInteger(seed) || seed < 0) throw new Error(`--seed must be a whole number: ${values.seed}`)
  return {
    minutes: number('minutes', 0),
    only: list(values.only),
    seed,
    out: values.out ?? `${here}results/${stamp}`,
    nodes: number('nodes', 3),
    workloads: list(values.workloads).map(workloadName),
    once: values.once,
    hold: number('hold', 0),
    loopback: values.loopback,
    keep: values.keep,
    program: values.program ?? new URL('../../packages/cli/bin/holdfast.js', import.meta.url).pathname,
    list: values.list,
    help: values.help,
  }
}

function list(text: string): string[] {
  return text.split(',').filter((part) => part !== '')
}

function workloadName(name: string): WorkloadName {
  const found = WORKLOAD_NAMES.find((one) => one === name)
  if (found === undefined) throw new Error(`there is no workload ${name}: choose of ${WORKLOAD_NAMES.join(', ')}`)
  return found
}
