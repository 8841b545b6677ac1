/**
 * One client's requests to one volume, kept until they are answered (frontend of DESIGN section 2).
 *
 * Invariants:
 * - Every request is answered exactly once, whatever happens to primaries meanwhile; a failover is a pause.
 * - A piece sent again carries the number it had, so that the log can tell it was applied already.
 * - Pieces are sent again in the order of their numbers.
 * - I9: no flush succeeds while something that an earlier primary acknowledged is missing; one fails for it.
 */
import {
  assert,
  type BlockStatusExtent,
  type Completion,
  copyBytes,
  type Errno,
  type ExportInfo,
  type ExportSession,
  errno,
  type LogPosition,
  type NodeId,
  type SessionId,
} from '@holdfast/base'
import { OUTSTANDING_MAX, PIECE_BYTES_MAX, type PieceSink, type VolumeTarget } from './volume-target.ts'

/** What a slot holds while its piece is unanswered; a plain record, reused. */
interface Piece {
  seq: number
  token: number
  operation: 'free' | 'read' | 'write' | 'zero' | 'flush'
  offset: number
  length: number
  fua: boolean
  keepAllocated: boolean
  /** Read: where to. Write: the payload, once the piece was returned or before it was ever sent. */
  buffer: Uint8Array | undefined
  bufferOffset: number
  /** Waits for a target. */
  waiting: boolean
  /** Flush: where the targets ended that answered before it was asked for, and since. */
  acknowledged: readonly LogPosition[]
}

/** Unanswered pieces of a request that was cut; requests of one piece have no entry. */
interface Split {
  remaining: number
  error: Errno
}

/** A record counts its blocks in 32 bits. */
const ZERO_PIECE_BYTES_MAX = 2 ** 40

interface StatusQuestion {
  readonly offset: number
  readonly length: number
  readonly extentCountMax: number
  readonly done: (error: Errno, extents: readonly BlockStatusExtent[]) => void
}

const NOTHING: readonly LogPosition[] = []

const freePiece = (): Piece => ({
  seq: 0,
  token: 0,
  operation: 'free',
  offset: 0,
  length: 0,
  fua: false,
  keepAllocated: false,
  buffer: undefined,
  bufferOffset: 0,
  waiting: false,
  acknowledged: NOTHING,
})

export class FrontendSession implements ExportSession, PieceSink {
  readonly info: ExportInfo
  readonly session: SessionId
  readonly origin: NodeId
  readonly #completion: Completion
  readonly #onClose: (session: FrontendSession) => void
  readonly #pieces: Piece[] = Array.from({ length: OUTSTANDING_MAX }, freePiece)
  readonly #splits = new Map<number, Split>()
  /** Requests that found every slot taken; run in order as slots come free. */
  readonly #overflow: (() => void)[] = []
  /** What was reserved for some of them. */
  readonly #inOverflow = new Set<Uint8Array>()
  readonly #questions: StatusQuestion[] = []
  readonly #soon: (task: () => void) => void
  #target: VolumeTarget | undefined
  /** Where earlier targets ended, as long as no flush has been answered since. */
  #acknowledged: readonly LogPosition[] = NOTHING
  /** Set once the volume is gone: every later request fails with it. */
  #failure: Errno = errno.OK
  #nextSeq = 1
  #oldestSeq = 1
  #closed = false
  #draining = false

  constructor(
    info: ExportInfo,
    session: SessionId,
    origin: NodeId,
    completion: Completion,
    onClose: (session: FrontendSession) => void,
    soon: (task: () => void) => void,
  ) {
    this.#soon = soon
    this.info = info
    this.session = session
    this.origin = origin
    this.#completion = completion
    this.#onClose = onClose
  }

  /** True while some request waits for a primary. */
  get waiting(): boolean {
    // Asked for with every tick: of a thousand slots few are taken.
    for (let seq = this.#oldestSeq; seq < this.#nextSeq; seq++) {
      const piece = this.#slot(seq)
      if (piece.seq === seq && piece.waiting) return true
    }
    return this.#questions.length > 0
  }

