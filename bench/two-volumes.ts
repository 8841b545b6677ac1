/**
 * `npm run bench:two-volumes`: what two busy volumes do together on one node, against one alone.
 *
 * fio needs about as much CPU as the server, so on a small machine the clients of two volumes take the cores
 * that the second volume should get: the throughput alone says little. So the clients' time is left out: what
 * a node can do is bounded by its busiest thread, and by all its threads together on all cores.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { createVolume, startCluster } from './bed/cluster.ts'
import { overNbd, runFio, timed } from './bed/fio.ts'
import { type Host, withHost } from './bed/host.ts'
import { options } from './bed/options.ts'
import { threadCpuSeconds, threadShares } from './bed/threads.ts'
import { figure, markdown } from './system/report.ts'
import { describeCommit, describeMachine } from './system/results.ts'
import { chooseRows, type Row } from './system/rows.ts'
import { fill } from './system/runner.ts'
import { median } from './system/statistics.ts'

const values = options({
  rounds: { type: 'string', default: '5' },
  seconds: { type: 'string', default: '3' },
  size: { type: 'string', default: '512' },
  rows: { type: 'string', default: 'write-32,read-32,mixed' },
  out: { type: 'string' },
})

export interface Load {
  readonly iops: number
  /** Requests per second, were there no clients on the machine. */
  readonly capacity: number
  /** The busiest thread's part of all CPU time of the node. */
  readonly busiestShare: number
  readonly cpuSecondsPerMillion: number
}

async function load(host: Host, row: Row, uris: readonly string[], pids: readonly number[]): Promise<Load> {
  const before = threadCpuSeconds(pids)
  const size = `--size=${values.size}M`
  const runs = uris.map((uri) => {
    return runFio(host, [...overNbd(uri), ...row.fio, size, ...timed(Number(values.seconds))])
  })
  const figures = (await Promise.all(runs)).map((run) => run.figures)
  const threads = threadShares(before, threadCpuSeconds(pids))
  const requests = figures.reduce((sum, one) => sum + one.requests, 0)
  const total = threads.reduce((sum, seconds) => sum + seconds, 0)
  const busiest = threads[0] ?? 0
  return {
    iops: figures.reduce((sum, one) => sum + one.iops, 0),
    capacity: requests / Math.max(busiest, total / cpus().length),
    busiestShare: busiest / total,
    cpuSecondsPerMillion: (total * 1e6) / requests,
  }
}

interface Sample {
  readonly row: string
  readonly one: Load
  readonly two: Load
}

function report(samples: readonly Sample[], rows: readonly Row[]): string {
  const table = rows.map(({ key, title }) => {
    const own = samples.filter(({ row }) => row === key)
    const of = (pick: (sample: Sample) => number): number => median(own.map(pick))
    return [
      title,
      figure(of(({ one }) => one.iops)),
      figure(of(({ two }) => two.iops)),
      of(({ one, two }) => two.iops / one.iops).toFixed(2),
      of(({ one, two }) => two.capacity / one.capacity).toFixed(2),
      `${Math.round(of(({ one }) => one.busiestShare) * 100)} % / ${Math.round(of(({ two }) => two.busiestShare) * 100)} %`,
      `${figure(of(({ one }) => one.cpuSecondsPerMillion))} / ${figure(of(({ two }) => two.cpuSecondsPerMillion))}`,
    ]
  })
  const head = ['row', 'one (IOPS)', 'two (IOPS)', 'two ÷ one', 'without the clients', 'busiest thread']
  return markdown([[...head, 'CPU s per million'], ...table])
}

await withHost(async (host) => {
  const bytes = Number(values.size) * 2 ** 20
  const cluster = await startCluster(host, 'node', 1)
  const uris = [await createVolume(cluster, 'a', 1, bytes), await createVolume(cluster, 'b', 1, bytes)].map(
    ({ uri }) => uri,
  )
  const pids = cluster.nodes.map((node) => node.process.pid)
  for (const uri of uris) await fill(host, { fio: overNbd(uri), pids, version: '' }, Number(values.size))
  const rows = chooseRows(values.rows.split(','))
  const samples: Sample[] = []
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const row of rows) {
      const one = await load(host, row, uris.slice(round % 2, (round % 2) + 1), pids)
      const two = await load(host, row, uris, pids)
      samples.push({ row: row.key, one, two })
    }
  }
  const table = report(samples, rows)
  const time = new Date().toISOString().replaceAll(':', '-')
  const out = values.out ?? new URL(`./results/${time}`, import.meta.url).pathname
  mkdirSync(out, { recursive: true })
  const facts = { commit: describeCommit(), takenAt: new Date().toISOString(), machine: describeMachine() }
  writeFileSync(join(out, 'two-volumes.json'), JSON.stringify({ ...facts, settings: values, samples, table }, null, 1))
  process.stdout.write(`${table}\n`)
})
