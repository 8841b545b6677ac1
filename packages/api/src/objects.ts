/**
 * The objects of the REST API. They are a contract with scripts: fields are added, never changed.
 * Sizes are bytes, times RFC 3339.
 */
import type { ErrorCode, LocalReplicaView, MemberView, VolumeState } from '@holdfast/base'

/** This node's own copy of a volume, as it knows it. */
export interface LocalReplicaObject {
  readonly role: LocalReplicaView['role']
  readonly epoch: number
  readonly appendedLsn: number
  readonly committedLsn: number
  readonly durableLsn: number
  readonly mappedBytes: number
  readonly logBytes: number
  readonly segments: number
  /** Primary only: how far the other copies are. */
  readonly members: readonly MemberView[]
  readonly problem?: string | undefined
}

/** A volume that is a device of the host that answers. */
export interface AttachmentObject {
  readonly name: string
  readonly namespace: string
  /** Absolute. */
  readonly device: string
  /** Where it is mounted, or null. */
  readonly path: string | null
  /** Containers and others that use the mount. */
  readonly users: number
}

/** Body of a mount. */
export interface MountBody {
  /** Absolute. */
  readonly directory: string
  readonly fileSystem?: string | undefined
  readonly mkfsOptions?: readonly string[] | undefined
  readonly mountOptions?: readonly string[] | undefined
  readonly readOnly?: boolean | undefined
}

export interface VolumeObject {
  readonly id: string
  readonly name: string
  readonly namespace: string
  /** NBD export name. */
  readonly export: string
  readonly size: number
  readonly epoch: number
  /** The node that serves it now, or null. */
  readonly primary: string | null
  readonly inSync: readonly string[]
  /** Every node that holds or shall hold a copy. */
  readonly replicas: readonly string[]
  /** Copies wanted, the primary's included. */
  readonly replicaCount: number
  readonly state: VolumeState
  /** `hard`, `alwayson` or `threshold=N`. */
  readonly failureMode: string
  readonly labels: Readonly<Record<string, string>>
  readonly createdAt: string
  /** The one host that may write to it, or null: it is attached nowhere. */
  readonly attachedTo: string | null
  /** Only where the node that answers holds a copy. */
  readonly local?: LocalReplicaObject | undefined
}

/** `drained`: draining, and nothing is left on it. */
export type NodeState = 'up' | 'down' | 'draining' | 'drained'

export interface NodeObject {
  readonly name: string
  readonly state: NodeState
  readonly host: string
  readonly peerPort: number
  readonly apiPort: number
  readonly nbdPort: number
  readonly labels: Readonly<Record<string, string>>
  readonly draining: boolean
  /** Copies of volumes it holds or shall hold. */
  readonly volumeCount: number
  readonly primaryCount: number
  /** These four only while it lives. */
  readonly incarnation?: string | undefined
  readonly since?: string | undefined
  readonly freeBytes?: number | undefined
  readonly totalBytes?: number | undefined
}

export interface NodeVolumeObject {
  readonly name: string
  readonly namespace: string
  readonly state: VolumeState
  readonly role: 'primary' | 'in-sync' | 'catching-up'
}

export interface NodeDetailObject extends NodeObject {
  readonly volumes: readonly NodeVolumeObject[]
}

export interface StatusObject {
  /** The node that answers. */
  readonly node: string
  readonly version: string
  readonly ready: boolean
  readonly reason: string
  readonly nodes: { readonly total: number; readonly up: number; readonly draining: number }
  readonly volumes: { readonly total: number } & Readonly<Record<VolumeState, number>>
  readonly freeBytes: number
  readonly totalBytes: number
  /** Removed volumes whose data some node still has to delete. */
  readonly tombstones: number
  /** One sentence for each thing that is not as it should be. */
  readonly attention: readonly string[]
}

export interface CreateVolumeBody {
  readonly name: string
  readonly namespace?: string | undefined
  /** Bytes, or text like `10GiB`. */
  readonly size: number | string
  /** Copies, the primary's included. Default 2, or 1 in a cluster of one node. */
  readonly replicas?: number | undefined
  readonly labels?: Readonly<Record<string, string>> | undefined
  readonly failureMode?: string | undefined
}

export interface ErrorBody {
  readonly error: {
    readonly code: ErrorCode
    readonly message: string
    readonly details: Readonly<Record<string, string | number | boolean>>
  }
}
