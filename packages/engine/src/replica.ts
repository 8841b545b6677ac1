/**
 * One volume's copy on this node: opens its log, and decides from what the coordinator says which part it
 * plays: follower of the primary, candidate, or primary.
 *
 * Invariants:
 * - I4: from the moment it stands until the outcome is certain it takes nothing of an older epoch.
 * - I8: it never stands before `#promisedUntil`; a restarted process waits one grant's length, because
 *   it does not know what its predecessor promised.
 * - The log has one user at a time: a role begins only when the last one's operations have ended.
 */
import {
  after,
  bootInstant,
  type Epoch,
  epoch,
  type Instant,
  instant,
  keys,
  type NodeId,
  type VolumeId,
  type VolumeRecord,
} from '@holdfast/base'
import { openReplicaLog, type ReplicaLog, setLogAside } from '@holdfast/volume-log'
import type { PeerMessage, StatusMessage, SubscribeMessage, VolumeEpoch } from '@holdfast/wire'
import type { LocalReplicaView, MemberView } from '@holdfast/base'
import { Candidacy, primaryValue, UNCERTAIN_RETRY_MS } from './candidacy.ts'
import { readRecord, type Versioned } from './cluster-view.ts'
import type { NodeContext } from './context.ts'
import { Follower, type Trouble } from './follower.ts'
import { CLOCK_RATE_MARGIN } from './grants.ts'
import { HandOver } from './hand-over.ts'
import { LocalPrimary } from './local-primary.ts'
import type { Link } from './peer-table.ts'
import { Upkeep } from './upkeep.ts'

type Role =
  | { readonly kind: 'opening' }
  | { readonly kind: 'idle' }
  | { readonly kind: 'candidate' }
  | { readonly kind: 'follower'; readonly primary: NodeId; readonly follower: Follower | undefined }
  | { readonly kind: 'primary'; readonly primary: LocalPrimary; leaseSerial: number }
  | { readonly kind: 'failed'; readonly reason: string; readonly reopenAt: Instant }
  | { readonly kind: 'closed' }

/** A primary that does not know yet that it won is asked again soon. */
const RESUBSCRIBE_MS = 20
/** One end could not go on: asked again after a while. */
const TROUBLED_RETRY_MS = 1_000
const NO_SPACE_RETRY_MS = 5_000
/** A copy whose disk failed is opened again after so long, then after longer and longer; one whose log is damaged after the longest. */
const REOPEN_MS_MIN = 2_000
const REOPEN_MS_MAX = 60_000
const DAMAGED = 'the log of this copy is damaged: another copy has to feed it'
const LOST = 'the data of this copy, which was in sync, are gone from its disk'

export interface ReplicaOwner {
  /** The role changed: sessions may have to go elsewhere. */
  roleChanged(volume: VolumeId): void
  /** It does not rest any more. */
  woken(replica: Replica): void
}

export class Replica {
  readonly volume: VolumeId
  readonly key: string
  readonly #context: NodeContext
  readonly #owner: ReplicaOwner
  #resting = false
  #log: ReplicaLog | undefined
  #role: Role = { kind: 'opening' }
  #promisedUntil: Instant
  readonly #candidacy: Candidacy
  #registering = false
  #cleaning = false
  readonly #upkeep: Upkeep
  #retryAt: Instant = instant(Number.NEGATIVE_INFINITY)
  #lastFollower: Follower | undefined
  /** Times that the disk failed under an open log since this process began. */
  #failures = 0
  /** Times in a row that the log could not be opened. */
  #failedOpenings = 0
  /** Of these, those at something that the disk did not give. */
  #unreadableOpenings = 0
  /** A damaged log that nobody feeds is opened again then: its disk may give what it did not. */
  #lookAgainAt: Instant = instant(Number.NEGATIVE_INFINITY)
  readonly #handOver: HandOver
  /** Called when the opening that was under way at `close` has ended. */
  #closedOpening: (() => void) | undefined

