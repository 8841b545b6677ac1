/** Whole clusters, faults in the middle of writes; everything in virtual time. */
import { native } from '@holdfast/addon'
import { nativeChecksum } from '@holdfast/disk'
import { FAULT_KINDS, faultRun, planRun, type RunPlan, type RunResult, shrink } from '@holdfast/simulator'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { REGRESSIONS } from './regressions.ts'

const play = (plan: RunPlan, verbose = false): RunResult => faultRun(plan, nativeChecksum, verbose)

/** Fresh seeds for so long in each run of the tests. */
const FRESH_MS = Number(process.env['HOLDFAST_SIM_SECONDS'] ?? 60) * 1_000

describe('[I1-I9] a cluster under faults', () => {
  it('keeps its word for schedules that found mistakes before', { timeout: 300_000 }, () => {
    expect(REGRESSIONS.length).toBeGreaterThan(10)
    for (const { found, plan } of REGRESSIONS) {
      expect({ found, violations: play(plan).violations }).toEqual({ found, violations: [] })
    }
  })

  it('keeps its word for a fixed set of seeds, in which everything happens', { timeout: 300_000 }, () => {
    const happened = new Set<string>()
    let elections = 0
    let acknowledged = 0
    const looks = { members: 0, flushes: 0, serving: 0, copies: 0 }
    for (let seed = 500_000; seed < 500_100; seed++) {
      const result = play(planRun(seed))
      expect({ seed, violations: result.violations }).toEqual({ seed, violations: [] })
      for (const { kind } of result.plan.faults) happened.add(kind)
      for (const what of Object.keys(looks) as (keyof typeof looks)[]) looks[what] += result.looks[what]
      elections += result.elections
      acknowledged += result.acknowledgedWrites
    }
    expect([...happened].sort()).toEqual([...FAULT_KINDS].sort())
    for (const [what, count] of Object.entries(looks)) expect(count, what).toBeGreaterThan(100)
    expect(elections).toBeGreaterThan(200)
    expect(acknowledged).toBeGreaterThan(50_000)
  })

  it('keeps its word for a fixed set of seeds with several threads per node', { timeout: 300_000 }, () => {
    let acknowledged = 0
    for (let seed = 600_000; seed < 600_060; seed++) {
      const result = play(planRun(seed, { shards: true }))
      expect({ seed, violations: result.violations }).toEqual({ seed, violations: [] })
      acknowledged += result.acknowledgedWrites
    }
    expect(acknowledged).toBeGreaterThan(30_000)
  })

  it('keeps its word for fresh seeds', { timeout: FRESH_MS + 300_000 }, async () => {
    const first = Math.floor(Math.random() * 2 ** 31)
    const end = performance.now() + FRESH_MS
    for (let seed = first; performance.now() < end; seed++) {
      const shards = seed % 2 === 1
      const { violations } = play(planRun(seed, { shards }))
      // What promises of a run still hold is let go only when the loop turns.
      await new Promise(setImmediate)
      const again = `npm run sim -- --seed ${seed}${shards ? ' --shards' : ''}`
      expect({ again, violations }).toEqual({ again, violations: [] })
    }
  })

  it('gives the same timeline for the same seed', () => {
    for (const seed of [77, 78, 290]) {
      for (const shards of [false, true]) {
        const plan = planRun(seed, { shards })
        expect(play(plan, true).timeline).toEqual(play(plan, true).timeline)
      }
    }
  })
})

describe('the simulator', () => {
  afterEach(() => vi.restoreAllMocks())

  it('reads no clock, no chance and no timer of the machine', () => {
    const forbidden = (what: string) => () => {
      throw new Error(`the simulation used ${what}`)
    }
    vi.spyOn(Date, 'now').mockImplementation(forbidden('Date.now'))
    vi.spyOn(Math, 'random').mockImplementation(forbidden('Math.random'))
    vi.spyOn(performance, 'now').mockImplementation(forbidden('performance.now'))
    vi.spyOn(native, 'millisecondsSinceBoot').mockImplementation(forbidden('millisecondsSinceBoot'))
    for (const name of ['setTimeout', 'setInterval', 'setImmediate', 'queueMicrotask'] as const) {
      vi.spyOn(globalThis, name).mockImplementation(forbidden(name) as never)
    }
    vi.spyOn(process, 'nextTick').mockImplementation(forbidden('process.nextTick') as never)
    const { violations, acknowledgedWrites } = play(planRun(290))
    vi.restoreAllMocks()
    expect(violations).toEqual([])
    expect(acknowledgedWrites).toBeGreaterThan(100)
  })

  it('makes a failing schedule small', () => {
    const plan = planRun(290)
    const failsWith = (one: RunPlan): RunResult => {
      const guilty = one.faults.filter(({ kind }) => kind === 'process-crash')
      return { ...empty(one), violations: guilty.length >= 2 ? ['two crashes'] : [] }
    }
    const crash = { kind: 'process-crash', victim: { volume: 0, role: 'any', pick: 0 }, atMs: 10, forMs: 5 } as const
    const failing = failsWith({ ...plan, faults: [crash, ...plan.faults, crash] })
    expect(shrink(failing, failsWith).plan.faults).toHaveLength(2)
  })
})

function empty(plan: RunPlan): RunResult {
  const zero = { acknowledgedWrites: 0, reads: 0, clientErrors: 0, elections: 0, healMs: 0, virtualMs: 0 }
  const looks = { members: 0, flushes: 0, serving: 0, copies: 0 }
  return { plan, violations: [], timeline: [], looks, ...zero }
}
