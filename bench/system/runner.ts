/** Starts the targets, fills their volumes, and measures round by round, row by row, target by target. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { type FioFigures, runFio, timed } from '../bed/fio.ts'
import type { Host } from '../bed/host.ts'
import { cpuSeconds, machineCpuSeconds, processCost } from '../bed/process-cost.ts'
import { describeCommit, describeMachine, type Results, type Sample } from './results.ts'
import type { Row } from './rows.ts'
import { missing } from './targets/index.ts'
import type { StartedTarget, Target } from './targets/target.ts'

export interface RunSettings {
  readonly rounds: number
  readonly seconds: number
  readonly sizeMiB: number
  readonly targets: readonly Target[]
  readonly rows: readonly Row[]
  /** Processors are kept from sleeping all the time. */
  readonly awake: boolean
  /** Few targets only. */
  readonly alone: boolean
  /** Where fio's own reports go. */
  readonly out: string
}

interface Contestant {
  readonly target: Target
  readonly started: StartedTarget
}

export type Say = (line: string) => void

/** A target that is missing or does not start is left out, and said. */
async function startAll(host: Host, settings: RunSettings, say: Say) {
  const contestants: Contestant[] = []
  const leftOut: string[] = []
  for (const target of settings.targets) {
    let reason = missing(target)
    try {
      if (reason === undefined) {
        say(`starting ${target.name}`)
        const started = await target.start(host, settings.sizeMiB * 2 ** 20)
        contestants.push({ target, started })
      }
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      say(message)
      // What a server wrote before it ended: the page wants to know of the last of it only.
      reason = `${target.name} is left out: ${message.trim().split('\n').at(-1)}`
    }
    if (reason !== undefined) leftOut.push(reason)
    if (reason !== undefined) say(reason)
  }
  return { contestants, leftOut }
}

/**
 * Random data in every block: no target may gain from holes or zeroes. In order and twice over, which is how SNIA's
 * Performance Test Specification for solid state storage prepares a device whose steady state is to be measured.
 */
export async function fill(host: Host, started: StartedTarget, sizeMiB: number): Promise<void> {
  const pattern = ['--rw=write', '--bs=1M', '--iodepth=8', '--refill_buffers=1', '--end_fsync=1', '--loops=2']
  await runFio(host, [...started.fio, ...pattern, `--size=${sizeMiB}M`], 'fill')
}

interface WarmUp {
  readonly load: readonly string[]
  readonly depth: number
  readonly seconds: number
}

const MIXED = ['--rw=randrw', '--fsync=32']
const WARM_UP: readonly WarmUp[] = [
  { load: MIXED, depth: 1, seconds: 4 },
  { load: MIXED, depth: 16, seconds: 4 },
  // What is written in order has to be overwritten at random for a log to be in the state in which it stays.
  { load: ['--rw=randwrite'], depth: 16, seconds: 8 },
]

/** Everybody alike works for a while before anything counts: compilers, caches and logs are as they will be in an hour. */
export async function warmUp(host: Host, started: StartedTarget, sizeMiB: number): Promise<void> {
  for (const { load, depth, seconds } of WARM_UP) {
    const args = [...started.fio, ...load, '--bs=4k', `--size=${sizeMiB}M`, `--iodepth=${depth}`, ...timed(seconds)]
    await runFio(host, args, 'warm-up')
  }
}

/** Other targets first in every round, so that none is always after the same one. */
export function rotated<Item>(items: readonly Item[], by: number): readonly Item[] {
  const start = items.length === 0 ? 0 : by % items.length
  return [...items.slice(start), ...items.slice(0, start)]
}

export async function runAll(host: Host, settings: RunSettings, say: Say): Promise<Results> {
  const { contestants, leftOut } = await startAll(host, settings, say)
  for (const { target, started } of contestants) {
    say(`filling ${target.name}`)
    await fill(host, started, settings.sizeMiB)
    await warmUp(host, started, settings.sizeMiB)
  }
  const samples: Sample[] = []
  for (let round = 0; round < settings.rounds; round++) {
    for (const row of settings.rows) {
      for (const contestant of rotated(contestants, round)) {
        const sample = await measure(host, settings, round, row, contestant)
        samples.push(sample)
        const { value, p50Us, p999Us } = sample
        const figures = `${Math.round(value)} ${row.unit}, p50 ${Math.round(p50Us)} µs, p99.9 ${Math.round(p999Us)} µs`
        say(`round ${round + 1}: ${row.title}: ${sample.target}: ${figures}`)
      }
    }
  }
  return {
    commit: describeCommit(),
    takenAt: new Date().toISOString(),
    machine: describeMachine(),
    settings: {
      rounds: settings.rounds,
      seconds: settings.seconds,
      sizeMiB: settings.sizeMiB,
      awake: settings.awake,
      alone: settings.alone,
    },
    targets: contestants.map(({ target: { name, copies, what }, started: { version } }) => {
      return { name, copies, what, version }
    }),
    leftOut,
    rows: settings.rows.map(({ key, title, unit }) => ({ key, title, unit })),
    samples,
  }
}

async function measure(
  host: Host,
  settings: RunSettings,
  round: number,
  row: Row,
  { target, started }: Contestant,
): Promise<Sample> {
  // What the one before has left in the page cache is not to be written back in this one's time.
  await host.do('sync', ['--file-system', host.folder])
  const before = { servers: cpuSeconds(started.pids), machine: machineCpuSeconds(), at: performance.now() }
  const size = `--size=${settings.sizeMiB}M`
  const { figures, raw } = await runFio(host, [...started.fio, ...row.fio, size, ...timed(settings.seconds)])
  const after = processCost(started.pids)
  const servers = after.cpuSeconds - before.servers
  const others = machineCpuSeconds() - before.machine - servers - figures.clientCpuSeconds
  const offered = ((performance.now() - before.at) / 1000) * cpus().length
  const folder = join(settings.out, 'fio')
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, `${round}-${row.key}-${target.name}.json`), JSON.stringify(raw))
  return {
    round,
    row: row.key,
    target: target.name,
    value: valueOf(row, figures),
    ...latencies(figures),
    cpuSecondsPerMillion: perMillion(servers, figures),
    clientCpuSecondsPerMillion: perMillion(figures.clientCpuSeconds, figures),
    memoryMiB: after.memoryMiB,
    anonymousMiB: after.anonymousMiB,
    othersShare: Math.min(Math.max(others / offered, 0), 1),
  }
}

const valueOf = (row: Row, { iops, bytesPerSecond }: FioFigures): number =>
  row.unit === 'IOPS' ? iops : bytesPerSecond / 1e6

const latencies = ({ p50Us, p99Us, p999Us, maxUs }: FioFigures) => ({ p50Us, p99Us, p999Us, maxUs })

const perMillion = (seconds: number, { requests }: FioFigures): number => (seconds * 1e6) / Math.max(requests, 1)
