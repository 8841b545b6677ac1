/**
 * Where a session's requests go: the primary in this process, or a relay to the node that has it.
 *
 * `seq` numbers the pieces of one session from 1; at most `OUTSTANDING_MAX` are unanswered, which is what
 * lets every replica remember the applied ones in a ring of that size.
 */
import type { BlockStatusExtent, Errno, LogPosition, NodeId, SessionId } from '@holdfast/base'

/** Unanswered pieces a session may have: the size of the duplicate ring in the log. */
export const OUTSTANDING_MAX = 1024
/** Payload of the largest piece, in bytes: the largest batch. */
export const PIECE_BYTES_MAX = 512 * 4096

/** Takes the outcome of pieces. Never called inside the call that submitted the piece. */
export interface PieceSink {
  readonly session: SessionId
  /** The node whose client asks: while a volume is attached, only those of one node may write. */
  readonly origin: NodeId
  pieceDone(seq: number, error: Errno): void
  /**
   * The piece was not answered and its target is no primary any more: ask again elsewhere. A write
   * that may already be in the log comes with its payload.
   */
  pieceReturned(seq: number, payload: Uint8Array | undefined): void
}

export interface VolumeTarget {
  /** True = done at once; otherwise the sink hears of it. */
  read(
    sink: PieceSink,
    seq: number,
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
  ): boolean
  /**
   * Copies `length` bytes of `source` before it returns, unless the whole of `source` came from
   * `reserve`: then it takes that buffer over.
   */
  write(
    sink: PieceSink,
    seq: number,
    offset: number,
    source: Uint8Array,
    sourceStart: number,
    length: number,
    fua: boolean,
  ): void
  zero(
    sink: PieceSink,
    seq: number,
    offset: number,
    length: number,
    options: { readonly fua: boolean; readonly keepAllocated: boolean },
  ): void
  /**
   * `acknowledged`: how far earlier primaries had answered. A log that lacks any of it has lost writes that the
   * client believes to be done, and the flush fails with EIO (I9).
   */
  flush(sink: PieceSink, seq: number, acknowledged: readonly LogPosition[]): void
  /** Everything this target has answered lies below it; undefined = nothing was. Right also after its end. */
  position(): LogPosition | undefined
  blockStatus(
    offset: number,
    length: number,
    extentCountMax: number,
    done: (error: Errno | -1, extents: readonly BlockStatusExtent[]) => void,
  ): void
  /** A buffer for a payload of at most `PIECE_BYTES_MAX`, placed so that it need not be copied. */
  reserve(length: number): Uint8Array
  /** A hint, see `ExportSession.received`; of what was reserved elsewhere nothing is done. */
  received(reserved: Uint8Array, bytes: number): void
  unreserve(reserved: Uint8Array): void
  /** The session ends: forget its reads; writes may still happen. */
  detach(sink: PieceSink): void
}
