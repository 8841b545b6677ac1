/**
 * What the main thread and its shards say to each other. The coordinator has a port of its own; everything else that they
 * share goes through the records there.
 *
 * A descriptor in a message is the receiver's from then on: it makes a socket of it or closes it.
 */
import type { EngineStatistics, LocalReplicaView, NodeId, Shard, VolumeId } from '@holdfast/base'
import type { EngineSelf, EngineSettings } from '@holdfast/engine'
import type { HandedConnection, NbdCounters } from '@holdfast/nbd-server'
import type { HandedLink } from '@holdfast/peer-link'
import type { MessagePort } from 'node:worker_threads'
import type { LogLevel } from './config.ts'

/** What a shard is born with. */
export interface ShardBirth {
  readonly shard: Shard
  readonly node: NodeId
  readonly logLevel: LogLevel
  readonly dataDir: string
  readonly bootId: string
  readonly cluster: string
  readonly settings: Partial<EngineSettings>
  readonly keepAwake: boolean
  readonly coordinator: MessagePort
  readonly leaseMemory: SharedArrayBuffer
}

export type ToShard =
  /** First of all. The main thread has opened the disk, and takes connections. */
  | { readonly kind: 'start'; readonly self: EngineSelf }
  | { readonly kind: 'nbd'; readonly handed: HandedConnection }
  | { readonly kind: 'peer'; readonly handed: HandedLink }
  | { readonly kind: 'report'; readonly id: number }
  /** Ends its clients' connections in order; answered by `nbd-closed-all`. */
  | { readonly kind: 'close-nbd' }
  /** Hands over, flushes, closes; answered by `stopped`. */
  | { readonly kind: 'stop' }

export type FromShard =
  | { readonly kind: 'ready' }
  | { readonly kind: 'report'; readonly id: number; readonly report: ShardReport }
  /** One connection that was handed to it has ended. */
  | { readonly kind: 'nbd-closed' }
  | { readonly kind: 'nbd-closed-all' }
  | { readonly kind: 'stopped' }

export interface ShardReport {
  readonly statistics: EngineStatistics
  readonly replicas: ReadonlyMap<VolumeId, LocalReplicaView>
  readonly nbd: NbdCounters
  /** It keeps processors from sleeping. */
  readonly awake: boolean
}
