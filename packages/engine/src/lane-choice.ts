/** Which lane a new volume gets, so that the threads of the nodes that hold it have equally much to do. */
import {
  LANE_COUNT,
  LANE_DIGITS,
  laneOf,
  type NodeId,
  shardCount,
  shardOf,
  type VolumeId,
  volumeId,
} from '@holdfast/base'
import type { ClusterView } from './cluster-view.ts'

/** A primary reads, seals and sends; a secondary only appends. */
const PRIMARY_WEIGHT = 2

/** A new id: `digits` with the lane that suits a volume on `replicas`, the first of them its primary. */
export function idInLane(digits: string, view: ClusterView, replicas: readonly NodeId[]): VolumeId {
  const lane = chooseLane(view, replicas)
  return volumeId(digits.slice(0, -LANE_DIGITS) + lane.toString(16).padStart(LANE_DIGITS, '0'))
}

/**
 * The lane whose shards have least to do, weighed by what each copy would do there; of these the one that fewest volumes
 * of the cluster have, so that a change of the number of shards finds them spread, too.
 */
export function chooseLane(view: ClusterView, replicas: readonly NodeId[]): number {
  const used = new Uint32Array(LANE_COUNT)
  const loads = new Map<NodeId, Float64Array>()
  for (const node of replicas) loads.set(node, new Float64Array(shardCount(view.nodes.get(node)?.record)))
  for (const { record } of view.volumes.values()) {
    const lane = laneOf(record.id)
    used[lane] = (used[lane] as number) + 1
    const primary = record.primary ?? record.successor
    for (const node of record.replicas) {
      const load = loads.get(node)
      if (load === undefined) continue
      const shard = shardOf(record.id, load.length)
      load[shard] = (load[shard] as number) + (node === primary ? PRIMARY_WEIGHT : 1)
    }
  }
  const cost = (lane: number): number => {
    return replicas.reduce((sum, node, at) => {
      const load = loads.get(node) as Float64Array
      return sum + (load[lane % load.length] as number) * (at === 0 ? PRIMARY_WEIGHT : 1)
    }, 0)
  }
  let best = 0
  let bestCost = Number.POSITIVE_INFINITY
  for (let lane = 0; lane < LANE_COUNT; lane++) {
    const here = cost(lane)
    if (here < bestCost || (here === bestCost && (used[lane] as number) < (used[best] as number))) {
      best = lane
      bestCost = here
    }
  }
  return best
}
