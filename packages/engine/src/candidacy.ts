/**
 * How a copy stands for primary: asks the other copies in sync how far they reach, and tries to win by one transaction.
 *
 * Invariants:
 * - I4: it is `standing` from the moment it asks for the office until the outcome is certain.
 * - I5: it stands by one transaction: primary's key absent and record unchanged.
 */
import {
  after,
  type Epoch,
  epoch,
  type Instant,
  instant,
  keys,
  type NodeId,
  type Transaction,
  type VolumeRecord,
} from '@holdfast/base'
import { type Answer, decideElection, type ElectionDecision } from '@holdfast/replication'
import type { ReplicaLog } from '@holdfast/volume-log'
import type { StatusMessage } from '@holdfast/wire'
import { readRecord, type Versioned } from './cluster-view.ts'
import type { NodeContext } from './context.ts'

/** Between two attempts at something whose outcome is not known. */
export const UNCERTAIN_RETRY_MS = 200
/** An election goes by answers no older than this. */
const ANSWER_MS_MAX = 1_000
/** Between two questions to those who have not answered. */
const ASK_MS = 50
/** A candidate that can't stand says why this often. */
const COMPLAIN_MS = 10_000

export interface CandidacyOwner {
  /** The copy is being closed: what is not certain by now won't be. */
  closed(): boolean
  /** @param leaseSerial Of the lease that the primary's key hangs on; -1 where that is not known. */
  won(record: VolumeRecord, modRevision: number, leaseSerial: number): void
  lost(): void
}

export class Candidacy {
  readonly #context: NodeContext
  /** Of the volume's record. */
  readonly #key: string
  readonly #owner: CandidacyOwner
  /** The epoch we try to win, while the outcome is uncertain. */
  #standingFor: Epoch | undefined
  #absentSince: Instant = instant(0)
  #complainAt: Instant = instant(0)
  readonly #answers = new Map<NodeId, Answer>()
  #answersFor: string = ''
  #askedAt: Instant = instant(Number.NEGATIVE_INFINITY)
  /** When the answers of this round began to be collected. */
  #roundAt: Instant = instant(Number.NEGATIVE_INFINITY)

  constructor(context: NodeContext, key: string, owner: CandidacyOwner) {
    this.#context = context
    this.#key = key
    this.#owner = owner
  }

  get standing(): boolean {
    return this.#standingFor !== undefined
  }

  /** The primary's key is seen to be absent from now on. */
  begin(): void {
    this.#absentSince = this.#context.clock.now()
    this.#complainAt = after(this.#absentSince, COMPLAIN_MS)
  }

  answered(node: NodeId, { present, lastEpoch, appendedLsn, suspect, lost }: StatusMessage): void {
    this.#answers.set(node, present ? { lastEpoch, appendedLsn, suspect } : lost === true ? 'lost' : 'unreadable')
  }

