/**
 * Writes and zeroes whose ends are not those of blocks: the blocks at their edges are read, changed and written.
 *
 * Invariant: between reading an edge and putting it into the log no other mutation enters the log.
 */
import { BLOCK_BYTES, type Errno, errno, type NodeId } from '@holdfast/base'
import type { PieceSink, VolumeTarget } from '@holdfast/frontend'
import type { ReplicaLog } from '@holdfast/volume-log'
import type { Admission } from './admission.ts'
import type { ReadOutcome, RepairDesk } from './repair-desk.ts'

export interface UnalignedOwner extends Pick<VolumeTarget, 'write' | 'zero'> {
  /** Puts what was accepted into the log, so that `readLatest` sees it. */
  settle(): void
  /** @returns false where there is no room. */
  appendBlocks(firstBlock: number, blocks: Uint8Array, request: UnalignedWrite): boolean
  /** Answers at the end of the turn. */
  fail(sink: PieceSink, seq: number, payload: Uint8Array | undefined, error: Errno): void
}

export interface UnalignedWrite {
  readonly sink: PieceSink
  readonly seq: number
  /** Bytes. */
  readonly offset: number
  readonly payload: Uint8Array
  readonly fua: boolean
}

export class UnalignedRequests {
  readonly #log: ReplicaLog
  readonly #repairs: RepairDesk
  readonly #admission: Admission
  readonly #owner: UnalignedOwner
  /** Whether the reign has ended. */
  readonly #closed: () => boolean

  constructor(
    log: ReplicaLog,
    repairs: RepairDesk,
    admission: Admission,
    owner: UnalignedOwner,
    closed: () => boolean,
  ) {
    this.#log = log
    this.#repairs = repairs
    this.#admission = admission
    this.#owner = owner
    this.#closed = closed
  }

  /** Mutations behind it wait if its edges must be read from disk. */
  write(request: UnalignedWrite): void {
    const { sink, seq, offset, payload, fua } = request
    const { length } = payload
    const first = Math.floor(offset / BLOCK_BYTES)
    const end = Math.ceil((offset + length) / BLOCK_BYTES)
    // The newest version of an edge block may lie in the batch that is being filled.
    this.#owner.settle()
    const blocks = new Uint8Array((end - first) * BLOCK_BYTES)
    const lastAt = (end - first - 1) * BLOCK_BYTES
    const headCut = offset % BLOCK_BYTES !== 0 || end - first === 1
    const tailCut = (offset + length) % BLOCK_BYTES !== 0 && end - first > 1
    const append = (): void => {
      blocks.set(payload, offset - first * BLOCK_BYTES)
      if (this.#owner.appendBlocks(first, blocks, request)) return
      this.#admission.waitFirst({ kind: 'write', sink, seq, offset, length, fua, payload })
    }
    const headHere = !headCut || this.#log.readLatest(first, blocks, 0)
    const tailHere = !tailCut || this.#log.readLatest(end - 1, blocks, lastAt)
    if (headHere && tailHere) {
      append()
      return
    }
    this.#admission.holdForUnaligned()
    const then = (next: () => void) => (outcome: ReadOutcome): void => {
      if (outcome === 'read' && !this.#closed()) next()
      else this.#failed(request, outcome)
    }
    const finish = (): void => this.#admission.unalignedRead(append)
    const readTail = (): void => {
      if (!tailCut) finish()
      else this.#repairs.readLatest(end - 1, blocks, lastAt, then(finish))
    }
    if (!headCut) readTail()
    else this.#repairs.readLatest(first, blocks, 0, then(readTail))
  }

  #failed({ sink, seq, payload }: UnalignedWrite, outcome: ReadOutcome): void {
    if (this.#closed()) {
      sink.pieceReturned(seq, payload)
      return
    }
    if (outcome === 'elsewhere') sink.pieceReturned(seq, payload)
    else this.#owner.fail(sink, seq, payload, errno.EIO)
    this.#admission.unalignedFailed()
  }

  /** Edges by read-modify-write under no number of their own, then the middle under the piece's. */
  zero(sink: PieceSink, seq: number, offset: number, length: number, fua: boolean): void {
    const firstWhole = Math.ceil(offset / BLOCK_BYTES) * BLOCK_BYTES
    const endWhole = Math.floor((offset + length) / BLOCK_BYTES) * BLOCK_BYTES
    const options = { fua, keepAllocated: false }
    const owner = this.#owner
    const parts: (() => void)[] = []
    const edge = new EdgeSink(sink, seq, () => parts.shift()?.())
    const head = firstWhole - offset
    const tail = offset + length - endWhole
    if (head > 0) parts.push(() => owner.write(edge, 0, offset, new Uint8Array(head), 0, head, false))
    if (tail > 0) parts.push(() => owner.write(edge, 0, endWhole, new Uint8Array(tail), 0, tail, false))
    parts.push(() => owner.zero(sink, seq, firstWhole, endWhole - firstWhole, options))
    parts.shift()?.()
  }
}

/** Stands in for a piece's sink while an edge of it is written; passes failures on. */
class EdgeSink implements PieceSink {
  readonly session = 0 as PieceSink['session']
  readonly origin: NodeId
  readonly #sink: PieceSink
  readonly #seq: number
  readonly #next: () => void
  constructor(sink: PieceSink, seq: number, next: () => void) {
    this.origin = sink.origin
    this.#sink = sink
    this.#seq = seq
    this.#next = next
  }
  pieceDone(_seq: number, error: Errno): void {
    if (error === errno.OK) this.#next()
    else this.#sink.pieceDone(this.#seq, error)
  }
  pieceReturned(): void {
    this.#sink.pieceReturned(this.#seq, undefined)
  }
}
