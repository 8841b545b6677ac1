/**
 * What an NBD connection needs of the storage behind it. Implemented by the frontend.
 *
 * Requests carry a `token` that the caller chose (a small integer, unique among its unanswered
 * requests), so that no closure is made per request. Offsets and lengths are bytes, already
 * checked against the export's size by the caller; any alignment.
 */
import type { Errno } from '../errors.ts'

export interface ExportInfo {
  /** The volume behind the name, which can come to mean another one. Undefined where that can't happen. */
  readonly id?: string | undefined
  /** `name` or `namespace/name`. */
  readonly name: string
  readonly description: string
  readonly sizeBytes: number
  readonly readOnly: boolean
}

/** One answered request. `error` 0 = success. Always later than the call that made the request. */
export type Completion = (token: number, error: Errno) => void

/** One run of blocks of the same kind, for NBD_CMD_BLOCK_STATUS. */
export interface BlockStatusExtent {
  readonly lengthBytes: number
  /** Never written, or trimmed: a hole that reads as zeroes. */
  readonly hole: boolean
}

export interface ExportSession {
  readonly info: ExportInfo
  /**
   * Reads into `target` from `targetOffset` on. Returns true when that is done and right (then there
   * is no completion); otherwise false, and the completion comes later. `target` belongs to the
   * session until then.
   */
  read(
    token: number,
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
  ): boolean
  /** Writes a copy of `source[sourceStart, sourceStart + length)`, taken before this returns. */
  write(
    token: number,
    offset: number,
    source: Uint8Array,
    sourceStart: number,
    length: number,
    fua: boolean,
  ): void
  /**
   * A buffer of `length` bytes to receive a large payload into (at least 64 KiB, so that it
   * travels to the log without a copy). Handed back by `writeReserved` or `unreserve`, once.
   */
  reserve(length: number): Uint8Array
  /**
   * The first `bytes` bytes of a reserved buffer have come and won't change: what can be done with them is, while the
   * rest is on its way and they are still in the processor's cache. A hint; `bytes` grows from call to call.
   */
  received(reserved: Uint8Array, bytes: number): void
  writeReserved(token: number, offset: number, reserved: Uint8Array, fua: boolean): void
  unreserve(reserved: Uint8Array): void
  /** Makes the range read as zeroes. `keepAllocated`: NBD_CMD_FLAG_NO_HOLE. */
  zero(
    token: number,
    offset: number,
    length: number,
    options: { readonly fua: boolean; readonly keepAllocated: boolean },
  ): void
  /** Everything acknowledged before is durable on every in-sync replica when this completes (I3). */
  flush(token: number): void
  /** Brings the range into the cache where the data is local; a hint. */
  cache(token: number, offset: number, length: number): void
  /** Runs of equal status from `offset` on, covering at least one byte and at most `length`. */
  blockStatus(
    offset: number,
    length: number,
    extentCountMax: number,
    done: (error: Errno, extents: readonly BlockStatusExtent[]) => void,
  ): void
  /** Abandons unanswered requests: no completion follows. Writes already taken may still happen. */
  close(): void
}

export interface ExportCatalog {
  list(): readonly ExportInfo[]
  /** Metadata of one export, or undefined if there is no such name. The empty name: the only export. */
  find(name: string): ExportInfo | undefined
  /** Opens a session. Throws HoldfastError HF_NOT_FOUND if the export has gone meanwhile. */
  open(name: string, completion: Completion): ExportSession
  /** Where it is another shard of this node that opens sessions of the export: which one. */
  away?(name: string): number | undefined
}
