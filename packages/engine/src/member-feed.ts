/**
 * What one subscribed member is sent by the primary: history from the log at first, then each new batch
 * as it is made.
 *
 * Invariant: the member gets every byte from its fork point on exactly once and in order; it is `live` only
 * when nothing below the log's end is left unsent. The copy of a member in sync is not made anew.
 */
import { assert, BLOCK_BYTES, type Lsn, type NodeId } from '@holdfast/base'
import type { Batch, PinnedCheckpoint, ReplicaLog } from '@holdfast/volume-log'
import type { AppendMessage, RebuildMessage, SubscribeMessage, VolumeEpoch } from '@holdfast/wire'
import type { InFlight } from './in-flight.ts'
import type { Link } from './peer-table.ts'
import type { Mended } from './repair-desk.ts'

const READ_BYTES_MAX = 1024 * 1024
/** One feed has no more of our own damage mended than this: a disk that is worse is to be replaced. */
const REPAIRS_MAX = 1024
/** Unsent bytes in a live member's link above which it is fed from the log again. */
const LIVE_BACKLOG_BYTES_MAX = 64 * 1024 * 1024
/** Unsent bytes in a link from which on it gets copies of batches: of a small one it would keep a buffer of half a MiB from being used again. */
const COPIED_BACKLOG_BYTES = 1024 * 1024

/** What members are sent of a batch, each the same. */
export function appendMessage({ volume, epoch }: VolumeEpoch, { lsn, bytes }: Batch, committedLsn: Lsn): AppendMessage {
  return { type: 'append', volume, epoch, lsn, committedLsn, payload: [bytes] }
}

export interface FeedOwner {
  readonly scope: VolumeEpoch
  readonly log: ReplicaLog
  readonly inFlight: InFlight
  readonly windowBytes: number
  readonly segmentBlocks: number
  committedLsn(): Lsn
  /** Has damaged blocks of the log put right by another member. */
  repair(position: Lsn, blockCount: number, done: (mended: Mended) => void): void
  feedLive(node: NodeId): void
  feedLagging(node: NodeId): void
  feedFailed(node: NodeId, reason: string): void
  /** Our log is damaged where the member needs it, and nobody can mend it: what it asks for next is a whole copy. */
  feedUnreadable(node: NodeId): void
  /** False: a disk that does not give these blocks, which nobody can mend, may give them when `again` is called. */
  mayLeaveHoles(node: NodeId, positions: readonly Lsn[], again: () => void): boolean
  /** False while the member counts as in sync: it is being dropped, and `pump` is called again. */
  mayRebuild(node: NodeId): boolean
}

interface RebuildState {
  /** What the member was told of: newer ones may be written while its segments travel. */
  readonly checkpoint: PinnedCheckpoint
  readonly message: RebuildMessage
  readonly queue: { readonly segment: number; at: number; readonly length: number }[]
  sentBytes: number
  receivedBytes: number
  checkpointSent: boolean
}

export class MemberFeed {
  readonly node: NodeId
  readonly link: Link
  readonly #owner: FeedOwner
  #nextLsn: Lsn
  #ackedLsn: Lsn
  #live = false
  #reading = false
  #ended = false
  /** A rebuild that waits until the member has left the in-sync set. */
  #rebuildFor: SubscribeMessage | undefined
  #rebuild: RebuildState | undefined
  /** From the beginning of a rebuild until the member is live: what it needs next must not be freed under it. */
  #pin: { release(): void } | undefined
  /** Log that is held back for it at most: a member that falls behind all the time must not fill our disk. */
  #pinnedBytesMax = Number.POSITIVE_INFINITY
  /** Blocks of our own log that had to be put right to feed this member, and the last of them. */
  #repairs = 0
  #repairedLsn: Lsn | undefined
  /** Those that nobody had right. */
  readonly #holes = new Set<Lsn>()

  constructor(owner: FeedOwner, link: Link, forkLsn: Lsn) {
    this.#owner = owner
    this.node = link.node
    this.link = link
    this.#nextLsn = forkLsn
    this.#ackedLsn = forkLsn
  }

  get live(): boolean {
    return this.#live
  }
  get rebuilding(): boolean {
    return this.#rebuild !== undefined
  }
  get progress(): number {
    if (this.#rebuild !== undefined) {
      return this.#rebuild.receivedBytes / Math.max(1, this.#rebuild.message.totalBytes)
    }
    const end = this.#owner.log.appendedLsn
    return end === 0 ? 1 : this.#ackedLsn / end
  }

