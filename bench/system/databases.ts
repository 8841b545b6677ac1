/**
 * `npm run bench:databases`: PostgreSQL and SQLite on ext4 on mounted volumes, and on the bare local disk.
 *
 * All targets are mounted at the same time and measured in turn, round by round; only the database that is
 * being measured runs.
 */
import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { firstMissing, type Host, withHost } from '../bed/host.ts'
import { mountVolume } from '../bed/mounted.ts'
import { options } from '../bed/options.ts'
import { describeCommit, describeMachine } from './results.ts'
import { Postgres, postgresPrograms } from './postgres.ts'
import { rotated } from './runner.ts'
import { figure, markdown, spread, type Table } from './report.ts'
import { median, ratio } from './statistics.ts'
import { chooseTargets, missing } from './targets/index.ts'

const LOCAL = 'local-disk'
const SQLITE_INSERTS = 1000

const values = options({
  rounds: { type: 'string', default: '5' },
  seconds: { type: 'string', default: '10' },
  scale: { type: 'string', default: '10' },
  /** MiB of each volume. */
  size: { type: 'string', default: '2048' },
  targets: { type: 'string', default: `${LOCAL},nbdkit-memory,holdfast-2,quorum-2,gluster-2` },
  out: { type: 'string' },
})

export interface DatabaseSample {
  readonly round: number
  readonly row: string
  readonly target: string
  readonly transactionsPerSecond: number
  readonly p50Ms?: number | undefined
  readonly p99Ms?: number | undefined
  readonly maxMs?: number | undefined
}

interface Place {
  readonly name: string
  readonly folder: string
  readonly postgres: Postgres
}

const PGBENCH_ROWS = [
  { row: 'pgbench, 8 clients', args: ['-c', '8', '-j', '2'] },
  { row: 'pgbench, 1 client', args: ['-c', '1', '-j', '1'] },
  { row: 'pgbench, reads only, 8 clients', args: ['-c', '8', '-j', '2', '-S'] },
]
const SQLITE_ROW = 'SQLite, one insert per transaction'
const say = (line: string): void => void process.stderr.write(`${line}\n`)

/** Seconds for a number of durable transactions of one insert each, in WAL mode. */
async function sqlite(host: Host, folder: string): Promise<number> {
  const file = join(folder, 'sqlite.db')
  const script = host.path('inserts.sql')
  const insert = "insert into t(v) values (hex(randomblob(50)));\n"
  const head = 'pragma journal_mode=wal;\npragma synchronous=full;\ncreate table t(id integer primary key, v);\n'
  writeFileSync(script, head + insert.repeat(SQLITE_INSERTS))
  const start = performance.now()
  await host.do('sqlite3', ['-bail', file, `.read ${script}`])
  const seconds = (performance.now() - start) / 1000
  for (const end of ['', '-wal', '-shm']) rmSync(file + end, { force: true })
  return SQLITE_INSERTS / seconds
}

async function prepare(host: Host, programs: string): Promise<Place[]> {
  const places: Place[] = []
  for (const name of values.targets.split(',')) {
    say(`preparing ${name}`)
    let folder = host.path(LOCAL)
    if (name === LOCAL) {
      mkdirSync(folder)
    } else {
      const [target] = chooseTargets([name])
      const reason = target === undefined ? `no target ${name}` : missing(target)
      const started = reason === undefined ? await target?.start(host, Number(values.size) * 2 ** 20) : undefined
      if (started?.uri === undefined) {
        say(reason ?? `${name} is left out: it is not served over NBD`)
        continue
      }
      folder = await mountVolume(host, name, started.uri)
    }
    places.push({ name, folder, postgres: await Postgres.create(host, programs, folder, Number(values.scale)) })
  }
  return places
}

interface Measured {
  readonly samples: readonly DatabaseSample[]
  /** Why a target was left out from then on. */
  readonly failed: ReadonlyMap<string, string>
}

