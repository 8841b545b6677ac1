/**
 * What the REST API, the metrics endpoint and the command line ask of a node. Implemented by the
 * engine; every method answers from any node of the cluster.
 */
import type { Epoch, Lsn, NodeId } from './numbers.ts'
import type { AliveRecord, FailureMode, NodeRecord, TombstoneRecord, VolumeRecord } from './records.ts'

/** `healthy`: a primary serves and all copies wanted are in sync. `degraded`: serves with fewer. */
export type VolumeState = 'healthy' | 'degraded' | 'unavailable' | 'creating'

/** This node's own copy, as it knows it. */
export interface LocalReplicaView {
  readonly role: 'primary' | 'secondary' | 'candidate' | 'idle' | 'failed'
  readonly epoch: Epoch
  readonly appendedLsn: Lsn
  readonly committedLsn: Lsn
  readonly durableLsn: Lsn
  readonly mappedBlocks: number
  readonly segmentCount: number
  readonly logBytes: number
  /** Primary only: each other replica's distance behind, in bytes, and what it does. */
  readonly members: readonly MemberView[]
  /** Why it can't work, if it can't. */
  readonly problem?: string | undefined
}

export interface MemberView {
  readonly node: NodeId
  readonly state: 'in-sync' | 'catching-up' | 'rebuilding' | 'away'
  readonly lagBytes: number
  /** 0 to 1 while rebuilding or catching up. */
  readonly progress: number
}

export interface VolumeView {
  readonly record: VolumeRecord
  readonly state: VolumeState
  /** The node that holds the primary's key now. */
  readonly primary: NodeId | undefined
  readonly local: LocalReplicaView | undefined
}

export interface NodeView {
  readonly record: NodeRecord
  readonly alive: AliveRecord | undefined
  readonly volumeCount: number
  readonly primaryCount: number
}

export interface CreateVolume {
  readonly name: string
  readonly namespace: string
  readonly sizeBytes: number
  readonly replicaCount: number
  readonly labels: Readonly<Record<string, string>>
  /** Default by the number of replicas: `alwayson` up to 2, `threshold=2` from 3. */
  readonly failureMode?: FailureMode | undefined
}

/** Every failure is a HoldfastError that says what was wrong and what to do. */
export interface ClusterAdmin {
  readonly node: NodeId
  volumes(): readonly VolumeView[]
  volume(namespace: string, name: string): VolumeView | undefined
  nodes(): readonly NodeView[]
  tombstones(): readonly TombstoneRecord[]
  /** Places the replicas and answers once the volume serves. */
  createVolume(request: CreateVolume): Promise<VolumeView>
  /** Removes the volume and, on every node, its data. Not undoable. */
  removeVolume(namespace: string, name: string): Promise<void>
  /** A planned change of the primary; without `to` the best other in-sync member. */
  movePrimary(namespace: string, name: string, to: NodeId | undefined): Promise<VolumeView>
  /** Marks a node as draining (or not): the controller moves its replicas elsewhere. */
  setDraining(node: NodeId, draining: boolean): Promise<NodeView>
  /** Ready = coordinator reached, cluster known, peers accepted. */
  readiness(): { readonly ready: boolean; readonly reason: string }
}

/** Counters and gauges of the engine, read by the metrics endpoint when it is scraped. */
export interface EngineStatistics {
  readonly operations: readonly OperationStatistics[]
  readonly epochChanges: number
  readonly relayedRequests: number
  readonly damagedBlocks: number
  readonly membersDropped: number
  readonly membersAdded: number
}
export interface OperationStatistics {
  readonly volume: string
  readonly operation: 'read' | 'write' | 'zero' | 'flush'
  readonly count: number
  readonly bytes: number
  readonly errors: number
  /** Latency counts per bucket; bucket i ends at 2^i * 16 microseconds, the last is open. */
  readonly latencyBuckets: readonly number[]
  readonly latencySumSeconds: number
}