  /** The primary is to be reached here now; `undefined` = none is known. */
  setTarget(target: VolumeTarget | undefined): void {
    if (target === this.#target) return
    const end = this.#target?.position()
    if (end !== undefined) this.#noteEnd(end)
    this.#target = target
    this.resubmit()
  }

  /** Sends every waiting piece again, in order. */
  resubmit(): void {
    if (this.#target === undefined) return
    for (let seq = this.#oldestSeq; seq < this.#nextSeq; seq++) {
      const piece = this.#slot(seq)
      if (piece.seq === seq && piece.waiting) this.#submit(piece)
    }
    for (const question of this.#questions.splice(0)) this.#ask(question)
  }

  read(
    token: number,
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
  ): boolean {
    if (this.#full) {
      this.#overflow.push(() => {
        if (this.read(token, offset, length, target, targetOffset)) this.#completion(token, 0)
      })
      return false
    }
    const seq = this.#nextSeq
    const volume = this.#target
    if (volume?.read(this, seq, offset, length, target, targetOffset) === true) return true
    const piece = this.#take(token, 'read', offset, length, false)
    piece.buffer = target
    piece.bufferOffset = targetOffset
    piece.waiting = volume === undefined
    return false
  }

  write(
    token: number,
    offset: number,
    source: Uint8Array,
    sourceStart: number,
    length: number,
    fua: boolean,
  ): void {
    if (length <= PIECE_BYTES_MAX && !this.#full) {
      this.#writePiece(token, offset, source, sourceStart, length, fua)
      return
    }
    const payload = copyBytes(source, sourceStart, sourceStart + length)
    this.#splitUp(token, length, PIECE_BYTES_MAX, (at, size) =>
      this.#writePiece(token, offset + at, payload, at, size, fua),
    )
  }

