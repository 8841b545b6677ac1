/** One run of fio and what it measured. */
import { randomUUID } from 'node:crypto'
import { readFileSync, rmSync } from 'node:fs'
import type { Host } from './host.ts'

export interface FioFigures {
  /** Requests per second: reads and writes together; a flush is part of its write. */
  readonly iops: number
  readonly bytesPerSecond: number
  readonly requests: number
  /** Completion latency; where a flush follows each write, the sum of both percentiles. */
  readonly p50Us: number
  readonly p99Us: number
  readonly p999Us: number
  /** The longest pause. */
  readonly maxUs: number
  /** CPU seconds of fio itself. */
  readonly clientCpuSeconds: number
}

interface Latency {
  readonly max: number
  readonly percentile?: Readonly<Record<string, number>>
}
interface Side {
  readonly total_ios: number
  readonly iops: number
  readonly bw_bytes: number
  readonly clat_ns: Latency
}
interface Job {
  readonly error: number
  readonly job_runtime: number
  readonly usr_cpu: number
  readonly sys_cpu: number
  readonly mixed: Side
  readonly sync?: { readonly total_ios: number; readonly lat_ns: Latency }
}

const PERCENTILES = '--percentile_list=50:99:99.9'

/** Arguments for fio that point it at a volume served over NBD. */
export function overNbd(uri: string): readonly string[] {
  return ['--ioengine=nbd', `--uri=${uri}`]
}

/** Arguments that bound a run by time. */
export function timed(seconds: number): readonly string[] {
  return ['--time_based', `--runtime=${Math.round(seconds * 1000)}ms`]
}

/** Throws when fio fails, with what it said. */
export async function runFio(
  host: Host,
  args: readonly string[],
  name = 'bench',
): Promise<{ readonly figures: FioFigures; readonly raw: unknown }> {
  const output = host.path(`fio-${randomUUID()}.json`)
  const report = ['--output-format=json', `--output=${output}`, '--unified_rw_reporting=both', PERCENTILES]
  try {
    // It works in processes of their own sessions, which would go on without it.
    await host.do('fio', [`--name=${name}`, ...report, ...args], { endBy: 'SIGTERM' })
    const text = readFileSync(output, 'utf8')
    // fio may print notes before its JSON.
    const raw = JSON.parse(text.slice(text.indexOf('{'))) as { readonly jobs: readonly Job[] }
    return { figures: figuresOf(raw.jobs), raw }
  } finally {
    rmSync(output, { force: true })
  }
}

/** The sum of all jobs, and the worst of their latencies. Throws when one failed. */
export function figuresOf(jobs: readonly Job[]): FioFigures {
  if (jobs.length === 0) throw new Error('fio reported no job')
  for (const { error } of jobs) if (error !== 0) throw new Error(`fio failed with error ${error}`)
  const sum = (of: (job: Job) => number): number => jobs.reduce((total, job) => total + of(job), 0)
  // A write with its flush takes as long as both.
  const worst = (of: (latency: Latency) => number): number =>
    Math.max(...jobs.map(({ mixed, sync }) => of(mixed.clat_ns) + (sync === undefined ? 0 : of(sync.lat_ns)))) / 1000
  const percentile = (key: string): number => worst(({ percentile: table }) => table?.[key] ?? 0)
  return {
    iops: sum((job) => job.mixed.iops),
    bytesPerSecond: sum((job) => job.mixed.bw_bytes),
    requests: sum((job) => job.mixed.total_ios),
    p50Us: percentile('50.000000'),
    p99Us: percentile('99.000000'),
    p999Us: percentile('99.900000'),
    maxUs: worst(({ max }) => max),
    clientCpuSeconds: sum((job) => ((job.usr_cpu + job.sys_cpu) / 100) * (job.job_runtime / 1000)),
  }
}
