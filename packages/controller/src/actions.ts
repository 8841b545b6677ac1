/** What goes into a controller and what comes out. */
import type {
  AliveRecord,
  Epoch,
  Instant,
  NodeId,
  NodeRecord,
  PrimaryRecord,
  TombstoneRecord,
  VolumeId,
  VolumeRecord,
} from '@holdfast/base'

export interface ControllerNode {
  readonly record: NodeRecord
  readonly alive: AliveRecord | undefined
}

export interface ControllerVolume {
  readonly key: string
  readonly modRevision: number
  readonly record: VolumeRecord
  readonly primary: PrimaryRecord | undefined
}

export interface ControllerTombstone {
  readonly key: string
  readonly modRevision: number
  readonly record: TombstoneRecord
}

/** The cluster as the coordinator's watches show it. Only complete views: all prefixes have been read. */
export interface ControllerInput {
  /** This node's own monotonic clock. */
  readonly now: Instant
  readonly nodes: readonly ControllerNode[]
  readonly volumes: readonly ControllerVolume[]
  readonly tombstones: readonly ControllerTombstone[]
}

export type ControllerAction =
  /** Compare-and-swap of the volume's record; only `replicas` and `successor` differ. */
  | {
      readonly kind: 'update-volume'
      readonly key: string
      readonly modRevision: number
      readonly record: VolumeRecord
      readonly why: string
    }
  /** The primary sets `successor` and hands over once `to` has all of its log. */
  | {
      readonly kind: 'move-primary'
      readonly volume: VolumeId
      readonly key: string
      readonly from: NodeId
      readonly to: NodeId
      /** The reign this is meant for: a later primary ignores it. */
      readonly epoch: Epoch
      readonly why: string
    }
  /** The primary takes `node` out of `inSync` by its own compare-and-swap (DESIGN: I7). */
  | {
      readonly kind: 'retire-member'
      readonly volume: VolumeId
      readonly key: string
      readonly node: NodeId
      /** Who is asked. */
      readonly primary: NodeId
      readonly epoch: Epoch
      readonly why: string
    }
  /** Compare-and-swap of a tombstone: holders that are no nodes of the cluster any more are gone. */
  | {
      readonly kind: 'update-tombstone'
      readonly key: string
      readonly modRevision: number
      readonly record: TombstoneRecord
      readonly why: string
    }
  /** Deletes a tombstone without holders, if unchanged. */
  | {
      readonly kind: 'delete-tombstone'
      readonly key: string
      readonly modRevision: number
      readonly why: string
    }
  | {
      readonly kind: 'event'
      readonly level: 'debug' | 'info' | 'warn' | 'error'
      readonly message: string
      readonly fields: Readonly<Record<string, string | number | boolean | undefined>>
    }

export interface ControllerSettings {
  /** How long a node may be away before its copies are made anew elsewhere, milliseconds. */
  readonly replaceAfterMs: number
  /** Copies that may be filling on one node before it is given another. */
  readonly rebuildsPerNodeMax: number
  /** The same request is repeated only after this time, milliseconds. */
  readonly retryMs: number
  /** A volume is brought to its host when it has been attached there for so long, milliseconds: not for a short job. */
  readonly followAfterMs: number
  /** Actions of one step, events not counted. The rest waits for the next step. */
  readonly actionsPerStepMax: number
}

export const controllerDefaults: ControllerSettings = {
  replaceAfterMs: 600_000,
  rebuildsPerNodeMax: 4,
  retryMs: 10_000,
  followAfterMs: 10_000,
  actionsPerStepMax: 64,
}
