/**
 * Flushes in rounds: everybody who waits shares one `fdatasync` per member (I3).
 *
 * Invariant: a waiter is answered only when everything below its position is durable on every in-sync
 * member, and while no other primary can exist (I8): what that one acknowledged is not here. A round that began before a waiter came may serve it only if its position lies below the round's.
 */
import { type Clock, errno, type Lsn } from '@holdfast/base'
import type { PieceSink } from '@holdfast/frontend'
import type { VolumeCounters } from './statistics.ts'

interface Waiter {
  readonly lsn: Lsn
  readonly sink: PieceSink
  readonly seq: number
  readonly startedAt: number
  /** Of a write with FUA, in case it has to be asked again elsewhere. */
  readonly payload: Uint8Array | undefined
}

export interface FlushOwner {
  /** Asks every member, ourselves included, to make everything below `target` durable. */
  flushAll(target: Lsn): void
  /** A round has begun that does so, whoever asks. */
  began(target: Lsn): void
  durableLsn(): Lsn
  committedLsn(): Lsn
  /** Whether no other primary exists. When that changes, `run` is to be called. */
  mayAnswer(): boolean
}

export class FlushRounds {
  readonly #counters: VolumeCounters
  readonly #clock: Clock
  readonly #owner: FlushOwner
  #waiters: Waiter[] = []
  #roundTarget: Lsn | undefined
  #roundStartedAt = 0

  constructor(counters: VolumeCounters, clock: Clock, owner: FlushOwner) {
    this.#counters = counters
    this.#clock = clock
    this.#owner = owner
  }

  get waiting(): boolean {
    return this.#waiters.length > 0
  }

  /** Answers once everything below `position` is durable everywhere. Begin with `run`. */
  wait(position: Lsn, sink: PieceSink, seq: number, payload?: Uint8Array | undefined): void {
    this.#waiters.push({ lsn: position, sink, seq, startedAt: this.#clock.now(), payload })
  }

  /**
   * A round for a batch that is about to be sent, because a flush of it is sure or likely to follow: the disks work while
   * it is being acknowledged. True: it has begun, and the caller asks every member with the batch itself.
   */
  anticipate(target: Lsn): boolean {
    if (this.#roundTarget !== undefined || target <= this.#owner.durableLsn()) return false
    this.#began(target)
    return true
  }

  /** Answers who can be answered and starts a round if somebody still waits. */
  run(): void {
    if (this.#waiters.length === 0) return
    const durable = this.#owner.durableLsn()
    this.#answer(durable)
    if (this.#waiters.length === 0 || this.#roundTarget !== undefined) return
    const committed = this.#owner.committedLsn()
    // Who waits for a position that is not committed yet is looked at again when it is.
    if (!this.#waiters.some(({ lsn }) => lsn <= committed && lsn > durable)) return
    this.#began(committed)
    this.#owner.flushAll(committed)
  }

  durable(position: Lsn): void {
    if (this.#roundTarget !== undefined && position >= this.#roundTarget) this.#roundTarget = undefined
    this.run()
  }

  /** True when a round lasts so long that a member may never have heard of it. */
  retry(): boolean {
    if (this.#roundTarget === undefined || this.#clock.now() - this.#roundStartedAt < 500) return false
    this.#roundStartedAt = this.#clock.now()
    return true
  }

  /** EIO to everybody who waits for what is not committed: too few copies are there to commit it. */
  failUncommitted(): void {
    const committed = this.#owner.committedLsn()
    const failed = this.#waiters.filter(({ lsn }) => lsn > committed)
    if (failed.length === 0) return
    this.#waiters = this.#waiters.filter(({ lsn }) => lsn <= committed)
    for (const { sink, seq } of failed) sink.pieceDone(seq, errno.EIO)
  }

  returnAll(): void {
    for (const { sink, seq, payload } of this.#waiters.splice(0)) sink.pieceReturned(seq, payload)
  }

  #began(target: Lsn): void {
    this.#roundTarget = target
    this.#owner.began(target)
    this.#roundStartedAt = this.#clock.now()
  }

  #answer(durable: Lsn): void {
    if (!this.#owner.mayAnswer()) return
    const left: Waiter[] = []
    const ready: Waiter[] = []
    for (const waiter of this.#waiters) (waiter.lsn <= durable ? ready : left).push(waiter)
    this.#waiters = left
    for (const { sink, seq, startedAt } of ready) {
      this.#counters.flush.add(0, this.#clock.now() - startedAt)
      sink.pieceDone(seq, errno.OK)
    }
  }
}
