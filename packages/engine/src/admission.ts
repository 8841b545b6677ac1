/**
 * Mutations that must wait: until the epoch has begun, for room in the log, for an unaligned write before them, for
 * the end of a planned move, or for copies, without which nothing more would ever leave the log's memory.
 *
 * Invariant: they enter in the order in which they came; while one waits, all that come later do.
 */
import { type Errno, errno, type VolumeId } from '@holdfast/base'
import type { PieceSink } from '@holdfast/frontend'
import type { ReplicaLog } from '@holdfast/volume-log'
import type { NodeContext } from './context.ts'

/** A full disk is reported this often, not once per refused write. */
const NO_SPACE_SAID_MS = 10_000

export interface Mutation {
  readonly kind: 'write' | 'zero'
  readonly sink: PieceSink
  readonly seq: number
  /** Bytes, as `length`. */
  readonly offset: number
  readonly length: number
  readonly fua: boolean
  readonly payload: Uint8Array | undefined
}

type Obstacle = 'nothing' | 'start' | 'room' | 'unaligned'

export interface AdmissionOwner {
  /** It need not wait any more; it may be made to wait again at once. */
  enter(mutation: Mutation): void
  /** Something waits. */
  woken(): void
}

export class Admission {
  readonly #context: NodeContext
  readonly #log: ReplicaLog
  readonly #volume: VolumeId
  readonly #owner: AdmissionOwner
  #waiting: Mutation[] = []
  #obstacle: Obstacle = 'start'
  /** A planned move: nothing is admitted, whatever else it waits for. */
  #quiescing = false
  /** Copies have been lacking for so long that what waits for them is failed: see `failForWantOfCopies`. */
  #wantsCopies = false
  #closed = false
  #noSpaceSaidAt: number = Number.NEGATIVE_INFINITY

  constructor(context: NodeContext, log: ReplicaLog, volume: VolumeId, owner: AdmissionOwner) {
    this.#context = context
    this.#log = log
    this.#volume = volume
    this.#owner = owner
  }

  get mustWait(): boolean {
    return this.#obstacle !== 'nothing' || this.#quiescing || this.#wantsCopies || this.#closed
  }
  get quiescing(): boolean {
    return this.#quiescing
  }
  /** An unaligned write that was accepted is not in the log yet. */
  get behindUnaligned(): boolean {
    return this.#obstacle === 'unaligned'
  }

  wait(mutation: Mutation): void {
    this.#owner.woken()
    this.#waiting.push(mutation)
    if (this.#closed) this.#context.scheduler.soon(() => this.returnAll())
  }

  /** For one that had been admitted: it goes before all others. */
  waitFirst(mutation: Mutation): void {
    this.#waiting.unshift(mutation)
  }

  /** Whether the log has room for that many blocks of payload; if not, whatever comes now must wait. */
  hasRoom(blocks: number): boolean {
    const room = this.#log.canAppend(blocks)
    if (room === 'yes') return true
    this.#obstacle = 'room'
    if (room === 'opening') this.#log.onRoom(() => this.#lifted('room'))
    // Whoever waits is told at the end of the turn; the next request asks for room again.
    else this.#context.scheduler.soon(() => this.#failForSpace())
    return false
  }

  /** The epoch has begun. */
  begin(): void {
    if (this.#obstacle === 'start') this.#context.scheduler.soon(() => this.#lifted('start'))
  }

  /** The edges of an unaligned write are read from disk: until `unalignedFailed` or `unalignedRead`. */
  holdForUnaligned(): void {
    this.#obstacle = 'unaligned'
  }
  unalignedFailed(): void {
    this.#lifted('unaligned')
  }
  /** @param append Puts the write into the log, or lets it wait first. */
  unalignedRead(append: () => void): void {
    this.#obstacle = 'nothing'
    append()
    this.#lifted('nothing')
  }

  quiesce(): void {
    this.#quiescing = true
  }
  resume(): void {
    this.#quiescing = false
    this.#lifted('nothing')
  }

  /** Fails what waits; to be called again for what comes later, until `copiesAreBack`. */
  failForWantOfCopies(): void {
    this.#wantsCopies = true
    this.failAll(errno.EIO)
  }
  copiesAreBack(): void {
    if (!this.#wantsCopies) return
    this.#wantsCopies = false
    this.#lifted('nothing')
  }

  failAll(error: Errno): void {
    for (const { sink, seq } of this.#waiting.splice(0)) sink.pieceDone(seq, error)
  }

  /** Nothing enters any more: what waits, and what comes, is for `returnAll`. */
  close(): void {
    this.#closed = true
  }
  returnAll(): void {
    for (const { sink, seq, payload } of this.#waiting.splice(0)) sink.pieceReturned(seq, payload)
  }

  /** Does nothing where they wait for something else. */
  #lifted(obstacle: Obstacle): void {
    if (this.#obstacle !== obstacle) return
    this.#obstacle = 'nothing'
    const waiting = this.#waiting
    this.#waiting = []
    for (const mutation of waiting) this.#owner.enter(mutation)
  }

  #failForSpace(): void {
    if (this.#obstacle !== 'room' || this.#closed) return
    const now = this.#context.clock.now()
    if (now >= this.#noSpaceSaidAt + NO_SPACE_SAID_MS) {
      this.#noSpaceSaidAt = now
      const fields = { volume: this.#volume }
      this.#context.events.event('error', 'no space for the log: writes get ENOSPC until there is some', fields)
    }
    this.failAll(errno.ENOSPC)
    this.#obstacle = 'nothing'
  }
}
