/**
 * `npm run bench:report -- FOLDER…`: fills the tables of docs/performance.md and draws its plots from the raw
 * results in these folders. What none of them holds stays as it is.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type EndsResult, endsTable, idleLine } from '../growth/ends.ts'
import { type Part, tableOf } from '../growth/points.ts'
import type { Testimony } from '../system/pause-witness.ts'
import * as report from '../system/report.ts'
import type { Machine, Results } from '../system/results.ts'
import * as charts from './charts.ts'
import { modelTable } from './model.ts'
import { fillPlace } from './page.ts'

interface Facts {
  readonly commit: string
  readonly takenAt: string
  readonly machine: Machine
}
interface DatabaseFile extends Facts, charts.Databases {
  readonly settings: { readonly rounds: number; readonly seconds: number; readonly scale: number }
  /** Why, by target. */
  readonly failed: Readonly<Record<string, string>>
  readonly table: report.Table
}
interface GrowthFile extends Facts {
  readonly settings: { readonly seconds: number; readonly rounds: number; readonly quick: boolean }
  readonly parts: readonly Part[]
  readonly ends?: EndsResult | undefined
}
interface TwoVolumesFile extends Facts {
  readonly settings: { readonly rounds: string; readonly seconds: string }
  readonly table: string
}
interface PausesFile {
  readonly minutes: number
  readonly figures: { readonly requests: number; readonly maxUs: number; readonly p999Us: number }
  readonly pauses: readonly {
    readonly atSeconds: number
    readonly ms: number
    readonly testimony?: Testimony | undefined
  }[]
}

const PAGE = new URL('../../docs/performance.md', import.meta.url).pathname
const PLOTS = new URL('../../docs/performance/', import.meta.url).pathname

const { positionals: folders } = parseArgs({ allowPositionals: true, options: {} })
if (folders.length === 0) throw new Error('name the folders with results, as in bench/results/TIME')

/** From the last folder that has it. */
function read<Content>(file: string): Content | undefined {
  const path = folders.map((folder) => join(folder, file)).findLast((one) => existsSync(one))
  return path === undefined ? undefined : (JSON.parse(readFileSync(path, 'utf8')) as Content)
}

let page = readFileSync(PAGE, 'utf8')
const put = (place: string, content: string): void => {
  page = fillPlace(page, place, content)
}
const plot = (name: string, svg: string): void => {
  mkdirSync(PLOTS, { recursive: true })
  writeFileSync(join(PLOTS, `${name}.svg`), svg)
}
const rounds = (count: number): string =>
  count === 1 ? '**one round only: a first look, not a result**' : `${count} interleaved rounds`
const facts = ({ commit, takenAt }: Facts): string => `Commit ${commit}, ${takenAt.slice(0, 16)}Z`

function putSystem(results: Results): void {
  const first = results.settings.rounds === 1 ? '**One round only: a first look, not a result.** ' : ''
  put('settings', [first + report.settingsLine(results), ...results.leftOut].join('\n\n'))
  put('targets', report.markdown(report.targetTable(results)))
  put('ratios', report.markdown(report.ratioTable(results)))
  put('tails', report.markdown(report.tailTable(results)))
  put('throughput', report.markdown(report.throughputTable(results)))
  put('latency', report.markdown(report.latencyTable(results)))
  put('cpu', report.markdown(report.cpuTable(results)))
  put('memory', report.markdown(report.memoryTable(results)))
  put('model', report.markdown(modelTable(results)))
  plot('throughput', charts.throughputChart(results))
  plot('tail-latency', charts.tailChart(results))
  plot('cpu', charts.cpuChart(results))
}

/** Where all targets have what a busy node of ours asks for by itself. */
function putAwake(results: Results): void {
  const tables = [report.ratioTable(results), report.throughputTable(results), report.tailTable(results)]
  put('awake', [report.settingsLine(results), ...tables.map(report.markdown)].join('\n\n'))
}

