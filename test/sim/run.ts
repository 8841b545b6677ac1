/** `npm run sim`: seeded runs of the whole cluster in virtual time, on all cores. */
import { fork } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { nativeChecksum } from '@holdfast/disk'
import {
  describeFault,
  FAULT_KINDS,
  type FaultKind,
  faultRun,
  planRun,
  type RunPlan,
  type RunResult,
  shrink,
} from '@holdfast/simulator'

const USAGE = `npm run sim -- OPTIONS: seeded runs of whole clusters in virtual time

  --seed N        one seed, with its timeline       --plan FILE    a schedule that was printed before
  --seeds N       so many seeds from --from on      --minutes N    fresh random seeds for so long
  --jobs N        processes (default: the cores)    --kinds a,b    only faults of these kinds
  --stop          ends at the first failing seed    --verbose      with the events of the engines
  --shards        nodes with several threads
  --no-shrink     without the shortest schedule that still fails

A failing seed prints its schedule, the shortest schedule that still fails, and its timeline. Ends with 1 then.
`

const { values } = parseArgs({
  options: {
    help: { type: 'boolean', default: false },
    seed: { type: 'string' },
    plan: { type: 'string' },
    from: { type: 'string', default: '1' },
    seeds: { type: 'string' },
    minutes: { type: 'string' },
    jobs: { type: 'string' },
    kinds: { type: 'string' },
    stop: { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false },
    shards: { type: 'boolean', default: false },
    'no-shrink': { type: 'boolean', default: false },
    step: { type: 'string', default: '1' },
    worker: { type: 'boolean', default: false },
  },
})

if (values.help) {
  process.stdout.write(USAGE)
  process.exit(0)
}

interface Totals {
  seeds: number
  failed: number
  acknowledged: number
  reads: number
  elections: number
  virtualMs: number
  healMsMax: number
  worstSeed: number
}
type Report = { readonly kind: 'totals'; readonly totals: Totals } | { readonly kind: 'failed'; readonly text: string }

const kinds = values.kinds === undefined ? undefined : parseKinds(values.kinds)
const play = (plan: RunPlan): RunResult => faultRun(plan, nativeChecksum)
const noTotals = (): Totals => ({
  seeds: 0,
  failed: 0,
  acknowledged: 0,
  reads: 0,
  elections: 0,
  virtualMs: 0,
  healMsMax: 0,
  worstSeed: 0,
})

if (values.seed !== undefined || values.plan !== undefined) one()
else if (values.worker) await work((report) => process.send?.(report))
else await many()

function parseKinds(text: string): FaultKind[] {
  return text.split(',').map((name) => {
    const kind = FAULT_KINDS.find((one) => one === name)
    if (kind === undefined) throw new Error(`there is no fault ${name}: they are ${FAULT_KINDS.join(', ')}`)
    return kind
  })
}

/** One run, shown whole. */
function one(): void {
  const plan =
    values.plan === undefined
      ? planRun(Number(values.seed), { kinds, shards: values.shards })
      : (JSON.parse(readFileSync(values.plan, 'utf8')) as RunPlan)
  const result = faultRun(plan, nativeChecksum, true)
  const notes = result.timeline.filter((line) => values.verbose || !/ (info|warn|error) /.test(line))
  print(`${notes.join('\n')}\n${summary(result)}`)
  if (result.violations.length > 0) print(failure(result))
  process.exitCode = result.violations.length === 0 ? 0 : 1
}

function summary({ plan, acknowledgedWrites, reads, elections, virtualMs, healMs, clientErrors }: RunResult): string {
  const volumes = plan.volumes.map(({ replicaCount }) => replicaCount).join('+')
  return (
    `seed ${plan.seed}: ${plan.nodeCount} nodes, copies ${volumes}, ${plan.faults.length} faults, ` +
    `${acknowledgedWrites} writes acknowledged, ${reads} reads, ${clientErrors} errors to clients, ${elections} elections, ` +
    `whole again after ${healMs.toFixed(0)} ms, ${(virtualMs / 1000).toFixed(1)} s of virtual time`
  )
}

/** What a person needs to understand a failing seed. */
function failure(result: RunResult): string {
  if (values['no-shrink']) return `seed ${result.plan.seed} FAILED: ${result.violations.join('; ')}`
  const smallest = shrink(result, play)
  const replay = faultRun(smallest.plan, nativeChecksum, true)
  return [
    `seed ${result.plan.seed} FAILED: ${result.violations.join('; ')}`,
    `  again: npm run sim -- --seed ${result.plan.seed}${values.shards ? ' --shards' : ''}`,
    '  its faults:',
    ...result.plan.faults.map((fault) => `    ${describeFault(fault)}`),
    `  the shortest schedule found that still fails (${smallest.violations.join('; ')}):`,
    ...smallest.plan.faults.map((fault) => `    ${describeFault(fault)}`),
    `  as a file for --plan: ${JSON.stringify(smallest.plan)}`,
    '  the end of its timeline:',
    ...replay.timeline.slice(-60).map((line) => `    ${line}`),
    '',
  ].join('\n')
}

