/** What the log hands out and takes: plain values shared by its parts. */
import type { Checksum, Disk, DiskError, Epoch, EventLog, Lsn, Scheduler, VolumeId } from '@holdfast/base'
import type { BatchPool } from './batch.ts'
import type { CrcCache } from './crc-cache.ts'
import type { SummaryCache } from './summary-cache.ts'
import type { WordPool } from './word-pool.ts'

/** First log position of an epoch. Structurally equal to the wire's type of that name. */
export interface EpochStart {
  readonly epoch: Epoch
  readonly firstLsn: Lsn
}

export interface LogSettings {
  /** Bytes of free space kept for compaction, zeroes and checkpoints. */
  readonly reserveBytes: number
  /** New log that starts a checkpoint at the least. */
  readonly checkpointBytesMin: number
  /** Freed segment files kept for reuse by a log at rest, or where space is short. */
  readonly spareFilesMax: number
  /** Bytes of freed segment files kept by a log that is written to, if that is more. */
  readonly spareBytesMax: number
  /** Segments that log may exceed twice the live blocks by, before compaction. */
  readonly compactionSlackSegments: number
  /** Dead segments below the commit position that start a checkpoint before its time. */
  readonly deadSegmentsMax: number
  /** Dead segments that were never durable and that start a soft checkpoint (decision 20); 0: never. */
  readonly softDeadSegmentsMin: number
  /** Rounds of maintenance that soft checkpoints may stand in for a durable one. */
  readonly softRoundsMax: number
  /** Bytes of live log behind the newest durable checkpoint, or of dead log that only a durable one frees, that call for one. */
  readonly softBytesMax: number
  /** The dead log of these may come to this share of the disk's free space, if that is more. */
  readonly deadFreeShareMax: number
  /** Milliseconds that cut tails are kept aside; applied when the log is opened. */
  readonly cutKeepMs: number
  /** Calls of `maintenance` without use after which a segment file is closed. */
  readonly idleRounds: number
  /** Open files above which the least recently used are closed. */
  readonly openFilesMax: number
  /** Segments that the log may come to, if that is less than map entries can name (decision 2): for tests. */
  readonly segmentsMax: number
  /** Pages of the block map (4 MiB of the volume each), from the first on, whose blocks are never scattered (decision 23). */
  readonly mapWholePages: number
}

export const defaultSettings: LogSettings = {
  reserveBytes: 256 * 1024 * 1024,
  checkpointBytesMin: 256 * 1024 * 1024,
  spareFilesMax: 8,
  spareBytesMax: 1280 * 1024 * 1024,
  compactionSlackSegments: 4,
  deadSegmentsMax: 8,
  softDeadSegmentsMin: 8,
  softRoundsMax: 30,
  softBytesMax: 1024 * 1024 * 1024,
  deadFreeShareMax: 1 / 16,
  cutKeepMs: 24 * 3600 * 1000,
  idleRounds: 2,
  openFilesMax: 128,
  segmentsMax: Number.POSITIVE_INFINITY,
  mapWholePages: 64,
}

/** Memory that all logs of a node share. */
export interface LogMemory {
  readonly crcCache: CrcCache
  readonly summaryCache: SummaryCache
  readonly wordPool: WordPool
  readonly batchPool: BatchPool
}

export interface ReplicaLogOptions extends LogMemory {
  readonly disk: Disk
  readonly checksum: Checksum
  readonly scheduler: Scheduler
  readonly events: EventLog
  /** Directory of this replica, relative to the data directory: `volumes/<id>`. */
  readonly path: string
  readonly volume: VolumeId
  /** Blocks in a segment: a power of two, at least 8. Fixed at creation of the volume. */
  readonly segmentBlocks: number
  /** Size of a new volume; an existing one knows its own from its log. */
  readonly sizeBytes: number
  /** Names the boot of the host: another one than at the last open means that page cache was lost. */
  readonly bootId: string
  readonly settings?: Partial<LogSettings> | undefined
  /** This copy counts as complete, so it is here: one that has to be created has lost all it had. Default: it may be new. */
  readonly expected?: boolean | undefined
  /** So many openings in a row were `unreadable`. After a few of them what the disk does not give counts as damage. Default: none. */
  readonly unreadableBefore?: number | undefined
  /** Wall clock, for the names and the age of cut tails only. Without it they are kept for ever. */
  readonly wallMs?: (() => number) | undefined
}

/**
 * `mismatch`: the directory belongs to another volume or another segment size. `unreadable`: the disk did not give something
 * that it may give the next time.
 */
export interface LogOpenError {
  readonly kind: 'io' | 'mismatch' | 'unreadable'
  readonly message: string
}

/** What can't be trusted although it was durable. `logicalBlock` -1: not known (header lost). */
export interface DamageRange {
  readonly kind: 'payload' | 'header' | 'segment-missing' | 'checkpoint'
  readonly lsn: Lsn
  readonly blockCount: number
  readonly logicalBlock: number
}

export interface RecoveryReport {
  readonly created: boolean
  readonly checkpointLsn: Lsn
  readonly replayedBatches: number
  /** Where the torn tail was cut; undefined when there was nothing behind the last good batch. */
  readonly cutAtLsn: Lsn | undefined
  readonly damage: readonly DamageRange[]
  readonly suspect: boolean
  readonly rebuilding: boolean
  /** It began at a checkpoint that is not durable. */
  readonly soft: boolean
}

/**
 * `ok`: usable. `damaged`: a batch below the durable LSN is lost; what lies before it is readable, and
 * `appendRaw` from a peer heals it. `rebuilding`: empty until `install`. `failed`: a write or flush
 * failed; only opening anew helps.
 */
export type LogState = 'ok' | 'damaged' | 'rebuilding' | 'failed' | 'closed'

export interface AppendRefusal {
  readonly kind: 'refused'
  readonly reason:
    | 'gap'
    | 'stale-epoch'
    | 'bad-header'
    | 'bad-chain'
    | 'bad-payload'
    | 'wrong-volume'
    | 'not-usable'
  readonly lsn: Lsn
}

export type ReadError =
  | { readonly kind: 'io'; readonly message: string }
  | {
      readonly kind: 'damaged'
      readonly lsn: Lsn
      /** -1 when asked by log position. */
      readonly logicalBlock: number
      readonly blockCount: number
    }

/** `wrong`: not what the header of the batch says, or nothing says what is right because that header is damaged. */
export interface RepairRefusal {
  readonly kind: 'wrong'
  readonly message: string
}

export interface TruncateRefusal {
  readonly kind: 'would-lose-committed' | 'not-a-boundary' | 'not-usable'
  readonly lsn: Lsn
}

export type AppendDone = (error: DiskError | undefined) => void
export type RawAppendDone = (error: DiskError | AppendRefusal | undefined) => void
export type RepairDone = (error: DiskError | RepairRefusal | undefined) => void
export type ReadDone = (error: ReadError | undefined) => void

export const ioError = (message: string): DiskError => ({ kind: 'io', message })
