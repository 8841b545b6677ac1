/** The cluster as the placement sees it. */
import type { VolumeRecord } from '@holdfast/base'
import type { PlacementNode } from '@holdfast/controller'
import { inSyncMinimum } from '@holdfast/replication'
import type { ClusterView } from './cluster-view.ts'

export function placementNodes(view: ClusterView): PlacementNode[] {
  const volumes = [...view.volumes.values()]
  return [...view.nodes.values()].map(({ record }) => {
    const alive = view.alive.get(record.name)?.record
    return {
      name: record.name,
      alive: alive !== undefined,
      draining: record.draining,
      freeBytes: alive?.freeBytes ?? 0,
      totalBytes: alive?.totalBytes ?? 0,
      volumeCount: volumes.filter((volume) => volume.record.replicas.includes(record.name)).length,
      labels: record.labels,
    }
  })
}

/** In-sync copies that the volume's failure mode asks for. */
export function inSyncNeeded(record: VolumeRecord): number {
  return inSyncMinimum(record.failureMode, record.replicaCount)
}