/** A share of the seeds, in this process. */
async function work(report: (report: Report) => void): Promise<void> {
  const step = Number(values.step)
  const end = values.minutes === undefined ? undefined : performance.now() + Number(values.minutes) * 60_000
  const last = Number(values.from) + Number(values.seeds ?? 1000)
  const totals = noTotals()
  let reportedAt = performance.now()
  for (let seed = Number(values.from); ; seed += step) {
    if (end === undefined ? seed >= last : performance.now() >= end) break
    const result = play(planRun(seed, { kinds, shards: values.shards }))
    // What promises of a run still hold is let go only when the loop of this process turns.
    await new Promise(setImmediate)
    totals.seeds++
    totals.acknowledged += result.acknowledgedWrites
    totals.reads += result.reads
    totals.elections += result.elections
    totals.virtualMs += result.virtualMs
    if (result.healMs > totals.healMsMax) {
      totals.healMsMax = result.healMs
      totals.worstSeed = seed
    }
    if (result.violations.length > 0) {
      totals.failed++
      report({ kind: 'failed', text: failure(result) })
      if (values.stop) break
    }
    if (performance.now() - reportedAt > 1_000) {
      reportedAt = performance.now()
      report({ kind: 'totals', totals: { ...totals } })
    }
  }
  report({ kind: 'totals', totals })
}

async function many(): Promise<void> {
  const jobs = Number(values.jobs ?? availableParallelism())
  const started = performance.now()
  // With a time instead of a number the seeds are fresh ones.
  const from = values.minutes === undefined ? Number(values.from) : Math.floor(Math.random() * 2 ** 31)
  const totals = Array.from({ length: jobs }, noTotals)
  let shownAt = started
  const children = totals.map((_, job) => {
    const last = from + Number(values.seeds ?? 1000)
    const args = ['--worker', '--from', String(from + job), '--step', String(jobs)]
    if (values.minutes !== undefined) args.push('--minutes', values.minutes)
    else args.push('--seeds', String(Math.max(0, last - from - job)))
    if (values.kinds !== undefined) args.push('--kinds', values.kinds)
    if (values.shards) args.push('--shards')
    if (values.stop) args.push('--stop')
    if (values['no-shrink']) args.push('--no-shrink')
    // Most of what a run allocates is dead when the next begins: a larger nursery spares a fifth of the time.
    const child = fork(new URL(import.meta.url).pathname, args, { execArgv: [...process.execArgv, '--max-semi-space-size=64'] })
    child.on('message', (report: Report) => {
      if (report.kind === 'failed') {
        print(report.text)
        if (values.stop) for (const other of children) if (other !== child) other.kill()
        return
      }
      totals[job] = report.totals
      if (performance.now() - shownAt < 30_000) return
      shownAt = performance.now()
      print(line(totals, started))
    })
    return child
  })
  const codes = await Promise.all(
    children.map((child) => new Promise<number | null>((resolve) => child.once('exit', resolve))),
  )
  print(line(totals, started))
  const failed = totals.some((one) => one.failed > 0)
  const broken = codes.some((code) => code !== 0 && code !== null)
  process.exitCode = failed || broken ? 1 : 0
}

function line(totals: readonly Totals[], started: number): string {
  const sum = (of: (one: Totals) => number): number => totals.reduce((total, one) => total + of(one), 0)
  const seconds = (performance.now() - started) / 1000
  const minutes = sum((one) => one.virtualMs) / 60_000
  const worst = totals.reduce((a, b) => (b.healMsMax > a.healMsMax ? b : a))
  return (
    `${sum((one) => one.seeds)} seeds, ${sum((one) => one.failed)} failed, ${sum((one) => one.acknowledged)} writes acknowledged, ` +
    `${sum((one) => one.reads)} blocks read, ${sum((one) => one.elections)} elections, ` +
    `slowest to heal: seed ${worst.worstSeed} in ${(worst.healMsMax / 1000).toFixed(1)} s, ` +
    `${minutes.toFixed(1)} simulated minutes in ${seconds.toFixed(1)} s (${((minutes * 60) / seconds).toFixed(0)} times real time)`
  )
}

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}
