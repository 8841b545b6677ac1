/**
 * Every message that one node sends another. Bulk travels beside the protobuf header, raw.
 *
 * A link belongs to two processes that have told each other node name and incarnation when it
 * opened (I8b); messages about a volume name it and carry the sender's epoch (I4).
 *
 * | message | sender → receiver | channel |
 * | --- | --- | --- |
 * | grant-scope, grant-request → grant | primary's node → member's node | control, dialled by the primary |
 * | status-request → status | candidate → in-sync members | control, dialled by the candidate |
 * | subscribe → accepted / rebuild / refused, append, flush, … | secondary ↔ primary | data, dialled by the secondary |
 * | request → replies | frontend ↔ primary | data, dialled by the frontend's node |
 */
import type { Epoch, Incarnation, LogPosition, Lsn, NodeId, SessionId, VolumeId } from '@holdfast/base'

/** First log position of an epoch: the epoch table says where two histories part. */
export interface EpochStart {
  readonly epoch: Epoch
  readonly firstLsn: Lsn
}

export interface VolumeEpoch {
  readonly volume: VolumeId
  readonly epoch: Epoch
}

/** Volumes for which the sender wants serving grants; replaces the scope said before (I8). */
export interface GrantScopeMessage {
  readonly type: 'grant-scope'
  readonly version: number
  readonly volumes: readonly VolumeEpoch[]
}
export interface GrantRequestMessage {
  readonly type: 'grant-request'
  readonly seq: number
  readonly scopeVersion: number
}
/** A promise not to stand for `durationMs`, for the scope but the volumes refused. */
export interface GrantMessage {
  readonly type: 'grant'
  readonly seq: number
  readonly scopeVersion: number
  readonly durationMs: number
  readonly refused: readonly VolumeId[]
}

export interface StatusRequestMessage {
  readonly type: 'status-request'
  readonly volume: VolumeId
  readonly epoch: Epoch
}
export interface StatusMessage {
  readonly type: 'status'
  readonly volume: VolumeId
  readonly epoch: Epoch
  /** False when this node holds no usable replica of it. */
  readonly present: boolean
  /** Epoch of the last batch in its log. */
  readonly lastEpoch: Epoch
  readonly appendedLsn: Lsn
  /** The host rebooted without a clean stop: the tail may be missing (I5). */
  readonly suspect: boolean
  /** Not present, and not to be waited for: its disk came back empty. Absent: no. */
  readonly lost?: boolean | undefined
}

export interface SubscribeMessage {
  readonly type: 'subscribe'
  readonly volume: VolumeId
  readonly epoch: Epoch
  /** Unlike that of any other subscription on this link; the answer carries it. */
  readonly seq: number
  readonly appendedLsn: Lsn
  readonly committedLsn: Lsn
  readonly durableLsn: Lsn
  readonly epochTable: readonly EpochStart[]
  /** Segments fully held below `appendedLsn`, for a rebuild that need not send them again. */
  readonly segments: readonly number[]
  /** CRC of the header of the last batch; a guard on top of the epoch table. */
  readonly lastHeaderCrc: number
  /** A rebuild was begun and not finished: no batch can be appended, whatever the positions say. */
  readonly rebuilding?: boolean
}
/** Truncate to `forkLsn`, then expect batches from there. */
export interface AcceptedMessage {
  readonly type: 'accepted'
  readonly volume: VolumeId
  readonly epoch: Epoch
  /** Of the subscription; 0 from a node that does not say. */
  readonly seq: number
  readonly forkLsn: Lsn
}
export interface RefusedMessage {
  readonly type: 'refused'
  readonly volume: VolumeId
  readonly epoch: Epoch
  readonly reason: 'not-primary' | 'stale-epoch' | 'no-space' | 'would-lose-committed' | 'not-a-replica' | 'unknown-volume' | 'damaged'
}
/** The log between was compacted away: take this checkpoint and the segments it needs. */
export interface RebuildMessage {
  readonly type: 'rebuild'
  readonly volume: VolumeId
  readonly epoch: Epoch
  /** Of the subscription; 0 from a node that does not say. */
  readonly seq: number
  readonly checkpointLsn: Lsn
  /** Segments that follow; those the subscriber holds and that lie below the fork are left out. */
  readonly segments: readonly number[]
  /** All segments the checkpoint needs. */
  readonly needed: readonly number[]
  readonly totalBytes: number
}
export interface SegmentDataMessage {
  readonly type: 'segment-data'
  readonly volume: VolumeId
  readonly epoch: Epoch
  readonly segment: number
  readonly offsetBytes: number
  readonly payload: readonly Uint8Array[]
}
/** A piece of the checkpoint file; `last` installs it. */
export interface CheckpointDataMessage {
  readonly type: 'checkpoint-data'
  readonly volume: VolumeId
  readonly epoch: Epoch
  readonly last: boolean
  readonly payload: readonly Uint8Array[]
}
/** Bytes of rebuild taken so far, the window of segment-data. */
export interface RebuildProgressMessage {
  readonly type: 'rebuild-progress'
  readonly volume: VolumeId
  readonly epoch: Epoch
  readonly receivedBytes: number
  /** Installed: the subscriber's log now ends at the checkpoint. */
  readonly installed: boolean
}
/** One or more whole batches, raw, from `lsn` on. */
export interface AppendMessage {
  readonly type: 'append'
  readonly volume: VolumeId
  readonly epoch: Epoch
  readonly lsn: Lsn
  readonly committedLsn: Lsn
  readonly payload: readonly Uint8Array[]
}
/** The commit position moved and nothing is there to append. */
export interface CommitMessage {
  readonly type: 'commit'
  readonly volume: VolumeId
  readonly epoch: Epoch
  readonly committedLsn: Lsn
}
/** Everything below is appended here. */
export interface AckMessage {
  readonly type: 'ack'
  readonly volume: VolumeId
  readonly epoch: Epoch
  readonly appendedLsn: Lsn
  readonly durableLsn: Lsn
}
/** Make everything appended so far durable, then ack. */
export interface FlushMessage {
  readonly type: 'flush'
  readonly volume: VolumeId
  readonly epoch: Epoch
  readonly lsn: Lsn
}
/** A damaged block is asked for from the same position on a peer. */
export interface BlockFetchMessage {
  readonly type: 'block-fetch'
  readonly volume: VolumeId
  readonly seq: number
  readonly lsn: Lsn
  readonly blockCount: number
}
export interface BlockDataMessage {
  readonly type: 'block-data'
  readonly volume: VolumeId
  readonly seq: number
  readonly ok: boolean
  readonly payload: readonly Uint8Array[]
}

