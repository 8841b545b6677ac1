/**
 * The members that follow one primary: who is subscribed, what each is sent, what each has said.
 *
 * Invariants:
 * - One feed for each node at most; what comes over a link that is not its feed's is not heard.
 * - What ends a feed is told to the state machine, which drops a member that stays away.
 */
import { after, type Instant, type Lsn, lsn, type NodeId, type VolumeRecord } from '@holdfast/base'
import type { Primary } from '@holdfast/replication'
import type { Batch, ReplicaLog } from '@holdfast/volume-log'
import type { SubscribeMessage, VolumeEpoch } from '@holdfast/wire'
import type { NodeContext } from './context.ts'
import type { InFlight } from './in-flight.ts'
import { appendMessage, type FeedOwner, MemberFeed } from './member-feed.ts'
import type { Link } from './peer-table.ts'
import type { Mended, RepairDesk } from './repair-desk.ts'

/** So long a rebuild waits for blocks that our disk does not give, as an opening does: a path that is away for seconds is no bad sector. */
const HOLE_WAIT_MS = 15_000
const HOLE_RETRY_MS = 1_000

export interface FedPrimary {
  readonly scope: VolumeEpoch
  readonly log: ReplicaLog
  readonly machine: Primary
  readonly inFlight: InFlight
  readonly segmentBlocks: number
  readonly repairs: RepairDesk
  /** Something is under way again. */
  woken(): void
}

export class MemberFeeds implements FeedOwner {
  readonly scope: VolumeEpoch
  readonly log: ReplicaLog
  readonly inFlight: InFlight
  readonly segmentBlocks: number
  readonly windowBytes: number
  readonly #machine: Primary
  readonly #context: NodeContext
  readonly #primary: FedPrimary
  readonly #feeds = new Map<NodeId, MemberFeed>()
  /**
   * Members that need what can't be read in our log, until they are live: what is damaged there may be dead, and in no
   * checkpoint.
   */
  readonly #unreadableFor = new Set<NodeId>()
  /** From when on a rebuild may leave out what our disk does not give. */
  readonly #holesFrom = new Map<NodeId, Instant>()
  #announcedCommit: Lsn = lsn(0)

  constructor(context: NodeContext, primary: FedPrimary) {
    this.#context = context
    this.#primary = primary
    this.scope = primary.scope
    this.log = primary.log
    this.inFlight = primary.inFlight
    this.segmentBlocks = primary.segmentBlocks
    this.windowBytes = context.settings.catchUpWindowBytes
    this.#machine = primary.machine
  }

  feed(node: NodeId): MemberFeed | undefined {
    return this.#feeds.get(node)
  }

