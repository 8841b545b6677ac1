/** A member is asked to leave the set: what becomes of the wish and the member if things happen meanwhile. */
import { keys, type VolumeRecord } from '@holdfast/base'
import { nativeChecksum } from '@holdfast/disk'
import { SimCluster, type SimNode } from '@holdfast/simulator'
import { describe, expect, it } from 'vitest'

const VOLUME = 'v1'
const KEY = keys.volume('default', VOLUME)

function begin(replicaCount: number): { cluster: SimCluster; primary: SimNode; member: SimNode } {
  const cluster = new SimCluster({ seed: 1, checksum: nativeChecksum, nodeCount: 3 })
  cluster.createVolume(VOLUME, replicaCount, 16)
  expect(cluster.runUntil(5_000, () => cluster.healthy(VOLUME))).toBe(true)
  const primary = cluster.primaryOf(VOLUME)
  const { inSync } = recordOf(cluster)
  const member = cluster.nodes.find((node) => node !== primary && inSync.includes(node.name))
  if (primary === undefined || member === undefined) throw new Error('the volume has no primary or no member')
  return { cluster, primary, member }
}

function recordOf(cluster: SimCluster): VolumeRecord {
  const record = cluster.record(VOLUME)
  if (record === undefined) throw new Error('the volume has no record')
  return record
}

/** Changes the record as a controller would. */
function change(cluster: SimCluster, changed: Partial<VolumeRecord>): void {
  const value = JSON.stringify({ ...recordOf(cluster), ...changed })
  const operations = [{ op: 'put', key: KEY, value }] as const
  expect(cluster.coordinator.transact({ compares: [], operations }, undefined).kind).toBe('ok')
}

describe('[I7] a member that is asked to leave', () => {
  it('stays when another primary is elected: the wish was made for the set of before', () => {
    const { cluster, primary, member } = begin(3)
    cluster.crash(primary)
    change(cluster, { retiring: member.name })
    expect(cluster.runUntil(20_000, () => recordOf(cluster).epoch === 2)).toBe(true)
    cluster.run(2_000)
    expect(recordOf(cluster).inSync).toContain(member.name)
    expect(recordOf(cluster).retiring).toBeUndefined()
    expect(cluster.violations).toEqual([])
  })

  it('gets in again when it is given a copy before it has heard that it had left', () => {
    const { cluster, member } = begin(2)
    const { replicas } = recordOf(cluster)
    cluster.coordinator.unreachableFrom.add(member.name)
    change(cluster, { retiring: member.name, replicaCount: 1 })
    expect(cluster.runUntil(2_000, () => !recordOf(cluster).replicas.includes(member.name))).toBe(true)
    change(cluster, { replicas, replicaCount: 2 })
    cluster.run(200)
    cluster.coordinator.unreachableFrom.clear()
    expect(cluster.runUntil(20_000, () => recordOf(cluster).inSync.includes(member.name))).toBe(true)
    expect(recordOf(cluster).replicas).toEqual(replicas)
    expect(cluster.violations).toEqual([])
  })

  it('stays while there are no more copies in sync than are wanted', () => {
    const { cluster, member } = begin(2)
    change(cluster, { retiring: member.name })
    cluster.run(2_000)
    expect(recordOf(cluster).inSync).toContain(member.name)
    expect(cluster.violations).toEqual([])
  })
})