/** Where no other server is on the machine. */
function putAlone(results: Results): void {
  const tables = [report.tailTable(results), report.ratioTable(results), report.latencyTable(results)]
  put('alone', [report.settingsLine(results), ...tables.map(report.markdown)].join('\n\n'))
}

function putDatabases(file: DatabaseFile): void {
  const { settings, table } = file
  const how = `${rounds(settings.rounds)} of ${settings.seconds} s, pgbench scale ${settings.scale}`
  const left = Object.keys(file.failed).map((name) => ` ${name} failed in between and was left out from then on.`)
  put('databases', `${facts(file)}: ${how}.${left.join('')}\n\n${report.markdown(table)}`)
  plot('databases', charts.databaseChart(file))
}

function putGrowth(file: GrowthFile): void {
  if (file.ends !== undefined) {
    const how = `${rounds(file.settings.rounds)} of ${file.settings.seconds} s, medians`
    const table = report.markdown(endsTable(file.ends))
    put('growth-ends', `${facts(file)}: ${how}.\n\n${table}\n\n${idleLine(file.ends)}`)
  }
  if (file.parts.length === 0) return
  const how = `one run of ${file.settings.seconds} s per figure${file.settings.quick ? ', the short form' : ''}`
  const parts = file.parts.map((part) => {
    plot(`growth-${part.key}`, charts.growthChart(part))
    const image = `![${part.title}](performance/growth-${part.key}.svg)`
    return `### ${part.title}\n\n${report.markdown(tableOf(part))}\n\n${image}`
  })
  put('growth', [`${facts(file)}: ${how}.`, ...parts].join('\n\n'))
}

const UNWATCHED: Testimony = { blocked: 0, blockedAt: '', diskStood: 0, running: 0, ran: 0, waited: 0, stolen: 0, unseen: 1 }

function putPauses(target: string, { minutes, figures, pauses }: PausesFile): void {
  const longest = (figures.maxUs / 1000).toFixed(1)
  const head = `${target}: ${report.figure(figures.requests)} writes in ${minutes} minutes, p99.9 ` +
    `${Math.round(figures.p999Us)} µs, longest ${longest} ms, ${pauses.length} of 20 ms and more.`
  const lines = pauses.slice(0, 50).map(({ atSeconds, ms, testimony }) => {
    const { diskStood, stolen, blocked, running, ran, waited, unseen } = testimony ?? UNWATCHED
    const parts = [diskStood, stolen, blocked, running, ran, waited, unseen].map((part) => `${Math.round(part * 100)} %`)
    return [atSeconds.toFixed(3), ms.toFixed(1), ...parts]
  })
  const loop = ['loop held up in the kernel', 'loop had work', 'loop ran', 'loop waited for a processor']
  const titles = ['at (s)', 'pause (ms)', 'disk stood', 'host took a processor', ...loop, 'watcher held up']
  put('pauses', lines.length === 0 ? head : `${head}\n\n${report.markdown([titles, ...lines])}`)
}

const results = read<Results>('results.json')
if (results !== undefined) putSystem(results)
const awake = read<Results>('results-awake.json')
if (awake !== undefined) putAwake(awake)
const alone = read<Results>('results-alone.json')
if (alone !== undefined) putAlone(alone)
const databases = read<DatabaseFile>('databases.json')
if (databases !== undefined) putDatabases(databases)
const growth = read<GrowthFile>('growth.json')
if (growth !== undefined) putGrowth(growth)
const two = read<TwoVolumesFile>('two-volumes.json')
if (two !== undefined) {
  put('two-volumes', `${facts(two)}: ${rounds(Number(two.settings.rounds))}.\n\n${two.table}`)
}
const pauses = read<PausesFile>('pauses-holdfast-1.json')
if (pauses !== undefined) putPauses('holdfast-1', pauses)
writeFileSync(PAGE, page)