export type RequestOperation = 'read' | 'write' | 'zero' | 'flush' | 'block-status'
/** One request of a frontend session; `seq` is its number there, from 1. */
export interface RequestMessage {
  readonly type: 'request'
  readonly volume: VolumeId
  readonly epoch: Epoch
  readonly session: SessionId
  readonly seq: number
  readonly operation: RequestOperation
  readonly offset: number
  readonly length: number
  readonly fua: boolean
  /** zero: keep allocated. */
  readonly keepAllocated: boolean
  /** write only. */
  readonly payload: readonly Uint8Array[]
  /** flush only: how far earlier primaries had answered (I9). */
  readonly acknowledged?: readonly LogPosition[] | undefined
}
/** Answers without data: parallel arrays, all of one turn in one message. */
export interface RepliesMessage {
  readonly type: 'replies'
  readonly session: SessionId
  /** Of the primary that answers; 0 from a node that does not say. */
  readonly epoch: Epoch
  /** Everything answered with success lies below it; 0 from a node that does not say. */
  readonly committedLsn: Lsn
  readonly seqs: readonly number[]
  /** errno, or -1: not primary (any more), ask again after the failover. */
  readonly errors: readonly number[]
}
/** The answer to a read: the payload; to block-status: u32 pairs (length, hole) as bytes. */
export interface ReadReplyMessage {
  readonly type: 'read-reply'
  readonly session: SessionId
  readonly seq: number
  readonly error: number
  readonly payload: readonly Uint8Array[]
}
export interface SessionCloseMessage {
  readonly type: 'session-close'
  readonly session: SessionId
}

export type PeerMessage =
  | GrantScopeMessage
  | GrantRequestMessage
  | GrantMessage
  | StatusRequestMessage
  | StatusMessage
  | SubscribeMessage
  | AcceptedMessage
  | RefusedMessage
  | RebuildMessage
  | SegmentDataMessage
  | CheckpointDataMessage
  | RebuildProgressMessage
  | AppendMessage
  | CommitMessage
  | AckMessage
  | FlushMessage
  | BlockFetchMessage
  | BlockDataMessage
  | RequestMessage
  | RepliesMessage
  | ReadReplyMessage
  | SessionCloseMessage

/** First message on a link, both ways, before any other (I8b). */
export interface Hello {
  readonly protocolVersion: number
  readonly cluster: string
  readonly from: NodeId
  readonly incarnation: Incarnation
  readonly to: NodeId
  readonly channel: 'control' | 'data'
  /** Whose thread speaks, and whose is meant. Who knows of no shards leaves them out, and is shard 0. */
  readonly fromShard: number
  readonly toShard: number
}
