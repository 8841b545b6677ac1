/** What every part of one node's engine shares. */
import type {
  Checksum,
  Clock,
  Coordinator,
  Disk,
  EventLog,
  Incarnation,
  NodeId,
  PeerNetwork,
  Random,
  Scheduler,
  Shard,
} from '@holdfast/base'
import type { LogMemory, LogSettings } from '@holdfast/volume-log'
import type { PeerMessage } from '@holdfast/wire'
import type { ClusterView } from './cluster-view.ts'
import type { PeerTable } from './peer-table.ts'
import type { RestRation } from './rest-ration.ts'
import type { Statistics } from './statistics.ts'

export interface EnginePorts {
  readonly clock: Clock
  readonly scheduler: Scheduler
  readonly random: Random
  readonly disk: Disk
  readonly checksum: Checksum
  readonly network: PeerNetwork<PeerMessage>
  readonly coordinator: Coordinator
  readonly events: EventLog
}

export interface EngineSelf {
  readonly node: NodeId
  readonly incarnation: Incarnation
  readonly host: string
  readonly peerPort: number
  readonly apiPort: number
  readonly nbdPort: number
  readonly labels: Readonly<Record<string, string>>
}

export interface EngineSettings {
  readonly leaseTtlMs: number
  /** A replica whose node stays away longer is replaced. */
  readonly replaceAfterMs: number
  /** Writes wait this long for enough in-sync copies before they fail (failure mode). */
  readonly tooFewReplicasMs: number
  /** A deleted volume's or surplus replica's data, and cut tails, are kept this long. */
  readonly keepCutMs: number
  /** Bytes sent to a catching-up member and not acknowledged. */
  readonly catchUpWindowBytes: number
  /** Blocks in a segment of volumes that are made here, whatever their size: small ones make a long life short. */
  readonly segmentBlocks?: number | undefined
  readonly log?: Partial<LogSettings> | undefined
  /** Between two rounds of a log's upkeep. */
  readonly maintenanceMs: number
}

export const defaultEngineSettings: EngineSettings = {
  leaseTtlMs: 10_000,
  replaceAfterMs: 600_000,
  tooFewReplicasMs: 30_000,
  keepCutMs: 86_400_000,
  catchUpWindowBytes: 16 * 1024 * 1024,
  maintenanceMs: 1_000,
}

/** Times that follow from the lease's, so that one setting scales them all. */
export function derivedTimes(leaseTtlMs: number) {
  const grantMs = Math.max(600, Math.round(leaseTtlMs * 0.5))
  return {
    grantMs,
    beaconMs: Math.round(grantMs / 5),
    tickMs: 50,
    primary: {
      reconnectGraceMs: Math.min(300, leaseTtlMs / 8),
      memberTimeoutMs: Math.max(800, Math.round(leaseTtlMs * 0.6)),
      acknowledgeTimeoutMs: Math.max(5_000, leaseTtlMs),
      flushTimeoutMs: Math.max(60_000, leaseTtlMs * 6),
      stuckMs: leaseTtlMs * 2,
    },
    election: { collectMs: 250, yieldMs: 1_000 },
  } as const
}
export type DerivedTimes = ReturnType<typeof derivedTimes>

/** The node's lease: what leased keys hang on. `serial` tells one lease from the next. */
export interface LeaseState {
  held: boolean
  serial: number
}

export interface NodeContext extends EnginePorts, LogMemory {
  readonly self: EngineSelf
  readonly bootId: string
  readonly shard: Shard
  readonly settings: EngineSettings
  readonly times: DerivedTimes
  readonly lease: LeaseState
  readonly view: ClusterView
  readonly peers: PeerTable
  readonly statistics: Statistics
  readonly rests: RestRation
}
