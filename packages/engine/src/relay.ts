/**
 * Requests of a frontend whose primary is another node: the asking end and the answering end.
 *
 * The asking end keeps every write's payload until it is answered, so that nothing is lost with the link.
 */
import { type BlockStatusExtent, copyBytes, type Epoch, type Errno, errno, type LogPosition, type Lsn, lsn, type NodeId, type SessionId, type VolumeId } from '@holdfast/base'
import type { PieceSink, VolumeTarget } from '@holdfast/frontend'
import type {
  ReadReplyMessage,
  RepliesMessage,
  RequestMessage,
  RequestOperation,
  VolumeEpoch,
} from '@holdfast/wire'
import type { NodeContext } from './context.ts'
import type { Link } from './peer-table.ts'

/** Stands for "not primary (any more)" in an answer. */
export const ASK_AGAIN = -1

interface PendingPiece {
  readonly sink: PieceSink
  readonly payload: Uint8Array | undefined
  readonly target: Uint8Array | undefined
  readonly targetOffset: number
}

type StatusDone = (error: Errno | -1, extents: readonly BlockStatusExtent[]) => void

/** The asking end: one per volume, link and epoch. */
export class RelayTarget implements VolumeTarget {
  readonly link: Link
  readonly #scope: VolumeEpoch
  readonly #context: NodeContext
  readonly #pending = new Map<SessionId, Map<number, PendingPiece>>()
  /** Block-status questions run under a session of their own. */
  readonly questionSession: SessionId
  readonly #questions = new Map<number, StatusDone>()
  #questionSeq = 0
  #committedLsn: Lsn = lsn(0)
  #closed = false

  constructor(context: NodeContext, scope: VolumeEpoch, link: Link, questionSession: SessionId) {
    this.#context = context
    this.#scope = scope
    this.link = link
    this.questionSession = questionSession
  }

  get volume(): VolumeId {
    return this.#scope.volume
  }
  get epoch(): number {
    return this.#scope.epoch
  }

  read(
    sink: PieceSink,
    seq: number,
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
  ): boolean {
    this.#send(sink, seq, 'read', offset, length, false, [], { sink, payload: undefined, target, targetOffset })
    return false
  }

  write(
    sink: PieceSink,
    seq: number,
    offset: number,
    source: Uint8Array,
    sourceStart: number,
    length: number,
    fua: boolean,
  ): void {
    const whole = sourceStart === 0 && length === source.length && length >= 64 * 1024
    const payload = whole ? source : copyBytes(source, sourceStart, sourceStart + length)
    const piece = { sink, payload, target: undefined, targetOffset: 0 }
    this.#send(sink, seq, 'write', offset, length, fua, [payload], piece)
  }

  zero(
    sink: PieceSink,
    seq: number,
    offset: number,
    length: number,
    options: { readonly fua: boolean; readonly keepAllocated: boolean },
  ): void {
    const piece = { sink, payload: undefined, target: undefined, targetOffset: 0 }
    this.#send(sink, seq, 'zero', offset, length, options.fua, [], piece)
  }

  flush(sink: PieceSink, seq: number, acknowledged: readonly LogPosition[]): void {
    const piece = { sink, payload: undefined, target: undefined, targetOffset: 0 }
    this.#send(sink, seq, 'flush', 0, 0, false, [], piece, acknowledged)
  }

  position(): LogPosition | undefined {
    return this.#committedLsn === 0 ? undefined : { epoch: this.#scope.epoch, lsn: this.#committedLsn }
  }

  blockStatus(offset: number, length: number, extentCountMax: number, done: StatusDone): void {
    if (this.#closed) {
      this.#context.scheduler.soon(() => done(ASK_AGAIN, []))
      return
    }
    const seq = ++this.#questionSeq
    this.#questions.set(seq, done)
    this.link.send({
      ...this.#request(this.questionSession, seq, 'block-status', offset, length),
      // The number of extents travels where a read has nothing.
      fua: extentCountMax === 1,
    })
  }

