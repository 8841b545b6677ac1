/**
 * Which thread of a node works on a volume.
 *
 * A node is divided into shards, one thread each. A volume has a lane, which is part of its id and so never changes;
 * the shard follows from the lane and from how many shards the node in question has. Every node can tell for every other.
 */
import type { VolumeId } from './numbers.ts'
import type { NodeRecord } from './records.ts'

/** Two hexadecimal digits: the last two of the id. */
export const LANE_COUNT = 256
export const LANE_DIGITS = 2
const LANE = /^[0-9a-f]{2}$/

export interface Shard {
  readonly index: number
  readonly count: number
}

export const ONLY_SHARD: Shard = { index: 0, count: 1 }

export function laneOf(volume: VolumeId): number {
  const digits = volume.slice(-LANE_DIGITS)
  // No id of ours, but one that must not make two shards of a node believe different things.
  return LANE.test(digits) ? Number.parseInt(digits, 16) : 0
}

/** The shard that works on the volume at a node with `count` of them. */
export function shardOf(volume: VolumeId, count: number): number {
  return laneOf(volume) % count
}

/** How many shards a node has; one that says nothing knows of none. */
export function shardCount(node: NodeRecord | undefined): number {
  return node?.shards ?? 1
}
