/** Three nodes, one volume, faults in the middle of writes; everything in virtual time. */
import { nativeChecksum } from '@holdfast/disk'
import { SimClient, SimCluster, faultRun } from '@holdfast/simulator'
import { describe, expect, it } from 'vitest'

/** Seeds that once found a mistake of ours. */
const REGRESSIONS = [94, 287, 317, 330, 387, 552, 729, 1026, 2202, 3311]
const checksum = nativeChecksum

describe('[I1-I8] a cluster under faults', () => {
  it('keeps its word for seeds that found mistakes before', { timeout: 120_000 }, () => {
    for (const seed of REGRESSIONS) expect(faultRun({ seed, checksum })).toMatchObject({ seed, violations: [] })
  })

  it('keeps its word for 200 seeds of mixed faults', { timeout: 300_000 }, () => {
    let elections = 0
    let acknowledged = 0
    for (let seed = 10_000; seed < 10_200; seed++) {
      const result = faultRun({ seed, checksum, chaosMs: 1_200 })
      expect(result).toMatchObject({ seed, violations: [] })
      elections += result.elections
      acknowledged += result.acknowledgedWrites
    }
    // Not vacuous: primaries changed and writes went on.
    expect(elections).toBeGreaterThan(250)
    expect(acknowledged).toBeGreaterThan(10_000)
  })

  it('gives the same timeline for the same seed', () => {
    const once = faultRun({ seed: 77, checksum, verbose: true })
    const twice = faultRun({ seed: 77, checksum, verbose: true })
    expect(twice.timeline).toEqual(once.timeline)
  })
})

/** One crash of the primary in the middle of writes, then its return. */
function crashOfThePrimary(seed: number): { violations: readonly string[]; acknowledged: number } {
  const cluster = new SimCluster({ seed, checksum, nodeCount: 3, leaseTtlMs: 1_000 })
  cluster.createVolume('v', 3, 64)
  const client = new SimClient(cluster, 'v', [0, 1, 2, 3, 4, 5])
  cluster.runUntil(10_000, () => cluster.primaryOf('v') !== undefined)
  cluster.run(cluster.random.between(20, 120))
  const primary = cluster.primaryOf('v')
  if (primary === undefined) return { violations: ['no primary'], acknowledged: 0 }
  cluster.crash(primary)
  const moved = cluster.runUntil(10_000, () => cluster.primaryOf('v') !== undefined)
  if (!moved) cluster.violations.push('nobody took over')
  cluster.run(60)
  cluster.restart(primary)
  if (!cluster.runUntil(20_000, () => cluster.healthy('v'))) cluster.violations.push('not healthy')
  client.stopped = true
  if (!cluster.runUntil(10_000, () => client.idle)) cluster.violations.push('a request hangs')
  let read = false
  cluster.runUntil(5_000, () => client.connect())
  client.readAll(() => {
    read = true
  })
  if (!cluster.runUntil(5_000, () => read)) cluster.violations.push('a read hangs')
  return { violations: cluster.violations, acknowledged: cluster.checker.acknowledgedWrites }
}

describe('[I5, I6] the crash of the primary in the middle of writes', () => {
  it('loses nothing in 1,000 seeds', { timeout: 300_000 }, () => {
    let acknowledged = 0
    for (let seed = 1; seed <= 1_000; seed++) {
      const result = crashOfThePrimary(seed)
      expect({ seed, violations: result.violations }).toEqual({ seed, violations: [] })
      acknowledged += result.acknowledged
    }
    expect(acknowledged).toBeGreaterThan(10_000)
  })
})
