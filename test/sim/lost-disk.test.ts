/** A node that comes back with an empty disk: what it had is elsewhere, or nowhere. */
import { errno } from '@holdfast/base'
import { nativeChecksum } from '@holdfast/disk'
import { SimCluster, type SimNode } from '@holdfast/simulator'
import { describe, expect, it } from 'vitest'

const BLOCK = 4096
const VOLUME = 'v1'

function written(copies: number) {
  const cluster = new SimCluster({ seed: 5, checksum: nativeChecksum, nodeCount: copies })
  cluster.createVolume(VOLUME, copies, 64)
  expect(cluster.runUntil(5_000, () => cluster.healthy(VOLUME))).toBe(true)
  const primary = cluster.primaryOf(VOLUME) as SimNode
  const { session, answers } = open(cluster, primary)
  session.write(1, 0, new Uint8Array(BLOCK).fill(7), 0, BLOCK, true)
  expect(cluster.runUntil(5_000, () => answers.get(1) === errno.OK)).toBe(true)
  session.close()
  return { cluster, primary }
}

function open(cluster: SimCluster, node: SimNode) {
  const answers = new Map<number, number>()
  const session = node.engine?.exports.open(VOLUME, (token, error) => answers.set(token, error))
  if (session === undefined) throw new Error(`${node.name} has no such export`)
  const firstByte = (): number => {
    const target = new Uint8Array(BLOCK)
    if (session.read(9, 0, BLOCK, target, 0)) answers.set(9, 0)
    expect(cluster.runUntil(5_000, () => answers.get(9) === errno.OK)).toBe(true)
    return target[0] ?? -1
  }
  return { session, answers, firstByte }
}

describe('[I5, I9] a copy whose disk was replaced', () => {
  it.each([true, false])('is not elected over the one that holds the data, and is fed by it (its process ends again meanwhile: %s)', (again) => {
    const { cluster, primary } = written(2)
    const other = cluster.nodes.find((node) => node !== primary) as SimNode
    // Together: each still counts the other in.
    cluster.crash(primary)
    cluster.crash(other)
    other.platter.replace()
    cluster.restart(other)
    expect(cluster.runUntil(30_000, () => cluster.primaryOf(VOLUME) !== undefined)).toBe(false)
    if (again) {
      cluster.crash(other)
      cluster.restart(other)
      expect(cluster.runUntil(30_000, () => cluster.primaryOf(VOLUME) !== undefined)).toBe(false)
    }
    cluster.restart(primary)
    expect(cluster.runUntil(30_000, () => cluster.healthy(VOLUME))).toBe(true)
    expect(cluster.record(VOLUME)?.inSync).toHaveLength(2)
    const now = cluster.primaryOf(VOLUME) as SimNode
    expect(open(cluster, now).firstByte()).toBe(7)
    // It is a copy like any other now.
    cluster.crash(now)
    expect(cluster.runUntil(30_000, () => cluster.primaryOf(VOLUME) !== undefined)).toBe(true)
    const next = cluster.primaryOf(VOLUME) as SimNode
    expect(next).not.toBe(now)
    expect(open(cluster, next).firstByte()).toBe(7)
    expect(cluster.violations).toEqual([])
  })

  it('serves nothing where it was the only one', () => {
    const { cluster, primary } = written(1)
    cluster.crash(primary)
    primary.platter.replace()
    cluster.restart(primary)
    expect(cluster.runUntil(60_000, () => cluster.primaryOf(VOLUME) !== undefined)).toBe(false)
    const id = cluster.record(VOLUME)?.id
    const problem = id === undefined ? undefined : primary.engine?.replicas.get(id)?.view().problem
    expect(problem).toContain('gone')
  })
})
