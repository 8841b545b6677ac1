/**
 * The secondary of one volume under one primary: same bytes, same position.
 *
 * Invariants:
 * - I4: nothing of another epoch than `scope.epoch` is taken, and nothing at all after `close`.
 * - An acknowledgement says only what is written (or durable) here.
 * - Only what follows the answer to this very subscription counts: what an earlier one had sent may be on its way still.
 * - Messages are worked off one at a time, in order.
 */
import { joinBytes, type Lsn, lsn, lsnMin } from '@holdfast/base'
import type { RebuildTarget, ReplicaLog } from '@holdfast/volume-log'
import type { AppendMessage, PeerMessage, RebuildMessage, VolumeEpoch } from '@holdfast/wire'
import type { NodeContext } from './context.ts'
import type { Link } from './peer-table.ts'

export interface FollowerOwner {
  /**
   * This copy can't go on: full disk (tried again later), a broken one, or committed batches of ours that are no
   * part of the primary's history.
   */
  troubled(kind: Trouble, reason: string): void
}

export type Trouble = 'no-space' | 'failed' | 'beyond-history'

type Phase =
  | { readonly kind: 'subscribing' }
  | { readonly kind: 'following' }
  | { readonly kind: 'rebuilding'; readonly target: RebuildTarget; receivedBytes: number }
  | { readonly kind: 'ended' }

/** Messages that wait here before the link is given up as hopelessly behind. */
const QUEUE_MAX = 4096

export class Follower {
  readonly scope: VolumeEpoch
  readonly link: Link
  readonly #context: NodeContext
  readonly #log: ReplicaLog
  readonly #owner: FollowerOwner
  readonly #segmentBlocks: number
  readonly #subscription: number
  readonly #queue: PeerMessage[] = []
  readonly #checkpoint: Uint8Array[] = []
  #phase: Phase = { kind: 'subscribing' }
  #busy = false
  /** Appends under way: they may follow each other without waiting. */
  #appending = 0
  /** A flush was asked for that waits until so much is written. */
  #flushTarget: Lsn | undefined
  #ackScheduled = false
  #committedTarget: Lsn = lsn(0)
  /** Reached once: what was missing after an unclean host stop is here again. See `#clearSuspect`. */
  #caughtUpLsn: Lsn | undefined