  reserve(length: number): Uint8Array {
    return new Uint8Array(length)
  }
  received(): void {}
  unreserve(): void {}

  detach(sink: PieceSink): void {
    if (!this.#pending.delete(sink.session)) return
    this.link.send({ type: 'session-close', session: sink.session })
  }

  replies(message: RepliesMessage): void {
    // Of an earlier reign of the same node, on its way while we asked again: its positions are not of this history.
    if (message.epoch !== 0 && message.epoch !== this.#scope.epoch) return
    if (message.committedLsn > this.#committedLsn) this.#committedLsn = message.committedLsn
    const pieces = this.#pending.get(message.session)
    if (pieces === undefined) return
    message.seqs.forEach((seq, at) => {
      this.#answer(pieces, seq, message.errors[at] ?? errno.EIO)
    })
  }

  readReply(message: ReadReplyMessage): void {
    if (message.session === this.questionSession) {
      const done = this.#questions.get(message.seq)
      this.#questions.delete(message.seq)
      done?.(message.error as Errno | -1, decodeExtents(message.payload[0]))
      return
    }
    const pieces = this.#pending.get(message.session)
    const piece = pieces?.get(message.seq)
    if (pieces === undefined || piece === undefined) return
    if (message.error === errno.OK) {
      let at = piece.targetOffset
      for (const part of message.payload) {
        piece.target?.set(part, at)
        at += part.length
      }
      this.link.giveBack(message.payload)
    }
    this.#answer(pieces, message.seq, message.error)
  }

  /** The link is gone: everything unanswered goes back to its session. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    for (const pieces of this.#pending.values()) {
      for (const [seq, { sink, payload }] of pieces) sink.pieceReturned(seq, payload)
    }
    this.#pending.clear()
    for (const done of this.#questions.values()) done(ASK_AGAIN, [])
    this.#questions.clear()
  }

  #answer(pieces: Map<number, PendingPiece>, seq: number, error: number): void {
    const piece = pieces.get(seq)
    if (piece === undefined) return
    pieces.delete(seq)
    if (error === ASK_AGAIN) piece.sink.pieceReturned(seq, piece.payload)
    else piece.sink.pieceDone(seq, error as Errno)
  }

  #request(
    session: SessionId,
    seq: number,
    operation: RequestOperation,
    offset: number,
    length: number,
  ): RequestMessage {
    const { volume, epoch } = this.#scope
    const flags = { fua: false, keepAllocated: false }
    return { type: 'request', volume, epoch, session, seq, operation, offset, length, ...flags, payload: [] }
  }

  #send(
    sink: PieceSink,
    seq: number,
    operation: RequestOperation,
    offset: number,
    length: number,
    fua: boolean,
    payload: readonly Uint8Array[],
    piece: PendingPiece,
    acknowledged?: readonly LogPosition[],
  ): void {
    if (this.#closed) {
      this.#context.scheduler.soon(() => sink.pieceReturned(seq, piece.payload))
      return
    }
    let pieces = this.#pending.get(sink.session)
    if (pieces === undefined) {
      pieces = new Map()
      this.#pending.set(sink.session, pieces)
    }
    pieces.set(seq, piece)
    this.#context.statistics.relayedRequests++
    this.link.send({ ...this.#request(sink.session, seq, operation, offset, length), fua, payload, acknowledged })
  }
}

/**
 * The answering end: one per link, frontend session and epoch.
 *
 * A number may be asked twice, when an answer crossed with a question: while the first is being worked on
 * the second is dropped, since its answer is on the way.
 */
export class RelayedSession implements PieceSink {
  readonly session: SessionId
  readonly origin: NodeId
  readonly epoch: Epoch
  readonly #link: Link
  readonly #context: NodeContext
  #ended = false
  readonly #reads = new Map<number, Uint8Array>()
  #target: VolumeTarget | undefined
  #seqs: number[] = []
  #errors: number[] = []
  #scheduled = false

  constructor(context: NodeContext, link: Link, session: SessionId, epoch: Epoch) {
    this.#context = context
    this.#link = link
    this.origin = link.node
    this.session = session
    this.epoch = epoch
  }

  /** `target`: the primary here, or undefined when it is not (any more). */
  request(message: RequestMessage, target: VolumeTarget | undefined): void {
    const { seq, offset, length, fua } = message
    if (target === undefined) {
      if (message.operation === 'block-status') this.#readReply(seq, ASK_AGAIN, [])
      else this.#reply(seq, ASK_AGAIN)
      return
    }
    this.#target = target
    switch (message.operation) {
      case 'read': {
        if (this.#reads.has(seq)) break
        const buffer = new Uint8Array(length)
        if (target.read(this, seq, offset, length, buffer, 0)) this.#readReply(seq, errno.OK, [buffer])
        else this.#reads.set(seq, buffer)
        break
      }
      case 'write': {
        const payload = message.payload[0]
        if (payload === undefined || payload.length !== length) this.#reply(seq, errno.EINVAL)
        else {
          target.write(this, seq, offset, payload, 0, length, fua)
          this.#link.giveBack(message.payload)
        }
        break
      }
      case 'zero':
        target.zero(this, seq, offset, length, { fua, keepAllocated: message.keepAllocated })
        break
      case 'flush':
        target.flush(this, seq, message.acknowledged ?? [])
        break
      case 'block-status':
        target.blockStatus(offset, length, fua ? 1 : EXTENTS_MAX, (error, extents) =>
          this.#readReply(seq, error, [encodeExtents(extents)]),
        )
        break
    }
  }

  pieceDone(seq: number, error: Errno): void {
    if (this.#ended) return
    const buffer = this.#reads.get(seq)
    if (buffer === undefined) {
      this.#reply(seq, error)
      return
    }
    this.#reads.delete(seq)
    this.#readReply(seq, error, error === errno.OK ? [buffer] : [])
  }

  pieceReturned(seq: number): void {
    if (this.#ended) return
    this.#reads.delete(seq)
    this.#reply(seq, ASK_AGAIN)
  }

  close(): void {
    this.#ended = true
    this.#target?.detach(this)
  }

  #readReply(seq: number, error: number, payload: readonly Uint8Array[]): void {
    this.#link.send({ type: 'read-reply', session: this.session, seq, error, payload })
  }

  #reply(seq: number, error: number): void {
    this.#seqs.push(seq)
    this.#errors.push(error)
    if (this.#scheduled) return
    this.#scheduled = true
    this.#context.scheduler.soon(() => {
      this.#scheduled = false
      const seqs = this.#seqs
      const errors = this.#errors
      this.#seqs = []
      this.#errors = []
      const committedLsn = this.#target?.position()?.lsn ?? lsn(0)
      this.#link.send({ type: 'replies', session: this.session, epoch: this.epoch, committedLsn, seqs, errors })
    })
  }
}

const EXTENTS_MAX = 16_384

function encodeExtents(extents: readonly BlockStatusExtent[]): Uint8Array {
  const bytes = new Uint8Array(extents.length * 8)
  const view = new DataView(bytes.buffer)
  extents.forEach(({ lengthBytes, hole }, at) => {
    // 48 bits of length, then the status.
    view.setUint32(at * 8, lengthBytes % 2 ** 32, true)
    view.setUint16(at * 8 + 4, Math.floor(lengthBytes / 2 ** 32), true)
    view.setUint16(at * 8 + 6, hole ? 1 : 0, true)
  })
  return bytes
}

function decodeExtents(bytes: Uint8Array | undefined): BlockStatusExtent[] {
  if (bytes === undefined) return []
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const extents: BlockStatusExtent[] = []
  for (let at = 0; at + 8 <= bytes.length; at += 8) {
    const lengthBytes = view.getUint32(at, true) + view.getUint16(at + 4, true) * 2 ** 32
    extents.push({ lengthBytes, hole: view.getUint16(at + 6, true) === 1 })
  }
  return extents
}
