/**
 * The primary's half of replication: commit, flush and membership of one volume in one epoch.
 *
 * Invariants (asserted or by construction):
 * - I1: `committedLsn` never passes the appended position of any required member, ours included.
 * - I3: `durableLsn` never passes the durable position of any required member.
 * - I7: a member stops being required only after the coordinator said that it has left `inSync`; a newcomer
 *   is required before it is added, and stays so until the outcome is known.
 * - A member whose copy must be made anew leaves `inSync` first: what it holds goes when that begins, and until it ends
 *   another copy that lost power would wait for ever for one that can't be read.
 * - At most one change of the record is under way.
 * - Whoever must acknowledge or flush and makes no progress is dropped in the end, however alive it seems; where all disks stand
 *   still nobody is.
 */
import {
  assert,
  type Epoch,
  type FailureMode,
  type Instant,
  type Lsn,
  lsnMin,
  type NodeId,
  type VolumeRecord,
} from '@holdfast/base'

export interface PrimarySettings {
  /** A closed connection is forgiven this long while clients wait. */
  readonly reconnectGraceMs: number
  /** Nothing heard from a member's node for this long: it is dropped. */
  readonly memberTimeoutMs: number
  /** A member's node lives but its acknowledgement does not come: it is dropped. */
  readonly acknowledgeTimeoutMs: number
  /** A disk ends a flush this much later than another: its copy is dropped, or left to the others if it is ours. */
  readonly flushTimeoutMs: number
  /** The coordinator can't be asked to drop a dead member for this long: step down. */
  readonly stuckMs: number
}

/** What the primary asks of the world. Called synchronously; none may call back in. */
export interface PrimaryEffects {
  /** Everything below is committed: apply it and acknowledge. */
  committed(lsn: Lsn): void
  /** Everything below is durable on every in-sync member. */
  durable(lsn: Lsn): void
  /**
   * Compare-and-swap the volume's record, tried again until the outcome is certain; whatever it is, the
   * answer is `recordChanged` with a newer revision.
   */
  changeRecord(record: VolumeRecord, expectedModRevision: number): void
  /** Ask a member for `fdatasync`, so that it can be added. */
  flushMember(member: NodeId): void
  stepDown(reason: string): void
  /** Our own disk hangs, and another copy in sync has one that does not. */
  diskHangs(reason: string): void
  event(level: 'info' | 'warn' | 'error', message: string, node: NodeId): void
}

type MemberMode = 'away' | 'catching-up' | 'live'

interface Member {
  readonly node: NodeId
  mode: MemberMode
  appendedLsn: Lsn
  durableLsn: Lsn
  required: boolean
  goneSince: Instant
  heardAt: Instant
  /** Since when it owes an acknowledgement; undefined when it owes none. A new link alone changes nothing of it. */
  owesSince: Instant | undefined
  /** Since when it owes a flush that our own disk has ended. */
  owesFlushSince: Instant | undefined
  flushAsked: boolean
  /** Our log does not reach back to where its own ends. */
  mustRebuild: boolean
  /** It must have acknowledged this far before it may be added: that it follows is seen, not assumed. */
  proofLsn: Lsn
}

interface Change {
  readonly kind: 'add' | 'drop'
  readonly nodes: readonly NodeId[]
  readonly since: Instant
}

/** In-sync copies below which no write is acknowledged. */
export function inSyncMinimum(mode: FailureMode, replicaCount: number): number {
  switch (mode.kind) {
    case 'hard':
      return replicaCount
    case 'threshold':
      return mode.inSyncMin
    case 'alwayson':
      return 1
  }
}

export class Primary {
  readonly self: NodeId
  readonly epoch: Epoch
  readonly #settings: PrimarySettings
  readonly #effects: PrimaryEffects
  readonly #members = new Map<NodeId, Member>()
  #record: VolumeRecord
  #modRevision: number
  #localAppended: Lsn
  #localDurable: Lsn
  #committed: Lsn
  #durable: Lsn
  /** Nothing beyond was promised to be durable by the primaries before: each promise included our copy. */
  readonly #inheritedDurable: Lsn
  #change: Change | undefined
  /** Everything below was asked to be made durable by all. */
  #flushTarget: Lsn = 0 as Lsn
  /** Since when our own disk owes it and that of another live copy does not. */
  #owesFlushSince: Instant | undefined
  #hangSaid = false