async function measure(host: Host, places: readonly Place[]): Promise<Measured> {
  const samples: DatabaseSample[] = []
  const failed = new Map<string, string>()
  const attempt = async (
    round: number,
    row: string,
    { name }: Place,
    body: () => Promise<Omit<DatabaseSample, 'round' | 'row' | 'target'>>,
  ): Promise<void> => {
    if (failed.has(name)) return
    await host.do('sync', [])
    const where = `round ${round + 1}: ${row}: ${name}`
    try {
      const sample = { round, row, target: name, ...(await body()) }
      samples.push(sample)
      say(`${where}: ${Math.round(sample.transactionsPerSecond)} transactions/s`)
    } catch (error) {
      failed.set(name, `${where}: ${error instanceof Error ? error.message : String(error)}`)
      say(`${name} is left out from now on: ${failed.get(name)}`)
    }
  }
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const { row, args } of PGBENCH_ROWS) {
      for (const place of rotated(places, round)) {
        const { postgres } = place
        await attempt(round, row, place, () => postgres.running(() => postgres.pgbench(args, Number(values.seconds))))
      }
    }
    for (const place of rotated(places, round)) {
      await attempt(round, SQLITE_ROW, place, async () => ({ transactionsPerSecond: await sqlite(host, place.folder) }))
    }
  }
  return { samples, failed }
}

function tableOf(samples: readonly DatabaseSample[], names: readonly string[]): Table {
  const rows = [...new Set(samples.map(({ row }) => row))]
  const of = (row: string, target: string): Map<number, number> => {
    const those = samples.filter((sample) => sample.row === row && sample.target === target)
    return new Map(those.map(({ round, transactionsPerSecond }) => [round, transactionsPerSecond]))
  }
  const ours = 'holdfast-2'
  const others = names.includes(ours) ? names.filter((name) => name !== ours) : []
  const rate = (row: string, target: string): string => figure(median([...of(row, target).values()]))
  /** Of the rounds that both have. */
  const over = (row: string, target: string): string => {
    const [mine, theirs] = [of(row, ours), of(row, target)]
    const rounds = [...mine.keys()].filter((round) => theirs.has(round))
    const pick = (rates: Map<number, number>): number[] => rounds.map((round) => rates.get(round) ?? Number.NaN)
    return spread(ratio(pick(mine), pick(theirs)))
  }
  return [
    ['transactions/s', ...names, ...others.map((name) => `${ours} ÷ ${name}`)],
    ...rows.map((row) => [row, ...names.map((name) => rate(row, name)), ...others.map((name) => over(row, name))]),
  ]
}

const programs = postgresPrograms()
const missingProgram = firstMissing(['nbdfuse', 'losetup', 'mkfs.ext4', 'sqlite3', 'setpriv'])
if (programs === undefined || missingProgram !== undefined) {
  say('needs PostgreSQL and more: apt-get install postgresql sqlite3 libnbd-bin e2fsprogs')
  process.exit(1)
}
await withHost(async (host) => {
  // PostgreSQL's own user has to get at its folders.
  chmodSync(host.folder, 0o755)
  const places = await prepare(host, programs)
  const { samples, failed } = await measure(host, places)
  const settings = { rounds: Number(values.rounds), seconds: Number(values.seconds), scale: Number(values.scale) }
  const time = new Date().toISOString().replaceAll(':', '-')
  const out = values.out ?? new URL(`../results/${time}`, import.meta.url).pathname
  mkdirSync(out, { recursive: true })
  const names = places.map(({ name }) => name)
  const table = tableOf(samples, names)
  const facts = { commit: describeCommit(), takenAt: new Date().toISOString(), machine: describeMachine() }
  const file = { ...facts, settings, names, failed: Object.fromEntries(failed), samples, table }
  writeFileSync(join(out, 'databases.json'), JSON.stringify(file, null, 1))
  process.stdout.write(`${markdown(table)}\n`)
  for (const [name, reason] of failed) say(`${name} was left out: ${reason}`)
  say(`raw results: ${out}`)
  if (failed.size > 0) process.exitCode = 1
})