  reserve(length: number): Uint8Array {
    if (length <= PIECE_BYTES_MAX && this.#target !== undefined) return this.#target.reserve(length)
    return new Uint8Array(length)
  }

  received(reserved: Uint8Array, bytes: number): void {
    this.#target?.received(reserved, bytes)
  }

  unreserve(reserved: Uint8Array): void {
    this.#target?.unreserve(reserved)
  }

  writeReserved(token: number, offset: number, reserved: Uint8Array, fua: boolean): void {
    const length = reserved.length
    if (length <= PIECE_BYTES_MAX && !this.#full) {
      this.#writePiece(token, offset, reserved, 0, length, fua)
      return
    }
    this.#inOverflow.add(reserved)
    this.#splitUp(token, length, PIECE_BYTES_MAX, (at, size) => {
      this.#inOverflow.delete(reserved)
      this.#writePiece(token, offset + at, reserved, at, size, fua)
    })
  }

  zero(
    token: number,
    offset: number,
    length: number,
    options: { readonly fua: boolean; readonly keepAllocated: boolean },
  ): void {
    if (length <= ZERO_PIECE_BYTES_MAX && !this.#full) {
      this.#zeroPiece(token, offset, length, options)
      return
    }
    this.#splitUp(token, length, ZERO_PIECE_BYTES_MAX, (at, size) => this.#zeroPiece(token, offset + at, size, options))
  }

  flush(token: number): void {
    if (this.#full) {
      this.#overflow.push(() => this.flush(token))
      return
    }
    const piece = this.#take(token, 'flush', 0, 0, false)
    piece.acknowledged = this.#acknowledged
    this.#submit(piece)
  }

  /** A hint; the page cache keeps what is read anyway. */
  cache(token: number, offset: number, length: number): void {
    const scratch = new Uint8Array(length)
    if (this.read(token, offset, length, scratch, 0)) this.#soon(() => this.#completion(token, errno.OK))
  }

  blockStatus(
    offset: number,
    length: number,
    extentCountMax: number,
    done: (error: Errno, extents: readonly BlockStatusExtent[]) => void,
  ): void {
    this.#ask({ offset, length, extentCountMax, done })
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    for (const reserved of this.#inOverflow) this.#target?.unreserve(reserved)
    this.#inOverflow.clear()
    this.#target?.detach(this)
    this.#target = undefined
    this.#overflow.length = 0
    this.#questions.length = 0
    this.#onClose(this)
  }

  /** The volume is gone for good: every request fails. */
  fail(error: Errno): void {
    this.#target = undefined
    this.#failure = error
    for (let seq = this.#oldestSeq; seq < this.#nextSeq; seq++) {
      if (this.#slot(seq).seq === seq) this.pieceDone(seq, error)
    }
    for (const question of this.#questions.splice(0)) question.done(error, [])
  }

  pieceDone(seq: number, error: Errno): void {
    const piece = this.#slot(seq)
    if (this.#closed || piece.seq !== seq || piece.operation === 'free') return
    const token = piece.token
    if (piece.operation === 'flush') this.#acknowledged = NOTHING
    this.#free(piece)
    const split = this.#splits.size === 0 ? undefined : this.#splits.get(token)
    if (split === undefined) {
      this.#completion(token, error)
    } else {
      if (error !== errno.OK) split.error = error
      if (--split.remaining === 0) {
        this.#splits.delete(token)
        this.#completion(token, split.error)
      }
    }
    if (this.#overflow.length > 0) this.#drainOverflow()
  }

  pieceReturned(seq: number, payload: Uint8Array | undefined): void {
    const piece = this.#slot(seq)
    if (this.#closed || piece.seq !== seq || piece.operation === 'free') return
    if (piece.operation === 'write' && payload !== undefined) {
      piece.buffer = payload
      piece.bufferOffset = 0
    }
    assert(piece.operation !== 'write' || piece.buffer !== undefined, 'a returned write has its payload')
    piece.waiting = true
  }

  /** Of flushes that were asked for already each answers for itself: that another has failed tells its caller nothing. */
  #noteEnd(end: LogPosition): void {
    const added = (to: readonly LogPosition[]): readonly LogPosition[] => [...to.filter(({ epoch }) => epoch !== end.epoch), end]
    this.#acknowledged = added(this.#acknowledged)
    for (const piece of this.#pieces) {
      if (piece.operation === 'flush') piece.acknowledged = added(piece.acknowledged)
    }
  }

  #slot(seq: number): Piece {
    return this.#pieces[seq % OUTSTANDING_MAX] as Piece
  }

  get #full(): boolean {
    return this.#nextSeq - this.#oldestSeq >= OUTSTANDING_MAX || (this.#overflow.length > 0 && !this.#draining)
  }

  #take(
    token: number,
    operation: Piece['operation'],
    offset: number,
    length: number,
    fua: boolean,
  ): Piece {
    const seq = this.#nextSeq++
    const piece = this.#slot(seq)
    piece.seq = seq
    piece.token = token
    piece.operation = operation
    piece.offset = offset
    piece.length = length
    piece.fua = fua
    piece.waiting = false
    if (this.#failure !== errno.OK) this.#soon(() => this.pieceDone(seq, this.#failure))
    return piece
  }

  #free(piece: Piece): void {
    piece.operation = 'free'
    piece.buffer = undefined
    piece.waiting = false
    while (this.#oldestSeq < this.#nextSeq && this.#slot(this.#oldestSeq).operation === 'free') {
      this.#oldestSeq++
    }
  }

  #writePiece(
    token: number,
    offset: number,
    source: Uint8Array,
    start: number,
    length: number,
    fua: boolean,
  ): void {
    const piece = this.#take(token, 'write', offset, length, fua)
    const target = this.#target
    if (target !== undefined) {
      target.write(this, piece.seq, offset, source, start, length, fua)
    } else {
      piece.buffer = copyBytes(source, start, start + length)
      piece.bufferOffset = 0
      piece.waiting = true
    }
  }

  #zeroPiece(
    token: number,
    offset: number,
    length: number,
    { fua, keepAllocated }: { readonly fua: boolean; readonly keepAllocated: boolean },
  ): void {
    const piece = this.#take(token, 'zero', offset, length, fua)
    piece.keepAllocated = keepAllocated
    this.#submit(piece)
  }

  #splitUp(token: number, length: number, sizeMax: number, submit: (at: number, size: number) => void): void {
    const count = Math.max(1, Math.ceil(length / sizeMax))
    if (count > 1) this.#splits.set(token, { remaining: count, error: errno.OK })
    for (let part = 0; part < count; part++) {
      const at = part * sizeMax
      const size = Math.min(sizeMax, length - at)
      if (this.#full) this.#overflow.push(() => submit(at, size))
      else submit(at, size)
    }
  }

  #submit(piece: Piece): void {
    const target = this.#target
    if (target === undefined) {
      piece.waiting = true
      return
    }
    piece.waiting = false
    const { seq, offset, length, buffer } = piece
    switch (piece.operation) {
      case 'read':
        assert(buffer !== undefined, 'a read has its target')
        if (target.read(this, seq, offset, length, buffer, piece.bufferOffset)) this.pieceDone(seq, errno.OK)
        break
      case 'write':
        assert(buffer !== undefined, 'a write has its payload')
        piece.buffer = undefined
        target.write(this, seq, offset, buffer, piece.bufferOffset, length, piece.fua)
        break
      case 'zero':
        target.zero(this, seq, offset, length, piece)
        break
      case 'flush':
        target.flush(this, seq, piece.acknowledged)
        break
      case 'free':
        break
    }
  }

  #ask(question: StatusQuestion): void {
    if (this.#target === undefined) {
      this.#questions.push(question)
      return
    }
    const { offset, length, extentCountMax, done } = question
    this.#target.blockStatus(offset, length, extentCountMax, (error, extents) => {
      if (this.#closed) return
      if (error === -1) this.#questions.push(question)
      else done(error, extents)
    })
  }

  #drainOverflow(): void {
    if (this.#draining) return
    this.#draining = true
    while (this.#overflow.length > 0 && this.#nextSeq - this.#oldestSeq < OUTSTANDING_MAX) {
      this.#overflow.shift()?.()
    }
    this.#draining = false
  }
}
