/**
 * What the cluster keeps in the coordinator, and under which keys. Values are JSON.
 *
 * The state of a volume (epoch, primary, in-sync set, replicas) lies in the volume's own record and is
 * changed only by compare-and-swap of that key (DESIGN: I5, I7); the primary's key hangs on its lease.
 */
import type { Epoch, Incarnation, NodeId, VolumeId } from './numbers.ts'

/** When writes are refused for want of copies. */
export type FailureMode =
  | { readonly kind: 'hard' }
  | { readonly kind: 'threshold'; readonly inSyncMin: number }
  | { readonly kind: 'alwayson' }

/** The one host that may write to a volume while it is attached there. */
export interface VolumeAttachment {
  readonly node: NodeId
  /** Of the record when the host took it: grows, and never comes again. */
  readonly generation: number
  /** The primary lets only that host write, and nothing of anybody else is on its way any more. */
  readonly confirmed: boolean
  /** RFC 3339. */
  readonly since: string
}

/** At `volumes/<namespace>/<name>`. */
export interface VolumeRecord {
  readonly id: VolumeId
  readonly name: string
  readonly namespace: string
  readonly sizeBytes: number
  /** Copies wanted, the primary's included. */
  readonly replicaCount: number
  readonly failureMode: FailureMode
  readonly labels: Readonly<Record<string, string>>
  /** RFC 3339. */
  readonly createdAt: string
  readonly segmentBlocks: number
  readonly epoch: Epoch
  /** The last elected primary; whether it lives is said by the primary's key. */
  readonly primary: NodeId | undefined
  /** Whose acknowledgement a write needs. Never empty. */
  readonly inSync: readonly NodeId[]
  /** Every node that holds or shall hold a copy. Contains `inSync`. */
  readonly replicas: readonly NodeId[]
  /** Who should stand first: set by a planned move and at creation. */
  readonly successor?: NodeId | undefined
  /** The primary of that epoch has ended its reign itself: promises made to it bind nobody any more. */
  readonly releasedEpoch?: Epoch | undefined
  /** Who shall leave `inSync` although it is well: the primary drops it and clears this. */
  readonly retiring?: NodeId | undefined
  /** Changed by the host that attaches, confirmed by the primary. */
  readonly attachment?: VolumeAttachment | undefined
}

/** Label that says whether the data follows the host that the volume is attached to. */
export const LOCALITY_LABEL = 'holdfast.locality'
export const followsHost = ({ labels }: VolumeRecord): boolean => labels[LOCALITY_LABEL] !== 'off'

/** At `primaries/<volume id>`, bound to the lease of the node. */
export interface PrimaryRecord {
  readonly node: NodeId
  readonly incarnation: Incarnation
  readonly epoch: Epoch
}

/** At `controller`, bound to the lease of the node. */
export interface ControllerRecord {
  readonly node: NodeId
  readonly incarnation: Incarnation
}

/** At `nodes/<name>`: stays when the node is down. */
export interface NodeRecord {
  readonly name: NodeId
  readonly host: string
  readonly peerPort: number
  readonly apiPort: number
  readonly nbdPort: number
  readonly labels: Readonly<Record<string, string>>
  readonly draining: boolean
  /** Threads that its volumes are spread over (`shards.ts`); absent: one. */
  readonly shards?: number | undefined
}

/** At `alive/<name>`, bound to the lease of the node. */
export interface AliveRecord {
  readonly name: NodeId
  readonly incarnation: Incarnation
  readonly freeBytes: number
  readonly totalBytes: number
  /** RFC 3339: since when this incarnation runs. */
  readonly since: string
}

/** At `tombstones/<volume id>`: the volume was removed; only this permits deleting its data. */
export interface TombstoneRecord {
  readonly id: VolumeId
  readonly name: string
  readonly namespace: string
  /** Nodes that may still hold data of it; each removes itself, the last one the key. */
  readonly holders: readonly NodeId[]
  /** RFC 3339. */
  readonly removedAt: string
}

export const KEY_ROOT = 'holdfast/v1/'
export const keys = {
  volumes: `${KEY_ROOT}volumes/`,
  volume: (namespace: string, name: string): string => `${KEY_ROOT}volumes/${namespace}/${name}`,
  primaries: `${KEY_ROOT}primaries/`,
  primary: (id: VolumeId): string => `${KEY_ROOT}primaries/${id}`,
  nodes: `${KEY_ROOT}nodes/`,
  node: (name: NodeId): string => `${KEY_ROOT}nodes/${name}`,
  alive: `${KEY_ROOT}alive/`,
  aliveNode: (name: NodeId): string => `${KEY_ROOT}alive/${name}`,
  tombstones: `${KEY_ROOT}tombstones/`,
  tombstone: (id: VolumeId): string => `${KEY_ROOT}tombstones/${id}`,
  controller: `${KEY_ROOT}controller`,
} as const
