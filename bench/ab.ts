/**
 * `npm run bench:ab -- --before CHECKOUT [--after CHECKOUT]`: what a change does, as ratios of one interleaved run.
 *
 * Two built checkouts side by side (the second is this one unless said), each with its own nodes and volumes. In every
 * round both are measured right after each other, first the one, then the other first.
 * `--after-env NAME=VALUE` and `--after-runtime OPTION` compare settings of one checkout instead. With `--rest` both
 * sides are left alone for so many seconds before each row, as most volumes are most of the time.
 */
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type BenchCluster, type Build, createVolume, PROGRAM_PATH, startCluster } from './bed/cluster.ts'
import { type FioFigures, overNbd, runFio, timed } from './bed/fio.ts'
import { withHost } from './bed/host.ts'
import { options } from './bed/options.ts'
import { cpuSeconds } from './bed/process-cost.ts'
import { figure, markdown, spread } from './system/report.ts'
import { chooseRows } from './system/rows.ts'
import { fill, rotated, warmUp } from './system/runner.ts'
import { median, ratio } from './system/statistics.ts'

const HERE = new URL('..', import.meta.url).pathname

const values = options({
  before: { type: 'string', default: HERE },
  after: { type: 'string', default: HERE },
  'before-env': { type: 'string', multiple: true, default: [] },
  'after-env': { type: 'string', multiple: true, default: [] },
  'before-runtime': { type: 'string', multiple: true, default: [] },
  'after-runtime': { type: 'string', multiple: true, default: [] },
  rest: { type: 'string', default: '0' },
  rounds: { type: 'string', default: '5' },
  seconds: { type: 'string', default: '2' },
  size: { type: 'string', default: '512' },
  copies: { type: 'string', default: '1' },
  rows: { type: 'string', default: 'write-1,read-1,flush,write-32,read-32' },
})

function build(checkout: string, settings: readonly string[], runtime: readonly string[]): Build {
  const pairs = settings.map((setting) => {
    const at = setting.indexOf('=')
    if (at < 1) throw new Error(`${setting}: write NAME=VALUE`)
    return [setting.slice(0, at), setting.slice(at + 1)]
  })
  return { program: resolve(checkout, PROGRAM_PATH), env: Object.fromEntries(pairs), runtime }
}

interface Side {
  readonly name: 'before' | 'after'
  readonly cluster: BenchCluster
  readonly fio: readonly string[]
}

interface Sample extends FioFigures {
  readonly row: string
  readonly side: Side['name']
  readonly serverCpuUs: number
}

await withHost(async (host) => {
  const copies = Number(values.copies)
  const sizeMiB = Number(values.size)
  const sides: Side[] = []
  for (const name of ['before', 'after'] as const) {
    const cluster = await startCluster(host, name, copies, build(values[name], values[`${name}-env`], values[`${name}-runtime`]))
    const { uri } = await createVolume(cluster, 'v', copies, sizeMiB * 2 ** 20)
    sides.push({ name, cluster, fio: overNbd(uri) })
    const started = { fio: overNbd(uri), pids: cluster.pids, version: '' }
    await fill(host, started, sizeMiB)
    await warmUp(host, started, sizeMiB)
  }
  const rows = chooseRows(values.rows.split(','))
  const samples: Sample[] = []
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const row of rows) {
      await sleep(Number(values.rest) * 1000)
      for (const { name, cluster, fio } of rotated(sides, round)) {
        await host.do('sync', ['--file-system', host.folder])
        const before = cpuSeconds(cluster.pids)
        const args = [...fio, ...row.fio, `--size=${sizeMiB}M`, ...timed(Number(values.seconds))]
        const { figures } = await runFio(host, args)
        const serverCpuUs = ((cpuSeconds(cluster.pids) - before) * 1e6) / figures.requests
        samples.push({ ...figures, row: row.key, side: name, serverCpuUs })
      }
    }
  }
  const series = (row: string, side: Side['name'], pick: (sample: Sample) => number): readonly number[] =>
    samples.filter((sample) => sample.row === row && sample.side === side).map(pick)
  const table = rows.map(({ key, title }) => {
    const both = (pick: (sample: Sample) => number): string =>
      (['before', 'after'] as const).map((side) => figure(median(series(key, side, pick)))).join(' → ')
    const rates = ratio(series(key, 'after', ({ iops }) => iops), series(key, 'before', ({ iops }) => iops))
    const latencies = [both(({ p50Us }) => p50Us), both(({ p99Us }) => p99Us), both(({ p999Us }) => p999Us)]
    return [title, both(({ iops }) => iops), spread(rates), ...latencies, both(({ serverCpuUs }) => serverCpuUs)]
  })
  const head = ['row', 'requests/s', 'after ÷ before', 'p50 (µs)', 'p99 (µs)', 'p99.9 (µs)', 'CPU per request (µs)']
  process.stdout.write(`${markdown([head, ...table])}\n`)
})