  constructor(context: NodeContext, versioned: Versioned<VolumeRecord>, owner: ReplicaOwner) {
    const { record, key } = versioned
    this.volume = record.id
    this.key = key
    this.#context = context
    this.#owner = owner
    const now = context.clock.now()
    this.#upkeep = new Upkeep(context, () => {
      if (this.#role.kind === 'closed') return undefined
      this.tick()
      return this.#log
    })
    const mayHavePromised = record.epoch > 0 && record.primary !== context.self.node
    this.#promisedUntil = mayHavePromised ? after(now, context.times.grantMs * (1 + CLOCK_RATE_MARGIN)) : now
    this.#handOver = new HandOver(context, key, record.id)
    this.#candidacy = new Candidacy(context, key, {
      closed: () => this.#role.kind === 'closed',
      won: (won, modRevision, leaseSerial) => this.#won(won, modRevision, leaseSerial),
      lost: () => this.evaluate(),
    })
    this.#open(record)
  }

  #open({ id, segmentBlocks, sizeBytes, epoch: reign, inSync }: VolumeRecord): void {
    const { disk, checksum, scheduler, events, crcCache, summaryCache, wordPool, batchPool, clock, self } = this.#context
    // Nodes on one machine share a boot; what one of them flushed proves nothing for another.
    const bootId = `${this.#context.bootId}/${self.node}`
    const path = `volumes/${id}`
    const wallMs = (): number => clock.wallMs()
    const ports = { disk, checksum, scheduler, events, bootId, crcCache, summaryCache, wordPool, batchPool, wallMs }
    const settings = this.#context.settings.log
    // Whoever was in sync when somebody was elected had answered, with a log.
    const expected = reign > 0 && inSync.includes(self.node)
    const unreadableBefore = this.#unreadableOpenings
    openReplicaLog({ ...ports, path, volume: id, segmentBlocks, sizeBytes, settings, expected, unreadableBefore }, (error, log, report) => {
      if (this.#role.kind === 'closed') {
        if (log === undefined) this.#closedOpening?.()
        else log.close(false, () => this.#closedOpening?.())
        return
      }
      if (error !== undefined || log === undefined) {
        if (error?.kind === 'unreadable') this.#unreadableOpenings++
        this.#fail(`the log can't be opened: ${error?.message ?? 'unknown'}`, this.#failedOpenings++)
        return
      }
      this.#failedOpenings = 0
      // What is damaged has been waited for: the next opening need not do so again.
      if (log.state === 'damaged') this.#lookAgainAt = after(clock.now(), REOPEN_MS_MAX)
      this.#log = log
      if (log.lost) events.event('error', `${LOST}: nothing is read from it before it has been fed`, { volume: id })
      if (report !== undefined && report.damage.length > 0) {
        events.event('error', 'damage found while opening the log', {
          volume: id,
          ranges: report.damage
            .map(({ kind, lsn, blockCount }) => `${kind} ${lsn}+${blockCount}`)
            .slice(0, 20)
            .join(', '),
          checkpoint: report.checkpointLsn,
        })
      }
      this.#setRole({ kind: 'idle' })
      this.evaluate()
    })
  }

  /** The primary of this volume, if it is here. */
  get primary(): LocalPrimary | undefined {
    return this.#role.kind === 'primary' ? this.#role.primary : undefined
  }
  get log(): ReplicaLog | undefined {
    return this.#log
  }

  /** Looks at what the coordinator says and plays the part that follows from it. */
  evaluate(): void {
    const role = this.#role
    const versioned = this.#context.view.byId.get(this.volume)
    if (versioned === undefined || role.kind === 'closed' || role.kind === 'opening') return
    const { record, modRevision } = versioned
    const { node, incarnation } = this.#context.self
    if (role.kind === 'primary') {
      role.primary.recordChanged(record, modRevision)
      if (this.#role.kind === 'primary') this.#keepPrimary(this.#role, versioned)
      return
    }
    if (role.kind === 'failed') {
      this.#dropOwnKey()
      if (this.#context.clock.now() >= role.reopenAt) this.#reopen(record)
      return
    }
    const holder = this.#context.view.primaries.get(this.volume)
    if (holder !== undefined && holder.record.node !== node) {
      this.#follow(holder.record.node, holder.record.epoch, record)
    } else if (holder !== undefined && !this.#candidacy.standing) {
      // Our own key without our own reign: left by an earlier life, or by a role that ended.
      if (holder.record.incarnation !== incarnation || holder.record.epoch <= record.epoch) {
        this.#dropOwnKey()
      }
    } else if (holder === undefined) {
      this.#beCandidate(versioned)
    }
  }

  /** Nothing depends on time here for now: one tick in many is enough. */
  get resting(): boolean {
    return this.#resting
  }
  set resting(resting: boolean) {
    if (this.#resting === resting) return
    this.#resting = resting
    if (!resting) this.#owner.woken(this)
  }

  get #mayRest(): boolean {
    const role = this.#role
    if (this.#log?.state !== 'ok' || this.#candidacy.standing) return false
    if (role.kind === 'follower') return role.follower?.phase === 'following'
    if (role.kind !== 'primary' || this.#handOver.active || this.#registering) return false
    const { lease } = this.#context
    return lease.held && role.leaseSerial === lease.serial && role.primary.resting
  }

  tick(): void {
    const role = this.#role
    if (role.kind === 'primary') {
      this.#renewLease(role)
      role.primary.tick()
    }
    if (this.#log?.state === 'ok') this.#unreadableOpenings = 0
    // Upkeep may be the first to meet a failing disk, in whatever role.
    if (this.#log?.state === 'failed' && this.#role.kind !== 'failed' && this.#role.kind !== 'closed') {
      this.#fail(`the log failed: ${this.#log.failure?.message ?? 'unknown'}`)
    }
    this.#upkeep.round(this.#log)
    this.evaluate()
    this.resting = this.#mayRest
  }

  /** Tells the primary how long our lease certainly holds (I8). */
  #renewLease({ primary, leaseSerial }: Role & { kind: 'primary' }): void {
    const { lease, coordinator, settings } = this.#context
    const holds = lease.held && leaseSerial === lease.serial
    primary.leaseValid(
      holds
        ? after(coordinator.leaseValidUntil(), -settings.leaseTtlMs * CLOCK_RATE_MARGIN)
        : bootInstant(Number.NEGATIVE_INFINITY),
    )
  }

  /** Promises not to stand against the primary of that epoch before `until` (I8). */
  promise({ epoch: theirs }: VolumeEpoch, until: Instant): boolean {
    const record = this.#context.view.byId.get(this.volume)?.record
    // A candidate has seen the primary's key go: promises to that primary would only put off the election.
    if (record === undefined || this.#role.kind === 'primary' || this.#role.kind === 'candidate') return false
    if (this.#candidacy.standing || record.epoch > theirs) return false
    if (this.#log !== undefined && this.#log.lastEpoch > theirs) return false
    if (until > this.#promisedUntil) this.#promisedUntil = until
    return true
  }

  /** Undefined while the log is being opened: the candidate asks again. */
  status(): StatusMessage | undefined {
    if (this.#role.kind === 'opening') return undefined
    const log = this.#log
    const record = this.#context.view.byId.get(this.volume)?.record
    return {
      type: 'status',
      volume: this.volume,
      epoch: record?.epoch ?? epoch(0),
      present: log?.state === 'ok' && !log.lost && this.#role.kind !== 'failed' && this.#role.kind !== 'closed',
      lastEpoch: log?.lastEpoch ?? epoch(0),
      appendedLsn: log?.appendedLsn ?? (0 as StatusMessage['appendedLsn']),
      suspect: log?.suspect ?? false,
      ...(log?.lost === true ? { lost: true } : {}),
    }
  }

  statusAnswered(node: NodeId, message: StatusMessage): void {
    this.#candidacy.answered(node, message)
    if (this.#role.kind === 'candidate') this.evaluate()
  }

  subscribe(link: Link, message: SubscribeMessage): void {
    const primary = this.primary
    if (primary !== undefined) primary.members.subscribe(link, message)
    else {
      const scope = { volume: this.volume, epoch: message.epoch }
      link.send({ type: 'refused', ...scope, reason: 'not-primary' })
    }
  }

  /** A message of the primary we follow. */
  fromPrimary(link: Link, message: PeerMessage & VolumeEpoch): void {
    const role = this.#role
    if (role.kind !== 'follower' || role.follower?.link !== link) return
    if (message.epoch !== role.follower.scope.epoch) return
    if (message.type !== 'refused') {
      if (message.type === 'append') this.#upkeep.grows()
      role.follower.message(message)
      return
    }
    // Who is not primary yet may be in a moment; whoever can't feed us can't do so in a moment either.
    this.#dropFollower(message.reason === 'not-primary' ? RESUBSCRIBE_MS : TROUBLED_RETRY_MS)
  }

  linkClosed(link: Link): void {
    const role = this.#role
    if (role.kind === 'primary') role.primary.linkClosed(link)
    if (role.kind === 'follower' && role.follower?.link === link) this.#dropFollower(0)
  }

  /** A peer asks for a block at a log position, to repair its own. */
  fetchBlock(link: Link, seq: number, lsn: StatusMessage['appendedLsn'], blockCount: number): void {
    const { volume } = this
    const none = { type: 'block-data', volume, seq, ok: false, payload: [] } as const
    const log = this.#log
    if (log === undefined || blockCount !== 1) {
      link.send(none)
      return
    }
    const target = new Uint8Array(4096)
    log.readBlockAt(lsn, 1, target, (error) => {
      link.send(error === undefined ? { ...none, ok: true, payload: [target] } : none)
    })
  }

  /** Hands a primary over to `to` (or anybody) for a planned stop; `done` when the role has ended or can't. */
  handOverTo(to: NodeId, done: (moved: boolean) => void): void {
    if (this.#role.kind !== 'primary') {
      done(true)
      return
    }
    this.#handOver.requestSuccessor(to, () => {})
    this.#context.scheduler.after(3_000, () => done(this.#role.kind !== 'primary'))
  }

  /** Ends; `clean` also flushes and marks the log as cleanly stopped. */
  close(clean: boolean, done: () => void): void {
    const role = this.#role
    if (role.kind === 'primary') role.primary.close()
    if (role.kind === 'follower') role.follower?.close()
    this.#role = { kind: 'closed' }
    this.#owner.roleChanged(this.volume)
    // Recovery writes, too: who removes the copy next must not meet it.
    if (role.kind === 'opening') this.#closedOpening = done
    else if (this.#log === undefined) this.#context.scheduler.soon(done)
    else this.#log.close(clean, done)
  }

  view(): LocalReplicaView {
    const log = this.#log
    const role = this.#role
    const kind = viewedRole(role.kind)
    return {
      role: kind,
      epoch: this.#context.view.byId.get(this.volume)?.record.epoch ?? epoch(0),
      appendedLsn: log?.appendedLsn ?? (0 as LocalReplicaView['appendedLsn']),
      committedLsn: log?.committedLsn ?? (0 as LocalReplicaView['committedLsn']),
      durableLsn: log?.durableLsn ?? (0 as LocalReplicaView['durableLsn']),
      mappedBlocks: log?.mappedBlocks ?? 0,
      segmentCount: log?.segmentCount ?? 0,
      logBytes: log?.logBytes ?? 0,
      members: role.kind === 'primary' ? memberViews(role.primary, this.#context.self.node) : [],
      problem: this.#problem,
    }
  }

  get #problem(): string | undefined {
    if (this.#role.kind === 'failed') return this.#role.reason
    if (this.#log?.lost === true) return LOST
    return this.#log?.state === 'damaged' ? DAMAGED : undefined
  }

  #setRole(role: Role): void {
    this.#role = role
    this.resting = false
    this.#owner.roleChanged(this.volume)
  }

  #fail(reason: string, timesBefore = this.#failures++): void {
    this.#context.events.event('error', reason, { volume: this.volume })
    const role = this.#role
    if (role.kind === 'primary') role.primary.close()
    if (role.kind === 'follower') role.follower?.close()
    const pauseMs = Math.min(REOPEN_MS_MAX, REOPEN_MS_MIN * 2 ** timesBefore)
    this.#setRole({ kind: 'failed', reason, reopenAt: after(this.#context.clock.now(), pauseMs) })
    this.#dropOwnKey()
  }

  /** Sets this copy's contents aside, for whoever may want to look for lost writes in them, and begins an empty one. */
  #startOver(record: VolumeRecord): void {
    const { disk, clock, events } = this.#context
    const path = `volumes/${this.volume}`
    this.#openAgain(record, (open) => {
      const directory = setLogAside(disk, path, clock.wallMs())
      events.event('warn', 'this copy is made anew; what it held is kept for a while', { volume: this.volume, directory })
      disk.syncDirectory(path, open)
    })
  }

  /** Whatever was wrong with the disk may be over: recovery says what the copy still holds. */
  #reopen(record: VolumeRecord): void {
    if (this.#lastFollower?.busy === true || this.#candidacy.standing) return
    this.#openAgain(record, (open) => open())
  }

  /** Closes the log if there is one, lets `between` do what it has to, and opens what is then there. */
  #openAgain(record: VolumeRecord, between: (open: () => void) => void): void {
    const log = this.#log
    this.#log = undefined
    this.#setRole({ kind: 'opening' })
    const unlessClosed = (task: () => void) => (): void => {
      if (this.#role.kind === 'opening') task()
      else this.#closedOpening?.()
    }
    const closed = unlessClosed(() => between(unlessClosed(() => this.#open(record))))
    if (log === undefined) closed()
    else log.close(false, closed)
  }

  #keepPrimary(role: Role & { kind: 'primary' }, versioned: Versioned<VolumeRecord>): void {
    const { lease, view, self } = this.#context
    const holder = view.primaries.get(this.volume)
    if (lease.held && (role.leaseSerial !== lease.serial || holder === undefined)) {
      this.#register(role, versioned)
    }
    const { successor, inSync } = versioned.record
    if (successor !== undefined && successor !== self.node && inSync.includes(successor)) {
      this.#handOver.begin(role.primary, successor, () => {
        role.primary.close()
        if (this.#role === role) this.#setRole({ kind: 'idle' })
      })
    }
  }

  /** Hangs our key on the lease we hold now; the epoch stays. */
  #register(role: Role & { kind: 'primary' }, { modRevision }: Versioned<VolumeRecord>): void {
    if (this.#registering || this.#handOver.active) return
    const { coordinator, lease, view, self } = this.#context
    const holder = view.primaries.get(this.volume)
    if (holder !== undefined && holder.record.incarnation !== self.incarnation) return
    this.#registering = true
    this.resting = false
    const serial = lease.serial
    const key = keys.primary(this.volume)
    const value = primaryValue(this.#context, role.primary.scope.epoch)
    coordinator.transact(
      {
        compares: [
          { key, modRevision: holder?.modRevision ?? 0 },
          { key: this.key, modRevision },
        ],
        operations: [{ op: 'put', key, value, leased: true }],
      },
      (result) => {
        this.#registering = false
        if (result.kind === 'ok' && this.#role === role) role.leaseSerial = serial
      },
    )
  }

  #dropOwnKey(): void {
    const { view, self, coordinator } = this.#context
    const holder = view.primaries.get(this.volume)
    if (holder?.record.node !== self.node || this.#cleaning) return
    this.#cleaning = true
    const { key, modRevision } = holder
    const operations = [{ op: 'delete', key } as const]
    coordinator.transact({ compares: [{ key, modRevision }], operations }, () => {
      this.#cleaning = false
    })
  }

  // --- following

  #follow(primary: NodeId, reign: Epoch, record: VolumeRecord): void {
    const log = this.#log
    if (log === undefined || this.#candidacy.standing || !record.replicas.includes(this.#context.self.node)) return
    const role = this.#role
    if (role.kind === 'follower' && role.primary === primary) {
      if (role.follower !== undefined) {
        if (role.follower.scope.epoch === reign) return
        this.#dropFollower(0)
      }
    } else {
      if (role.kind === 'follower') role.follower?.close()
      this.#setRole({ kind: 'follower', primary, follower: undefined })
    }
    // The record must name that reign; the key alone may be newer than what we know.
    if (record.epoch !== reign || log.lastEpoch > reign) return
    if (this.#lastFollower?.busy === true || this.#context.clock.now() < this.#retryAt) return
    const link = this.#context.peers.ensure(primary, 'data', this.volume)
    if (link === undefined) return
    if (log.state === 'ok' && log.canAppend() === 'no-space') {
      this.#retryAt = after(this.#context.clock.now(), NO_SPACE_RETRY_MS)
      return
    }
    const scope = { volume: this.volume, epoch: reign }
    const follower = new Follower(this.#context, log, scope, record.segmentBlocks, link, {
      troubled: (kind, reason) => this.#followerTroubled(kind, reason),
    })
    this.#lastFollower = follower
    this.#setRole({ kind: 'follower', primary, follower })
  }

  #followerTroubled(kind: Trouble, reason: string): void {
    this.#context.events.event('error', reason, { volume: this.volume })
    const record = this.#context.view.byId.get(this.volume)?.record
    if (kind === 'beyond-history' && record !== undefined && !record.inSync.includes(this.#context.self.node)) {
      this.#startOver(record)
    } else if (kind === 'failed' && this.#log?.state === 'failed') this.#fail(reason)
    else this.#dropFollower(kind === 'no-space' ? NO_SPACE_RETRY_MS : TROUBLED_RETRY_MS)
  }

  #dropFollower(retryMs: number): void {
    const role = this.#role
    if (role.kind !== 'follower') return
    role.follower?.close()
    this.#retryAt = after(this.#context.clock.now(), retryMs)
    this.#setRole({ kind: 'follower', primary: role.primary, follower: undefined })
  }

  // --- standing

  #beCandidate(versioned: Versioned<VolumeRecord>): void {
    const { record } = versioned
    const { self } = this.#context
    const log = this.#log
    const role = this.#role
    if (log?.state === 'damaged' && this.#context.clock.now() >= this.#lookAgainAt) {
      if (role.kind === 'follower') role.follower?.close()
      return this.#reopen(record)
    }
    if (log === undefined || log.state !== 'ok' || !record.inSync.includes(self.node)) return
    if (role.kind !== 'candidate') {
      if (role.kind === 'follower') role.follower?.close()
      this.#candidacy.begin()
      this.#setRole({ kind: 'candidate' })
    }
    if (this.#candidacy.standing || this.#lastFollower?.busy === true) return
    this.#candidacy.consider(versioned, log, this.#promisedUntil)
  }

  #won(record: VolumeRecord, modRevision: number, leaseSerial: number): void {
    const log = this.#log
    if (this.#role.kind !== 'candidate' || log === undefined) return
    const { events, statistics, view, self } = this.#context
    view.learnVolume(this.key, record, modRevision)
    statistics.epochChanges++
    events.event('info', 'elected primary', {
      volume: record.name,
      epoch: record.epoch,
      inSync: record.inSync.join(),
      lsn: log.appendedLsn,
    })
    if (record.inSync.length === 1 || log.suspect) log.clearSuspect()
    const primary = new LocalPrimary(this.#context, log, record, modRevision, {
      changeRecord: (changed, expected) => this.#changeRecord(primary, changed, expected),
      steppedDown: (reason) => this.#stepDown(primary, reason),
      failed: (reason) => {
        if (this.primary === primary) this.#fail(reason)
      },
      woken: () => {
        this.resting = false
      },
      renewLease: () => {
        if (this.#role.kind === 'primary' && this.#role.primary === primary) this.#renewLease(this.#role)
      },
    })
    for (const node of record.inSync) {
      if (node !== self.node) this.#context.peers.ensure(node, 'control', this.volume)
    }
    this.#setRole({ kind: 'primary', primary, leaseSerial })
    this.tick()
    primary.start()
  }

  #stepDown(primary: LocalPrimary, reason: string): void {
    if (this.primary !== primary) return
    this.#context.events.event('warn', `stepping down: ${reason}`, { ...primary.scope })
    primary.close()
    this.#setRole({ kind: 'idle' })
    this.evaluate()
  }

  #changeRecord(primary: LocalPrimary, record: VolumeRecord, expected: number): void {
    if (this.primary !== primary) return
    const { coordinator, scheduler, view } = this.#context
    const again = (): void => {
      scheduler.after(UNCERTAIN_RETRY_MS, () => this.#changeRecord(primary, record, expected))
    }
    const adopt = (changed: VolumeRecord, revision: number): void => {
      view.learnVolume(this.key, changed, revision)
      primary.recordChanged(changed, revision)
      primary.tick()
    }
    const compares = [{ key: this.key, modRevision: expected }]
    const value = JSON.stringify(record)
    coordinator.transact(
      { compares, operations: [{ op: 'put', key: this.key, value }] },
      (result) => {
        if (this.primary !== primary) return
        if (result.kind === 'ok') adopt(record, result.revision)
        else if (result.kind !== 'conflict') again()
        else readRecord(coordinator, this.key, (entry) => {
            if (this.primary !== primary) return
            if (entry === undefined) again()
            else if (entry === 'absent') this.#stepDown(primary, 'the volume was removed')
            else adopt(entry.record, entry.modRevision)
          })
      },
    )
  }
}

function memberViews(primary: LocalPrimary, self: NodeId): MemberView[] {
  const { record } = primary.machine
  return record.replicas
    .filter((node) => node !== self)
    .map((node) => {
      const member = primary.machine.member(node)
      const feed = primary.members.feed(node)
      const inSync = record.inSync.includes(node)
      const here = feed === undefined ? 'away' : feed.rebuilding ? 'rebuilding' : 'catching-up'
      return {
        node,
        state: feed !== undefined && inSync ? 'in-sync' : here,
        lagBytes: Math.max(0, primary.log.appendedLsn - (member?.appendedLsn ?? 0)) * 4096,
        progress: feed?.progress ?? 0,
      }
    })
}

function viewedRole(kind: Role['kind']): LocalReplicaView['role'] {
  switch (kind) {
    case 'opening':
    case 'closed':
    case 'idle':
      return 'idle'
    case 'follower':
      return 'secondary'
    default:
      return kind
  }
}
