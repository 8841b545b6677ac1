/**
 * A planned move of the primary: stop, let everything commit on the successor, give the key up. The
 * successor stands at once; nobody else does while it is there.
 */
import { after, type Instant, instant, keys, type NodeId, type VolumeId, type VolumeRecord } from '@holdfast/base'
import type { Versioned } from './cluster-view.ts'
import type { NodeContext } from './context.ts'
import type { LocalPrimary } from './local-primary.ts'

const POLL_MS = 2
const GIVE_UP_MS = 3_000
/** After a failed move the next attempt waits, so that clients are not stopped over and over. */
const COOL_DOWN_MS = 5_000

export class HandOver {
  readonly #context: NodeContext
  readonly #key: string
  readonly #volume: VolumeId
  #active = false
  #notBefore: Instant = instant(Number.NEGATIVE_INFINITY)

  constructor(context: NodeContext, key: string, volume: VolumeId) {
    this.#context = context
    this.#key = key
    this.#volume = volume
  }

  get active(): boolean {
    return this.#active
  }

  /** Asks for a move by writing the successor into the record; the primary acts when it sees that. */
  requestSuccessor(to: NodeId, done: (applied: boolean) => void): void {
    const versioned = this.#context.view.byId.get(this.#volume)
    if (versioned === undefined) {
      done(false)
      return
    }
    this.#putRecord(versioned, { ...versioned.record, successor: to }, done)
  }

  /** `gone` is called when the key is given up (or may be): the role must end. */
  begin(
    primary: LocalPrimary,
    successor: NodeId,
    gone: () => void,
  ): void {
    const now = this.#context.clock.now()
    if (this.#active || !primary.serving || now < this.#notBefore) return
    const member = primary.machine.member(successor)
    if (member === undefined || member.mode !== 'live' || !member.required) return
    this.#active = true
    this.#context.events.event('info', 'handing the primary over', { ...primary.scope, to: successor })
    primary.quiesce()
    const giveUpAt = after(now, GIVE_UP_MS)
    const poll = (): void => {
      if (primary.quiescent) {
        this.#release(primary, gone)
      } else if (!primary.serving) {
        this.#active = false
      } else if (this.#context.clock.now() > giveUpAt) {
        this.#giveUp(primary, 'the successor does not catch up')
      } else {
        this.#context.scheduler.after(POLL_MS, poll)
      }
    }
    poll()
  }

  #release(primary: LocalPrimary, gone: () => void): void {
    const { view, coordinator, self } = this.#context
    const holder = view.primaries.get(this.#volume)
    const versioned = view.byId.get(this.#volume)
    if (holder?.record.incarnation !== self.incarnation || versioned === undefined) {
      this.#giveUp(primary, 'our key is not known')
      return
    }
    // From here on another may be elected: no read is answered any more.
    primary.stopServing()
    const key = keys.primary(this.#volume)
    const released: VolumeRecord = { ...versioned.record, releasedEpoch: primary.scope.epoch }
    coordinator.transact(
      {
        compares: [
          { key, modRevision: holder.modRevision },
          { key: this.#key, modRevision: versioned.modRevision },
        ],
        operations: [
          { op: 'delete', key },
          // Whoever promised us not to stand need not wait for the end of that promise.
          { op: 'put', key: this.#key, value: JSON.stringify(released) },
        ],
      },
      (result) => {
        if (result.kind === 'conflict') {
          this.#giveUp(primary, 'the volume changed meanwhile')
          return
        }
        this.#active = false
        gone()
      },
    )
  }

  #giveUp(primary: LocalPrimary, reason: string): void {
    this.#active = false
    this.#notBefore = after(this.#context.clock.now(), COOL_DOWN_MS)
    this.#context.events.event('warn', `the primary stays: ${reason}`, { ...primary.scope })
    primary.resume()
    const versioned = this.#context.view.byId.get(this.#volume)
    if (versioned === undefined) return
    const { successor: _, ...record } = versioned.record
    this.#putRecord(versioned, record, () => {})
  }

  #putRecord(
    { modRevision }: Versioned<VolumeRecord>,
    record: VolumeRecord,
    done: (applied: boolean) => void,
  ): void {
    const value = JSON.stringify(record)
    this.#context.coordinator.transact(
      {
        compares: [{ key: this.#key, modRevision }],
        operations: [{ op: 'put', key: this.#key, value }],
      },
      (result) => done(result.kind === 'ok'),
    )
  }
}
