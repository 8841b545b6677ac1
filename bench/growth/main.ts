/**
 * `npm run bench:growth`: what throughput, open time and memory cost as volumes, their number, their clients,
 * their age and their copies grow. JSON, tables and plots go to `bench/results/TIME` or `--out`.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Host } from '../bed/host.ts'
import { options } from '../bed/options.ts'
import { growthChart } from '../report/charts.ts'
import { markdown } from '../system/report.ts'
import { describeCommit, describeMachine } from '../system/results.ts'
import { type EndsResult, endsTable, idleLine, measureEnds } from './ends.ts'
import * as parts from './parts.ts'
import { type Part, tableOf } from './points.ts'

const PARTS = {
  size: parts.volumeSize,
  volumes: parts.volumeCount,
  clients: parts.clientCount,
  fragmentation: parts.fragmentation,
  replicas: parts.replicaCount,
}

const values = options({
  parts: { type: 'string', default: [...Object.keys(PARTS), 'ends'].join(',') },
  seconds: { type: 'string', default: '3' },
  rounds: { type: 'string', default: '5' },
  quick: { type: 'boolean', default: false },
  out: { type: 'string' },
})

const say = (line: string): void => void process.stderr.write(`${line}\n`)
let inUse: Host | undefined
const use = (host: Host): void => {
  inUse = host
}
const { quick } = values
const settings = { seconds: Number(values.seconds), rounds: Number(values.rounds), quick, say, use }
const time = new Date().toISOString().replaceAll(':', '-')
const out = values.out ?? new URL(`../results/${time}`, import.meta.url).pathname
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    say(`${signal}: stopping everything`)
    void Promise.resolve(inUse?.close()).then(() => process.exit(130))
  })
}

const done: Part[] = []
let ends: EndsResult | undefined
mkdirSync(out, { recursive: true })
for (const name of values.parts.split(',')) {
  if (name === 'ends') {
    ends = await measureEnds(settings)
    process.stdout.write(`Both ends\n\n${markdown(endsTable(ends))}\n\n${idleLine(ends)}\n\n`)
  } else {
    const run = Object.entries(PARTS).find(([key]) => key === name)?.[1]
    if (run === undefined) throw new Error(`no part ${name}: there are ${Object.keys(PARTS).join(', ')} and ends`)
    const part = await run(settings)
    done.push(part)
    process.stdout.write(`${part.title}\n\n${markdown(tableOf(part))}\n\n`)
    writeFileSync(join(out, `growth-${part.key}.svg`), growthChart(part))
  }
  // After every part, so that what is measured is kept when a later one fails.
  const facts = { commit: describeCommit(), takenAt: new Date().toISOString(), machine: describeMachine() }
  const { seconds, rounds } = settings
  const file = { ...facts, settings: { seconds, rounds, quick }, parts: done, ends }
  writeFileSync(join(out, 'growth.json'), JSON.stringify(file, null, 1))
}
say(`raw results: ${out}`)