  constructor(
    start: {
      readonly self: NodeId
      readonly record: VolumeRecord
      readonly modRevision: number
      readonly appendedLsn: Lsn
      readonly durableLsn: Lsn
      readonly committedLsn: Lsn
      readonly now: Instant
    },
    settings: PrimarySettings,
    effects: PrimaryEffects,
  ) {
    assert(start.record.primary === start.self, 'only the elected node is primary')
    assert(start.record.inSync.includes(start.self), 'the primary is in sync')
    this.self = start.self
    this.epoch = start.record.epoch
    this.#settings = settings
    this.#effects = effects
    this.#record = start.record
    this.#modRevision = start.modRevision
    this.#localAppended = start.appendedLsn
    this.#localDurable = start.durableLsn
    this.#committed = start.committedLsn
    this.#inheritedDurable = lsnMin(start.durableLsn, start.committedLsn)
    this.#adoptMembers(start.now)
    // Of the others nothing is known before they say it.
    const alone = [...this.#members.values()].every(({ required }) => !required)
    this.#durable = alone ? this.#inheritedDurable : (0 as Lsn)
  }

  get record(): VolumeRecord {
    return this.#record
  }
  /** Of the record. */
  get modRevision(): number {
    return this.#modRevision
  }
  get committedLsn(): Lsn {
    return this.#committed
  }
  get durableLsn(): Lsn {
    return this.#durable
  }
  /** False while fewer copies are in sync than the failure mode asks for. */
  get enoughInSync(): boolean {
    const { failureMode, replicaCount, inSync } = this.#record
    return inSync.length >= inSyncMinimum(failureMode, replicaCount)
  }
  /** Every other member follows and is in sync, and no change of the record is under way or wished for. */
  get settled(): boolean {
    const { retiring, successor } = this.#record
    const wished = retiring !== undefined || (successor !== undefined && successor !== this.self)
    if (wished || this.#change !== undefined || !this.enoughInSync) return false
    for (const member of this.#members.values()) if (!member.required || member.mode !== 'live') return false
    return true
  }
  /** The other members whose acknowledgement a write needs. */
  *othersInSync(): Generator<NodeId> {
    for (const member of this.#members.values()) if (member.required) yield member.node
  }
  member(node: NodeId): Readonly<Member> | undefined {
    return this.#members.get(node)
  }

  /** Our own log is written up to here. */
  appended(lsn: Lsn): void {
    this.#localAppended = lsn
    this.#commit()
  }

  /** Our own log is durable up to here. */
  flushed(lsn: Lsn): void {
    if (lsn > this.#localDurable) {
      this.#localDurable = lsn
      this.#owesFlushSince = undefined
    }
    this.#advanceDurable()
  }

  /** All in-sync copies were asked to make everything below `target` durable. */
  flushAsked(target: Lsn): void {
    if (target > this.#flushTarget) this.#flushTarget = target
  }

  /** A member's log agrees with ours below `forkLsn`; batches follow from there. */
  subscribed(node: NodeId, forkLsn: Lsn, durableLsn: Lsn, now: Instant): void {
    const member = this.#members.get(node)
    if (member === undefined) return
    member.mode = 'catching-up'
    member.appendedLsn = forkLsn
    member.durableLsn = lsnMin(durableLsn, forkLsn)
    member.heardAt = now
    member.flushAsked = false
    member.mustRebuild = false
  }

  /** True when the copy of a member that subscribed may be made anew; asked again later otherwise. */
  mayRebuild(node: NodeId, now: Instant): boolean {
    const member = this.#members.get(node)
    if (member === undefined) return true
    // Once it may begin there is nothing to drop it for any more.
    member.mustRebuild = member.required
    if (member.required && this.#change === undefined) this.#dropSilent(now)
    return !member.required
  }

  /** All earlier batches are sent to the member; it now gets every new one at once. */
  live(node: NodeId): void {
    const member = this.#members.get(node)
    if (member === undefined || member.mode !== 'catching-up') return
    member.mode = 'live'
    member.proofLsn = this.#localAppended
  }

  /** The member fell too far behind: it is fed from the log again. */
  lagging(node: NodeId): void {
    const member = this.#members.get(node)
    if (member !== undefined && member.mode === 'live') member.mode = 'catching-up'
  }

  acknowledged(node: NodeId, appendedLsn: Lsn, durableLsn: Lsn, now: Instant): void {
    const member = this.#members.get(node)
    if (member === undefined || member.mode === 'away') return
    member.heardAt = now
    if (appendedLsn > member.appendedLsn) {
      member.appendedLsn = appendedLsn
      member.owesSince = undefined
    }
    if (durableLsn > member.durableLsn) {
      member.durableLsn = durableLsn
      member.owesFlushSince = undefined
    }
    if (member.required) {
      this.#commit()
      this.#advanceDurable()
    } else if (member.mode === 'live') {
      this.#considerAdding(member, now)
    }
  }

  /** A sign of life of the member's node, whatever volume it was about. */
  heardFrom(node: NodeId, now: Instant): void {
    const member = this.#members.get(node)
    if (member !== undefined) member.heardAt = now
  }

  gone(node: NodeId, now: Instant): void {
    const member = this.#members.get(node)
    if (member === undefined || member.mode === 'away') return
    member.mode = 'away'
    member.goneSince = now
  }

  /** The record as the coordinator has it: seen by watch, read, or the outcome of our own change. */
  recordChanged(record: VolumeRecord, modRevision: number, now: Instant): void {
    if (modRevision <= this.#modRevision) return
    if (record.epoch !== this.epoch || record.primary !== this.self) {
      this.#effects.stepDown('deposed by a newer epoch')
      return
    }
    assert(record.inSync.includes(this.self), 'the primary was dropped within its own epoch')
    this.#record = record
    this.#modRevision = modRevision
    this.#change = undefined
    this.#adoptMembers(now)
    this.#commit()
    this.#advanceDurable()
  }

  tick(now: Instant): void {
    const ownOwes = this.#localDurable < this.#flushTarget
    let anotherDone = false
    for (const member of this.#members.values()) {
      const owes = member.required && member.appendedLsn < this.#localAppended
      member.owesSince = owes ? (member.owesSince ?? now) : undefined
      // A disk is late only where another one is not: with much to write all of them take minutes.
      const owesFlush = member.required && member.durableLsn < this.#flushTarget
      member.owesFlushSince = owesFlush && !ownOwes ? (member.owesFlushSince ?? now) : undefined
      if (member.required && member.mode === 'live' && !owesFlush) anotherDone = true
      // What is durable everywhere moves on while a newcomer flushes: it is asked again.
      member.flushAsked = false
      if (member.mode === 'live' && !member.required) this.#considerAdding(member, now)
    }
    this.#owesFlushSince = ownOwes && anotherDone ? (this.#owesFlushSince ?? now) : undefined
    if (!this.#hangSaid && this.#hangs(this.#owesFlushSince, now)) {
      this.#hangSaid = true
      this.#effects.diskHangs('the disk does not end a flush, and that of another copy does')
    }
    if (this.#change !== undefined) {
      this.#watchForStuckChange(now)
      return
    }
    this.#dropSilent(now)
  }

  #hangs(owesFlushSince: Instant | undefined, now: Instant): boolean {
    return owesFlushSince !== undefined && now - owesFlushSince > this.#settings.flushTimeoutMs
  }

  #watchForStuckChange(now: Instant): void {
    const change = this.#change
    if (change?.kind !== 'drop' || this.#committed === this.#localAppended) return
    if (now - change.since > this.#settings.stuckMs) {
      this.#effects.stepDown('a member is gone and the coordinator can not be asked to drop it')
    }
  }

  #dropSilent(now: Instant): void {
    const waiting = this.#committed < this.#localAppended
    const drop: NodeId[] = []
    for (const member of this.#members.values()) {
      if (!member.required) continue
      const reason = this.#reasonToDrop(member, waiting, now)
      if (reason === undefined) continue
      this.#effects.event('warn', `dropping a member: ${reason}`, member.node)
      drop.push(member.node)
    }
    const { retiring, ...known } = this.#record
    if (drop.length === 0 && retiring !== undefined && this.#mayRetire(retiring)) {
      this.#effects.event('warn', 'dropping a member: retired', retiring)
      drop.push(retiring)
    }
    if (drop.length === 0) return
    // A retired member leaves the replicas too, or it would be added again at once.
    const replicas = known.replicas.filter((node) => node !== retiring || !drop.includes(node))
    const record = { ...known, replicas }
    const inSync = record.inSync.filter((node) => !drop.includes(node))
    this.#change = { kind: 'drop', nodes: drop, since: now }
    this.#effects.changeRecord({ ...record, inSync }, this.#modRevision)
  }

  /** Enough copies stay: another may have left since the wish was written down. */
  #mayRetire(node: NodeId): boolean {
    const { inSync, replicaCount } = this.#record
    return this.#members.get(node)?.required === true && inSync.length > replicaCount
  }

  #reasonToDrop(member: Member, waiting: boolean, now: Instant): string | undefined {
    const { reconnectGraceMs, memberTimeoutMs, acknowledgeTimeoutMs } = this.#settings
    if (member.mode === 'away') {
      const grace = waiting ? reconnectGraceMs : memberTimeoutMs
      return now - member.goneSince > grace ? 'it is not connected' : undefined
    }
    if (member.mustRebuild) return 'its copy must be made anew'
    if (now - member.heardAt > memberTimeoutMs) return 'nothing was heard from it'
    if (member.owesSince !== undefined && now - member.owesSince > acknowledgeTimeoutMs) {
      return 'it does not acknowledge'
    }
    if (this.#hangs(member.owesFlushSince, now)) return 'its disk does not end a flush'
    return undefined
  }

  #considerAdding(member: Member, now: Instant): void {
    if (this.#change !== undefined) return
    // Or one that was dropped for its silence, and owes nothing, would be added again at once.
    if (now - member.heardAt > this.#settings.memberTimeoutMs) return
    if (member.appendedLsn < this.#committed || member.appendedLsn < member.proofLsn) return
    // It must hold durably what clients were told is durable everywhere (I3).
    if (member.durableLsn < this.#durable || member.durableLsn < this.#inheritedDurable) {
      if (!member.flushAsked) this.#effects.flushMember(member.node)
      member.flushAsked = true
      return
    }
    member.required = true
    this.#change = { kind: 'add', nodes: [member.node], since: now }
    const inSync = [...this.#record.inSync, member.node]
    this.#effects.changeRecord({ ...this.#record, inSync }, this.#modRevision)
  }

  #adoptMembers(now: Instant): void {
    for (const node of this.#members.keys()) {
      if (!this.#record.replicas.includes(node)) this.#members.delete(node)
    }
    for (const node of this.#record.replicas) {
      if (node === this.self) continue
      let member = this.#members.get(node)
      if (member === undefined) {
        const none = 0 as Lsn
        member = {
          node,
          mode: 'away',
          appendedLsn: none,
          durableLsn: none,
          required: false,
          goneSince: now,
          heardAt: now,
          owesSince: undefined,
          owesFlushSince: undefined,
          flushAsked: false,
          mustRebuild: false,
          proofLsn: none,
        }
        this.#members.set(node, member)
      }
      const wasRequired = member.required
      member.required = this.#record.inSync.includes(node)
      if (wasRequired !== member.required) {
        if (wasRequired) member.proofLsn = this.#localAppended
        this.#effects.event('info', member.required ? 'in sync' : 'left the in-sync set', node)
      }
    }
  }

  #commit(): void {
    if (!this.enoughInSync) return
    let position = this.#localAppended
    for (const member of this.#members.values()) {
      if (member.required && member.appendedLsn < position) position = member.appendedLsn
    }
    if (position <= this.#committed) return
    this.#committed = position
    this.#effects.committed(position)
  }

  #advanceDurable(): void {
    let position = lsnMin(this.#localDurable, this.#committed)
    for (const member of this.#members.values()) {
      if (member.required && member.durableLsn < position) position = member.durableLsn
    }
    if (position <= this.#durable) return
    this.#durable = position
    this.#effects.durable(position)
  }
}

