/** What a run leaves in `results.json`: everything that the page and the plots are made of. */
import { execFileSync } from 'node:child_process'
import { cpus, release, totalmem } from 'node:os'

export interface Sample {
  /** From 0. */
  readonly round: number
  readonly row: string
  readonly target: string
  /** In the unit of the row. */
  readonly value: number
  readonly p50Us: number
  readonly p99Us: number
  readonly p999Us: number
  readonly maxUs: number
  /** Of the servers, for a million requests; 0 where there is no server. */
  readonly cpuSecondsPerMillion: number
  readonly clientCpuSecondsPerMillion: number
  /** Of the servers after the row. */
  readonly memoryMiB: number
  readonly anonymousMiB: number
  /** Part of the machine that neither the target nor fio has used: 0 to 1. */
  readonly othersShare: number
}

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGiB: number
  readonly kernel: string
  readonly node: string
}

export interface Results {
  readonly commit: string
  readonly takenAt: string
  readonly machine: Machine
  readonly settings: {
    readonly rounds: number
    readonly seconds: number
    readonly sizeMiB: number
    /** Processors were kept from sleeping for all targets, not only by those that do it themselves. */
    readonly awake?: boolean | undefined
    /** No other target was on the machine. */
    readonly alone?: boolean | undefined
  }
  readonly targets: readonly {
    readonly name: string
    readonly copies: number
    readonly what: string
    readonly version: string
  }[]
  readonly leftOut: readonly string[]
  readonly rows: readonly { readonly key: string; readonly title: string; readonly unit: string }[]
  readonly samples: readonly Sample[]
}

export function describeMachine(): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
  }
}

/** With a plus sign when the tree differs from it. */
export function describeCommit(): string {
  const git = (...args: string[]): string => execFileSync('git', args, { encoding: 'utf8' }).trim()
  try {
    const changed = git('status', '--porcelain', '--untracked-files=no', '--', 'packages', 'native') !== ''
    return git('rev-parse', '--short=12', 'HEAD') + (changed ? '+' : '')
  } catch {
    return 'unknown'
  }
}

/** One figure of one target in one row, round by round. */
export function series(
  results: Results,
  row: string,
  target: string,
  field: Exclude<keyof Sample, 'row' | 'target'> = 'value',
): readonly number[] {
  return results.samples
    .filter((sample) => sample.row === row && sample.target === target)
    .sort((a, b) => a.round - b.round)
    .map((sample) => sample[field])
}
