/**
 * When a replica may stand for election, and with which in-sync set (I5).
 *
 * Invariants:
 * - Only a member of `inSync` stands, only while no primary's key exists, and never before the time
 *   it promised the last primary has passed (I8).
 * - A replica whose host rebooted without a clean stop may lack an unflushed tail: it stands only when
 *   every other in-sync member has answered, none is more complete, and none has a copy that it can't read: that
 *   one may hold what this one lost (I9).
 * - One whose data are gone (its disk was replaced) never stands before it has been fed, not even alone.
 * - Any other in-sync member holds all that was ever acknowledged, so waiting for the longest log is
 *   courtesy, bounded in time, and dropping those that don't answer loses nothing.
 */
import { after, type Epoch, type Instant, type Lsn, type NodeId, type VolumeRecord } from '@holdfast/base'

/** How much of the history a replica holds. */
export interface LogStatus {
  readonly lastEpoch: Epoch
  readonly appendedLsn: Lsn
  readonly suspect: boolean
}

/** Of another member. `unreadable`: it holds no usable copy, and may hold one again; `lost`: it holds nothing of it. */
export type Answer = LogStatus | 'unreadable' | 'lost'

export interface ElectionInput {
  readonly self: NodeId
  readonly now: Instant
  readonly record: VolumeRecord
  readonly own: LogStatus
  /** Our copy was complete and is gone: what is here is empty, or on its way. */
  readonly lost: boolean
  /** Of this round. */
  readonly answers: ReadonlyMap<NodeId, Answer>
  /** Since when no primary has been seen. */
  readonly absentSince: Instant
  /** Promises given to the last primary end then. */
  readonly promisedUntil: Instant
}

export interface ElectionSettings {
  /** How long to wait for answers that don't come. */
  readonly collectMs: number
  /** How long to leave the field to a better or earlier-ranked member that answered. */
  readonly yieldMs: number
}

export type ElectionDecision =
  | { readonly kind: 'wait'; readonly why: string }
  | { readonly kind: 'stand'; readonly inSync: readonly NodeId[] }

/** Negative when `a` is less complete than `b`, 0 when they hold the same. */
export function compareLogs(a: LogStatus, b: LogStatus): number {
  return a.lastEpoch - b.lastEpoch || a.appendedLsn - b.appendedLsn
}

const wait = (why: string): ElectionDecision => ({ kind: 'wait', why })

export function decideElection(input: ElectionInput, settings: ElectionSettings): ElectionDecision {
  const { self, now, record, own, answers } = input
  if (!record.inSync.includes(self)) return wait('not in sync')
  if (input.lost) return wait('its data are gone, and another copy has to bring them back')
  if (now < input.promisedUntil) return wait('promised not to stand yet')
  const others = record.inSync.filter((node) => node !== self)
  const missing = others.filter((node) => !answers.has(node))
  if (own.suspect && missing.length > 0) return wait('may lack a tail that a silent member holds')
  const unreadable = others.some((node) => answers.get(node) === 'unreadable')
  if (own.suspect && unreadable) return wait('may lack a tail that a damaged member holds')
  if (missing.length > 0 && now < after(input.absentSince, settings.collectMs)) {
    return wait('collecting answers')
  }
  const rival = firstRival(input, others)
  if (rival === 'more-complete-than-suspect') return wait('a more complete member must stand')
  if (rival === 'first' && now < after(input.absentSince, settings.yieldMs)) {
    return wait('another member goes first')
  }
  return { kind: 'stand', inSync: [self, ...others.filter((node) => typeof answers.get(node) === 'object')] }
}

function firstRival(
  input: ElectionInput,
  others: readonly NodeId[],
): 'none' | 'first' | 'more-complete-than-suspect' {
  const { self, record, own, answers } = input
  let first = false
  for (const node of others) {
    const status = answers.get(node)
    if (typeof status !== 'object') continue
    const difference = compareLogs(status, own)
    if (own.suspect && (difference > 0 || (!status.suspect && difference >= 0))) {
      return 'more-complete-than-suspect'
    }
    if (own.suspect !== status.suspect) first ||= own.suspect
    else if (difference !== 0) first ||= difference > 0
    else if (record.successor !== undefined && record.successor !== self) {
      first ||= record.successor === node || record.inSync.indexOf(node) < record.inSync.indexOf(self)
    } else if (record.successor === undefined) {
      first ||= record.inSync.indexOf(node) < record.inSync.indexOf(self)
    }
  }
  return first ? 'first' : 'none'
}