  /** Of the members in sync; undefined for one that can't be reached. */
  *linksInSync(): Generator<Link | undefined> {
    for (const node of this.#machine.othersInSync()) yield this.#feeds.get(node)?.link
  }

  // --- what members say

  /** A replica asks to follow. */
  subscribe(link: Link, message: SubscribeMessage): void {
    this.#primary.woken()
    const { record } = this.#machine
    const refuse = (reason: 'not-a-replica' | 'stale-epoch'): void =>
      link.send({ type: 'refused', ...this.scope, reason })
    if (!record.replicas.includes(link.node)) return refuse('not-a-replica')
    if (message.epoch !== this.scope.epoch) return refuse('stale-epoch')
    this.#feeds.get(link.node)?.end()
    const fork = this.log.forkPoint(message.epochTable, message.appendedLsn)
    this.#machine.subscribed(link.node, fork, message.durableLsn, this.#context.clock.now())
    const feed = new MemberFeed(this, link, fork)
    this.#feeds.set(link.node, feed)
    feed.start(message, this.#unreadableFor.has(link.node))
  }

  acknowledged(link: Link, appendedLsn: Lsn, durableLsn: Lsn): void {
    const feed = this.#feeds.get(link.node)
    if (feed === undefined || feed.link !== link) return
    this.#machine.acknowledged(link.node, appendedLsn, durableLsn, this.#context.clock.now())
    feed.acknowledged(appendedLsn)
  }

  rebuildProgress(link: Link, receivedBytes: number, installed: boolean): void {
    const feed = this.#feeds.get(link.node)
    if (feed?.link !== link) return
    this.#machine.heardFrom(link.node, this.#context.clock.now())
    feed.rebuildProgress(receivedBytes, installed)
  }

  /** A member says that it can't go on. */
  refused(link: Link, reason: string): void {
    const feed = this.#feeds.get(link.node)
    if (feed?.link !== link) return
    const { volume, epoch } = this.scope
    this.#context.events.event('warn', `a member gave up: ${reason}`, { volume, epoch, node: link.node })
    this.#end(feed)
  }

  linkClosed(link: Link): void {
    const feed = this.#feeds.get(link.node)
    if (feed?.link === link) this.#end(feed)
  }

  // --- what they are sent

  /** A batch was sealed: to all that are live. @param flushFollows Whoever must acknowledge it is to flush it, too. */
  batchSealed(batch: Batch, flushFollows: boolean): void {
    if (this.#feeds.size === 0) return
    const message = appendMessage(this.scope, batch, this.#machine.committedLsn)
    for (const [node, feed] of this.#feeds) {
      const withFlush = flushFollows && this.#machine.member(node)?.required === true
      feed.batchSealed(message, batch, withFlush)
      if (withFlush) this.sendFlush(node, batch.endLsn)
    }
  }

  sendFlush(node: NodeId, target: Lsn): void {
    this.#feeds.get(node)?.link.send({ type: 'flush', ...this.scope, lsn: target })
  }

  sendFlushToAll(target: Lsn): void {
    for (const node of this.#feeds.keys()) this.sendFlush(node, target)
  }

  /** Goes on with histories that wait for something. */
  pump(): void {
    for (const feed of this.#feeds.values()) feed.pump()
  }

  /** Everybody who is live knows how far it is committed. */
  get commitAnnounced(): boolean {
    return this.#announcedCommit >= this.#machine.committedLsn
  }

  announceCommit(): void {
    if (this.commitAnnounced) return
    this.#announcedCommit = this.#machine.committedLsn
    for (const feed of this.#feeds.values()) feed.committed(this.#announcedCommit)
  }

  /** Those that are no replicas any more must ask anew: they may hear of this only when they are in again. */
  recordChanged(record: VolumeRecord): void {
    for (const [node, feed] of this.#feeds) {
      if (record.replicas.includes(node)) continue
      feed.link.send({ type: 'refused', ...this.scope, reason: 'not-a-replica' })
      this.#end(feed)
    }
  }

  close(): void {
    for (const feed of this.#feeds.values()) feed.end()
    this.#feeds.clear()
  }

  #end(feed: MemberFeed): void {
    this.#primary.woken()
    feed.end()
    this.#feeds.delete(feed.node)
    this.#machine.gone(feed.node, this.#context.clock.now())
  }

  // --- FeedOwner

  committedLsn(): Lsn {
    return this.#machine.committedLsn
  }

  repair(position: Lsn, blockCount: number, done: (mended: Mended) => void): void {
    this.#primary.repairs.repair(position, blockCount, done)
  }

  mayRebuild(node: NodeId): boolean {
    return this.#machine.mayRebuild(node, this.#context.clock.now())
  }

  mayLeaveHoles(node: NodeId, positions: readonly Lsn[], again: () => void): boolean {
    const now = this.#context.clock.now()
    const from = this.#holesFrom.get(node) ?? after(now, HOLE_WAIT_MS)
    this.#holesFrom.set(node, from)
    if (now < from) {
      this.#context.scheduler.after(HOLE_RETRY_MS, again)
      return false
    }
    const fields = { ...this.scope, node, positions: positions.slice(0, 20).join() }
    this.#context.events.event('error', 'a copy is made without blocks that no copy gives', fields)
    return true
  }

  feedLive(node: NodeId): void {
    this.#unreadableFor.delete(node)
    this.#holesFrom.delete(node)
    this.#machine.live(node)
  }

  feedLagging(node: NodeId): void {
    this.#machine.lagging(node)
  }

  feedFailed(node: NodeId, reason: string): void {
    this.#context.events.event('warn', `a member can't be fed: ${reason}`, { ...this.scope, node })
    const feed = this.#feeds.get(node)
    if (feed !== undefined) {
      feed.link.send({ type: 'refused', ...this.scope, reason: 'stale-epoch' })
      this.#end(feed)
    }
  }

  feedUnreadable(node: NodeId): void {
    this.#unreadableFor.add(node)
    this.feedFailed(node, 'our own log is damaged there, and no other copy is whole')
  }
}