  /** Asks whom it must, and stands if it may. @param promisedUntil Not before that, unless the last primary has let go. */
  consider(versioned: Versioned<VolumeRecord>, log: ReplicaLog, promisedUntil: Instant): void {
    const { record } = versioned
    const { clock, self, lease, times } = this.#context
    const now = clock.now()
    this.#ask(versioned, now)
    const { lastEpoch, appendedLsn, suspect } = log
    const decision = decideElection(
      {
        self: self.node,
        now,
        record,
        own: { lastEpoch, appendedLsn, suspect },
        lost: log.lost,
        answers: this.#answers,
        absentSince: this.#absentSince,
        promisedUntil: record.releasedEpoch === record.epoch ? now : promisedUntil,
      },
      times.election,
    )
    if (decision.kind === 'stand' && lease.held) this.#stand(versioned, decision.inSync)
    else if (now >= this.#complainAt) this.#complain(decision, record)
  }

  #ask({ record, modRevision }: Versioned<VolumeRecord>, now: Instant): void {
    const { self, peers } = this.#context
    const round = `${record.epoch}/${modRevision}`
    // An answer grows old: a copy that could not be read may be readable by now.
    if (this.#answersFor !== round || now >= after(this.#roundAt, ANSWER_MS_MAX)) {
      this.#answersFor = round
      this.#roundAt = now
      this.#answers.clear()
      this.#askedAt = instant(Number.NEGATIVE_INFINITY)
    }
    if (now < after(this.#askedAt, ASK_MS)) return
    let asked = true
    for (const node of record.inSync) {
      if (node === self.node || this.#answers.has(node)) continue
      const link = peers.ensure(node, 'control', record.id)
      link?.send({ type: 'status-request', volume: record.id, epoch: record.epoch })
      asked &&= link !== undefined
    }
    if (asked) this.#askedAt = now
  }

  /** A volume without a primary for long: says why this copy does not stand. */
  #complain(decision: ElectionDecision, { name }: VolumeRecord): void {
    const { clock, events } = this.#context
    this.#complainAt = after(clock.now(), COMPLAIN_MS)
    const why = decision.kind === 'wait' ? decision.why : 'this node has no lease at the coordinator'
    events.event('warn', `no primary: this copy does not stand: ${why}`, { volume: name })
  }

  #stand(versioned: Versioned<VolumeRecord>, inSync: readonly NodeId[]): void {
    const { self } = this.#context
    const reign = epoch(versioned.record.epoch + 1)
    this.#standingFor = reign
    // Wishes of the old reign were made for its members; who still wants something asks again.
    const { successor: _, retiring: __, releasedEpoch: ___, attachment: held, ...rest } = versioned.record
    // A new reign knows its host from the beginning, and begins with everything of the old one committed.
    const attachment = held === undefined ? undefined : { ...held, confirmed: true }
    const record: VolumeRecord = { ...rest, epoch: reign, primary: self.node, inSync, attachment }
    const { key: recordKey, modRevision } = versioned
    const key = keys.primary(record.id)
    const value = primaryValue(this.#context, reign)
    const transaction: Transaction = {
      compares: [
        { key, modRevision: 0 },
        { key: recordKey, modRevision },
      ],
      operations: [
        { op: 'put', key, value, leased: true },
        { op: 'put', key: recordKey, value: JSON.stringify(record) },
      ],
    }
    this.#attempt(transaction, record)
  }

  /** Tries until the outcome is certain; the compares make a second application impossible. */
  #attempt(transaction: Transaction, record: VolumeRecord): void {
    const { coordinator, lease, scheduler } = this.#context
    const { serial } = lease
    if (this.#owner.closed()) return
    coordinator.transact(transaction, (result) => {
      switch (result.kind) {
        case 'ok':
          this.#won(record, result.revision, serial)
          break
        case 'unknown':
          scheduler.after(UNCERTAIN_RETRY_MS, () => this.#attempt(transaction, record))
          break
        case 'no-lease':
        case 'conflict':
          // Perhaps our own earlier attempt of unknown outcome was the one that came first.
          this.#lookWhoWon(record)
          break
      }
    })
  }

  #lookWhoWon(record: VolumeRecord): void {
    const { coordinator, scheduler, self, view } = this.#context
    readRecord(coordinator, this.#key, (entry) => {
      if (this.#owner.closed()) return
      if (entry === undefined) {
        scheduler.after(UNCERTAIN_RETRY_MS, () => this.#lookWhoWon(record))
        return
      }
      if (entry !== 'absent') {
        const { record: now, modRevision } = entry
        if (now.epoch === record.epoch && now.primary === self.node) {
          this.#won(now, modRevision, -1)
          return
        }
        view.learnVolume(this.#key, now, modRevision)
      }
      this.#standingFor = undefined
      this.#owner.lost()
    })
  }

  #won(record: VolumeRecord, modRevision: number, leaseSerial: number): void {
    this.#standingFor = undefined
    this.#owner.won(record, modRevision, leaseSerial)
  }
}

/** What stands under the primary's key while this node reigns. */
export function primaryValue({ self }: NodeContext, reign: Epoch): string {
  return JSON.stringify({ node: self.node, incarnation: self.incarnation, epoch: reign })
}
