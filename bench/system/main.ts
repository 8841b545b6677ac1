/**
 * `npm run bench`: fio against Holdfast and its peers, side by side, rounds interleaved.
 *
 * Every target is started and ended by the benchmark, prefilled, and speaks NBD over a unix socket. Results
 * go to `bench/results/TIME` unless `--out` says where else; `npm run bench:report` makes the page of them.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { openLatencyOfHost } from '@holdfast/storage-node'
import { withHost } from '../bed/host.ts'
import { options } from '../bed/options.ts'
import { summary } from './report.ts'
import { chooseRows } from './rows.ts'
import { runAll } from './runner.ts'
import { soak } from './soak.ts'
import { ALONE, chooseTargets } from './targets/index.ts'

const values = options({
  rounds: { type: 'string', default: '5' },
  seconds: { type: 'string', default: '3' },
  /**
   * MiB of each volume: all copies of all targets should fit into memory together, with up to 1.25 GiB of spare segments
   * for each copy of ours. Where they don't, who has most files on this one machine pays most for it.
   */
  size: { type: 'string', default: '256' },
  targets: { type: 'string', default: '' },
  rows: { type: 'string', default: '' },
  /** Processors sleep no more than a busy node of ours lets them, all the time, whoever is measured. */
  awake: { type: 'boolean', default: false },
  /** Only `nbdkit` and ours: a dozen servers at rest take a tenth of a small machine, and whoever needs most threads feels it. */
  alone: { type: 'boolean', default: false },
  /** Minutes: looks for pauses instead. */
  soak: { type: 'string' },
  out: { type: 'string' },
})

const list = (text: string): readonly string[] => text.split(',').filter((part) => part !== '')

function positive(name: string, text: string): number {
  const value = Number(text)
  if (Number.isFinite(value) && value > 0) return value
  throw new Error(`--${name} ${text}: write a number greater than 0`)
}

const kindOf = ({ awake, alone }: { readonly awake: boolean; readonly alone: boolean }): string =>
  (awake ? '-awake' : '') + (alone ? '-alone' : '')
const say = (line: string): void => void process.stderr.write(`${line}\n`)
const time = new Date().toISOString().replaceAll(':', '-')
const out = values.out ?? new URL(`../results/${time}`, import.meta.url).pathname

async function measure(): Promise<void> {
  const settings = {
    rounds: positive('rounds', values.rounds),
    seconds: positive('seconds', values.seconds),
    sizeMiB: positive('size', values.size),
    targets: chooseTargets(values.alone && values.targets === '' ? ALONE : list(values.targets)),
    rows: chooseRows(list(values.rows)),
    awake: values.awake,
    alone: values.alone,
    out,
  }
  mkdirSync(out, { recursive: true })
  const latency = settings.awake ? openLatencyOfHost() : undefined
  latency?.limit(true)
  const measured = withHost(async (host) => {
    const results = await runAll(host, settings, say)
    writeFileSync(join(out, `results${kindOf(settings)}.json`), JSON.stringify(results, null, 1))
    process.stdout.write(summary(results))
    say(`raw results: ${out}`)
  })
  await measured.finally(() => latency?.close())
}

if (values.soak === undefined) await measure()
else await soak(positive('soak', values.soak), list(values.targets), positive('size', values.size), out, say)