  /** Begins: from the log where it reaches back far enough and can be read, by checkpoint and segments otherwise. */
  start(subscribe: SubscribeMessage, unreadable: boolean): void {
    const { scope, log } = this.#owner
    const fromLog = this.#nextLsn >= log.streamableFrom() && !unreadable && subscribe.rebuilding !== true
    if (fromLog) {
      this.link.send({ type: 'accepted', ...scope, seq: subscribe.seq, forkLsn: this.#nextLsn })
      this.pump()
      return
    }
    this.#rebuildFor = subscribe
    this.pump()
  }

  /** A batch was made, and `message` of it: sent at once if the member is live. @param followed See `PeerLink.send`. */
  batchSealed(message: AppendMessage, batch: Batch, followed: boolean): void {
    if (!this.#live || this.#ended) return
    assert(message.lsn === this.#nextLsn, 'a live member gets every batch', { lsn: message.lsn, next: this.#nextLsn })
    if (this.link.bufferedBytes() > LIVE_BACKLOG_BYTES_MAX) {
      this.#live = false
      this.#owner.feedLagging(this.node)
      return
    }
    this.#sendBatch(message, batch, followed)
  }

  /** The commit position moved and no batch follows to carry it. */
  committed(lsn: Lsn): void {
    if (this.#live && !this.#ended) {
      this.link.send({ type: 'commit', ...this.#owner.scope, committedLsn: lsn })
    }
  }

  acknowledged(lsn: Lsn): void {
    if (lsn > this.#ackedLsn) this.#ackedLsn = lsn
    if (!this.#live) this.pump()
  }

  rebuildProgress(receivedBytes: number, installed: boolean): void {
    const rebuild = this.#rebuild
    if (rebuild === undefined) return
    rebuild.receivedBytes = receivedBytes
    if (!installed) {
      this.#pumpRebuild()
      return
    }
    rebuild.checkpoint.release()
    this.#rebuild = undefined
    this.#nextLsn = rebuild.message.checkpointLsn
    this.#ackedLsn = this.#nextLsn
    this.#pinnedBytesMax = 2 * this.#backlogBytes + this.#owner.windowBytes
    this.pump()
  }

  get #backlogBytes(): number {
    return (this.#owner.log.appendedLsn - this.#ackedLsn) * BLOCK_BYTES
  }

  end(): void {
    this.#ended = true
    this.#rebuild?.checkpoint.release()
    this.#rebuild = undefined
    this.#unpin()
  }

  #unpin(): void {
    this.#pin?.release()
    this.#pin = undefined
  }

  /** Sends history until the window is full or the member is live. */
  pump(): void {
    const { log, inFlight } = this.#owner
    if (this.#ended || this.#live || this.#reading || this.#rebuild !== undefined) return
    const waiting = this.#rebuildFor
    if (waiting !== undefined) {
      if (!this.#owner.mayRebuild(this.node)) return
      this.#rebuildFor = undefined
      this.#startRebuild(waiting)
      return
    }
    const onDiskEnd = inFlight.head?.lsn ?? log.appendedLsn
    if (this.#nextLsn >= onDiskEnd) {
      for (const entry of inFlight) {
        if (entry.lsn < this.#nextLsn) continue
        const message = appendMessage(this.#owner.scope, entry.batch, this.#owner.committedLsn())
        this.#sendBatch(message, entry.batch, false)
      }
      this.#live = true
      this.#unpin()
      // Nothing may follow that would carry it.
      this.committed(this.#owner.committedLsn())
      this.#owner.feedLive(this.node)
      return
    }
    if (this.#pin !== undefined && this.#backlogBytes > this.#pinnedBytesMax) this.#unpin()
    if ((this.#nextLsn - this.#ackedLsn) * BLOCK_BYTES > this.#owner.windowBytes) return
    if (this.#nextLsn < log.streamableFrom()) {
      this.#owner.feedFailed(this.node, 'the log it needs was compacted away')
      return
    }
    this.#reading = true
    const wanted = Math.min(READ_BYTES_MAX, (onDiskEnd - this.#nextLsn) * BLOCK_BYTES)
    log.readLog(this.#nextLsn, wanted, (error, payload, endLsn) => {
      this.#reading = false
      if (this.#ended) return
      if (error?.kind === 'damaged' && error.lsn !== this.#repairedLsn && this.#repairs < REPAIRS_MAX) {
        this.#repairAndGoOn(error.lsn, error.blockCount)
        return
      }
      if (error !== undefined || endLsn <= this.#nextLsn) {
        this.#owner.feedFailed(this.node, 'our own log can not be read there')
        return
      }
      const { scope } = this.#owner
      const committedLsn = this.#owner.committedLsn()
      this.link.send({ type: 'append', ...scope, lsn: this.#nextLsn, committedLsn, payload: [payload] })
      this.#nextLsn = endLsn
      this.pump()
    })
  }

  /** Bits have flipped in our own log; another member may have them right. */
  #repairAndGoOn(position: Lsn, blockCount: number): void {
    this.#mend(position, blockCount, (mended) => {
      if (mended === 'mended') this.pump()
      // Who is silent may have it. A rebuild ends at the commit position, and would cost the member its place in sync.
      else if (mended === 'silent' || position >= this.#owner.committedLsn()) this.#owner.feedFailed(this.node, 'our own log is damaged there')
      else this.#owner.feedUnreadable(this.node)
    })
  }

  /** Nothing is read meanwhile. */
  #mend(position: Lsn, blockCount: number, then: (mended: Mended) => void): void {
    this.#repairs += blockCount
    this.#repairedLsn = position
    this.#reading = true
    this.#owner.repair(position, blockCount, (mended) => {
      this.#reading = false
      if (!this.#ended) then(mended)
    })
  }

  #sendBatch(message: AppendMessage, batch: Batch, followed: boolean): void {
    this.#nextLsn = batch.endLsn
    if (this.link.bufferedBytes() > COPIED_BACKLOG_BYTES && batch.bytes.length < batch.buffer.length / 2) {
      this.link.send({ ...message, payload: [batch.bytes.slice()] }, undefined, followed)
      return
    }
    batch.retain()
    this.link.send(message, batch.releaser, followed)
  }

  #startRebuild(subscribe: SubscribeMessage): void {
    const { scope, log, segmentBlocks } = this.#owner
    const fork = this.#nextLsn
    this.#pin = log.pin()
    // Nothing is to be sent from the log meanwhile.
    this.#reading = true
    log.checkpointNow((error, info) => {
      this.#reading = false
      if (this.#ended) return
      const checkpoint = error === undefined ? log.pinCheckpoint() : undefined
      if (info === undefined || checkpoint === undefined) {
        this.#owner.feedFailed(this.node, 'no checkpoint could be written')
        return
      }
      const below = new Set(log.fullSegmentsBelow(fork))
      const held = new Set(subscribe.segments.filter((segment) => below.has(segment)))
      const segments = info.segments.filter((segment) => !held.has(segment))
      const queue = segments.map((segment) => ({
        segment,
        at: 0,
        length: Math.min(segmentBlocks, info.lsn - segment * segmentBlocks) * BLOCK_BYTES,
      }))
      const totalBytes = queue.reduce((sum, { length }) => sum + length, info.bytes)
      const message: RebuildMessage = {
        type: 'rebuild',
        ...scope,
        seq: subscribe.seq,
        checkpointLsn: info.lsn,
        segments,
        needed: info.segments,
        totalBytes,
      }
      const checkpointSent = false
      this.#rebuild = { checkpoint, message, queue, sentBytes: 0, receivedBytes: 0, checkpointSent }
      this.link.send(message)
      this.#pumpRebuild()
    })
  }

  #pumpRebuild(): void {
    const rebuild = this.#rebuild
    const { scope, log } = this.#owner
    if (rebuild === undefined || this.#reading || this.#ended || rebuild.checkpointSent) return
    if (rebuild.sentBytes - rebuild.receivedBytes > this.#owner.windowBytes) return
    const next = rebuild.queue[0]
    if (next === undefined) {
      rebuild.checkpointSent = true
      this.#sendCheckpoint(rebuild.checkpoint)
      return
    }
    const length = Math.min(READ_BYTES_MAX, next.length - next.at)
    this.#reading = true
    log.readSegment(next.segment, next.at, length, (error, payload, unreadable) => {
      this.#reading = false
      if (this.#ended || this.#rebuild !== rebuild) return
      const mendable = unreadable.find((position) => !this.#holes.has(position))
      if (mendable !== undefined) {
        this.#mendForRebuild(mendable)
        return
      }
      if (error !== undefined) {
        this.#owner.feedFailed(this.node, 'our own log can not be read there')
        return
      }
      if (unreadable.length > 0 && !this.#owner.mayLeaveHoles(this.node, unreadable, () => this.#rebuildAgain())) {
        this.#reading = true
        return
      }
      const { segment, at: offsetBytes } = next
      this.link.send({ type: 'segment-data', ...scope, segment, offsetBytes, payload: [payload] })
      next.at += length
      rebuild.sentBytes += length
      if (next.at >= next.length) rebuild.queue.shift()
      this.#pumpRebuild()
    })
  }

  /** What is in the way of a rebuild is put right where somebody in sync has it: it may be about to leave. */
  #mendForRebuild(position: Lsn): void {
    const goOn = (mended: Mended): void => {
      // Who is silent may have it.
      if (mended === 'silent') return this.#owner.feedFailed(this.node, 'our own log can not be read there, and a member is silent')
      if (mended === 'nowhere') this.#holes.add(position)
      this.#pumpRebuild()
    }
    // Mended, and still not given.
    if (this.#repairedLsn === position || this.#repairs >= REPAIRS_MAX) goOn('nowhere')
    else this.#mend(position, 1, goOn)
  }

  #rebuildAgain(): void {
    this.#reading = false
    this.#pumpRebuild()
  }

  #sendCheckpoint(checkpoint: PinnedCheckpoint): void {
    const pieces = checkpoint.read()
    if ('kind' in pieces) return this.#owner.feedFailed(this.node, `our own checkpoint can't be read: ${pieces.message}`)
    const { scope } = this.#owner
    pieces.forEach((bytes, index) => {
      for (let at = 0; at < bytes.length; at += READ_BYTES_MAX) {
        const payload = [bytes.subarray(at, Math.min(bytes.length, at + READ_BYTES_MAX))]
        const last = index === pieces.length - 1 && at + READ_BYTES_MAX >= bytes.length
        this.link.send({ type: 'checkpoint-data', ...scope, last, payload })
      }
    })
  }
}