  constructor(
    context: NodeContext,
    log: ReplicaLog,
    scope: VolumeEpoch,
    segmentBlocks: number,
    link: Link,
    owner: FollowerOwner,
  ) {
    this.#segmentBlocks = segmentBlocks
    this.#context = context
    this.#log = log
    this.scope = scope
    this.link = link
    this.#owner = owner
    this.#subscription = context.peers.nextNumber()
    const { appendedLsn, committedLsn, durableLsn, epochTable, lastHeaderCrc } = log
    const segments = log.fullSegmentsBelow(appendedLsn)
    const positions = { appendedLsn, committedLsn, durableLsn }
    const state = { epochTable, segments, lastHeaderCrc, rebuilding: log.state === 'rebuilding' }
    link.send({ type: 'subscribe', ...scope, seq: this.#subscription, ...positions, ...state })
  }

  get phase(): Phase['kind'] {
    return this.#phase.kind
  }

  /** True while an operation on the log is under way, also after `close`. */
  get busy(): boolean {
    return this.#busy || this.#appending > 0
  }

  message(message: PeerMessage): void {
    if (this.#phase.kind === 'ended') return
    if (this.#queue.length >= QUEUE_MAX) {
      this.link.close('too far behind')
      return
    }
    this.#queue.push(message)
    this.#work()
  }

  /** No message counts from now on. */
  close(): void {
    if (this.#phase.kind === 'rebuilding') this.#phase.target.abort()
    this.#phase = { kind: 'ended' }
    this.#queue.length = 0
  }

  #work(): void {
    while (!this.#busy && this.#queue.length > 0) {
      const message = this.#queue.shift()
      if (message !== undefined) this.#take(message)
    }
  }

  #later(): () => void {
    this.#busy = true
    return () => {
      this.#busy = false
      if (this.#phase.kind !== 'ended') this.#work()
    }
  }

  #take(message: PeerMessage): void {
    if (this.#phase.kind === 'subscribing' && !this.#answersUs(message)) return
    switch (message.type) {
      case 'accepted':
        this.#truncate(message.forkLsn)
        break
      case 'append':
        this.#append(message)
        break
      case 'commit':
        this.#commit(message.committedLsn)
        break
      case 'flush':
        this.#flush(message.lsn)
        break
      case 'rebuild':
        this.#beginRebuild(message)
        break
      case 'segment-data':
        this.#segmentData(message.segment, message.offsetBytes, message.payload)
        break
      case 'checkpoint-data':
        this.#checkpoint.push(...message.payload)
        if (message.last) this.#install()
        break
      default:
        break
    }
  }

  #answersUs(message: PeerMessage): boolean {
    if (message.type !== 'accepted' && message.type !== 'rebuild') return false
    return message.seq === this.#subscription || message.seq === 0
  }

  #truncate(forkLsn: Lsn): void {
    if (forkLsn < this.#log.committedLsn) {
      // Every copy that was in sync has lost what it had not flushed; ours left the set before that.
      const { committedLsn } = this.#log
      this.#fail('beyond-history', `batches ${forkLsn} to ${committedLsn} were committed and are in no in-sync copy`)
      return
    }
    const done = this.#later()
    if (forkLsn === this.#log.appendedLsn && this.#log.state === 'ok') {
      this.#phase = { kind: 'following' }
      this.#acknowledge()
      done()
      return
    }
    this.#log.truncateTo(forkLsn, (error) => {
      if (this.#phase.kind !== 'ended') {
        if (error !== undefined) this.#fail('failed', `the tail can't be cut: ${error.kind}`)
        else this.#phase = { kind: 'following' }
        this.#acknowledgeSoon()
      }
      done()
    })
  }

  #append(message: AppendMessage): void {
    if (this.#phase.kind !== 'following') return
    this.#appending++
    this.#log.appendRaw(message.payload, message.lsn, (error) => {
      this.#appending--
      // After a failure a write may still be under way.
      if (error === undefined) this.link.giveBack(message.payload)
      if (this.#phase.kind === 'ended') return
      if (error === undefined) {
        this.#commit(message.committedLsn)
        this.#flushDeferred()
        if (this.#appending === 0) this.#acknowledge()
        else this.#acknowledgeSoon()
        return
      }
      const why = error.kind === 'refused' ? `${error.reason} at ${error.lsn}` : error.message
      this.#fail(error.kind === 'no-space' ? 'no-space' : 'failed', `a batch can't be appended: ${why}`)
    })
  }

  #commit(position: Lsn): void {
    if (this.#phase.kind !== 'following') return
    if (position > this.#committedTarget) this.#committedTarget = position
    const reached = lsnMin(this.#committedTarget, this.#log.writtenLsn)
    if (reached > this.#log.committedLsn) this.#log.commitTo(reached)
    if (this.#log.suspect) this.#clearSuspect(position)
  }

  /**
   * A new primary does not know how much of the older epochs was acknowledged before its own first batch is committed:
   * a position below that says nothing. The first one above covers all that this copy may have lost, here or there.
   */
  #clearSuspect(position: Lsn): void {
    const reign = this.#log.epochTable.at(-1)
    if (reign?.epoch !== this.scope.epoch || position <= reign.firstLsn) return
    this.#caughtUpLsn ??= position
    if (this.#log.writtenLsn >= this.#caughtUpLsn) this.#log.clearSuspect()
  }

  /** Once everything below the position is written: the primary may ask while it is still being appended. */
  #flush(position: Lsn): void {
    if (position > this.#log.writtenLsn && this.#appending > 0) {
      if (position > (this.#flushTarget ?? 0)) this.#flushTarget = position
      return
    }
    this.#log.flush((error) => {
      if (this.#phase.kind === 'ended') return
      if (error !== undefined) this.#fail('failed', `the log can't be flushed: ${error.message}`)
      else this.#acknowledge()
    })
  }

  #flushDeferred(): void {
    const target = this.#flushTarget
    this.#flushTarget = undefined
    if (target !== undefined) this.#flush(target)
  }

  #acknowledgeSoon(): void {
    if (this.#ackScheduled) return
    this.#ackScheduled = true
    this.#context.scheduler.soon(() => {
      this.#ackScheduled = false
      if (this.#phase.kind === 'following') this.#acknowledge()
    })
  }

  #acknowledge(): void {
    const { writtenLsn, durableLsn } = this.#log
    this.link.send({ type: 'ack', ...this.scope, appendedLsn: writtenLsn, durableLsn })
  }

  #beginRebuild(message: RebuildMessage): void {
    const { appendedLsn } = this.#log
    this.#context.events.event('info', 'rebuilding this copy', {
      ...this.scope,
      from: appendedLsn,
      bytes: message.totalBytes,
    })
    // What the primary leaves out lies below the fork and is whole here.
    const sent = new Set(message.segments)
    const held = message.needed.filter((segment) => !sent.has(segment))
    const fork = held.length === 0 ? lsn(0) : lsn((Math.max(...held) + 1) * this.#segmentBlocks)
    const target = this.#log.beginRebuild(fork, message.needed, this.#later())
    this.#checkpoint.length = 0
    this.#phase = { kind: 'rebuilding', target, receivedBytes: 0 }
  }

  #segmentData(segment: number, offsetBytes: number, payload: readonly Uint8Array[]): void {
    const phase = this.#phase
    if (phase.kind !== 'rebuilding') return
    const done = this.#later()
    const bytes = joinBytes(payload)
    phase.target.writeSegment(segment, offsetBytes, bytes, (error) => {
      if (error === undefined) this.link.giveBack(payload)
      if (this.#phase !== phase) {
        done()
        return
      }
      if (error !== undefined) {
        this.#fail(error.kind === 'no-space' ? 'no-space' : 'failed', `rebuild: ${error.message}`)
      } else {
        phase.receivedBytes += bytes.length
        this.#progress(phase.receivedBytes, false)
      }
      done()
    })
  }

  #install(): void {
    const phase = this.#phase
    if (phase.kind !== 'rebuilding') return
    const done = this.#later()
    phase.target.install(this.#checkpoint.splice(0), (error) => {
      if (this.#phase !== phase) {
        done()
        return
      }
      if (error !== undefined) {
        this.#fail('failed', `the checkpoint can't be installed: ${error.message}`)
      } else {
        this.#phase = { kind: 'following' }
        this.#committedTarget = this.#log.committedLsn
        this.#progress(phase.receivedBytes, true)
        this.#acknowledge()
      }
      done()
    })
  }

  #progress(receivedBytes: number, installed: boolean): void {
    this.link.send({ type: 'rebuild-progress', ...this.scope, receivedBytes, installed })
  }

  #fail(kind: Trouble, reason: string): void {
    const refusal = kind === 'no-space' ? 'no-space' : 'damaged'
    this.link.send({ type: 'refused', ...this.scope, reason: refusal })
    this.close()
    this.#owner.troubled(kind, reason)
  }
}
