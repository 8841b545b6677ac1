/**
 * The disk as the log sees it: one directory tree per node, files read and written at positions.
 *
 * Paths are relative to the node's data directory, with '/' between parts. Completion is by
 * callback and never before the call returns, except where a method says that it may finish
 * at once. Positions and lengths are in bytes.
 */

/** Why an operation failed. `no-space`: nothing was written that matters; the file is as before. */
export interface DiskError {
  readonly kind: 'no-space' | 'io' | 'absent'
  readonly message: string
}

/** `undefined` = success. */
export type DiskDone = (error: DiskError | undefined) => void

export interface DiskFile {
  /**
   * Writes all `buffers`, one after the other, from `position` on. Returns true when that is
   * done (small writes that the page cache takes at once); otherwise false, and `done` is called
   * later. The buffers must not change before then. A failed write always reports through `done`.
   */
  write(buffers: readonly Uint8Array[], position: number, done: DiskDone): boolean
  /**
   * Reads `blockCount` blocks of 4 KiB at `position` into `target` from `targetOffset` on if the
   * page cache holds them all, and compares each with its CRC32C (`crcs[crcIndex + i]`).
   * Returns the number of leading blocks whose checksum is right: `blockCount` = all good. -1 where one that is not cached
   * was found before any wrong one; `target` is undefined then.
   */
  tryReadVerified(
    target: Uint8Array,
    targetOffset: number,
    blockCount: number,
    position: number,
    crcs: Uint32Array,
    crcIndex: number,
  ): number
  /** Reads exactly `length` bytes at `position`, off the event loop; a short file is an `io` error. */
  read(
    target: Uint8Array,
    targetOffset: number,
    length: number,
    position: number,
    done: DiskDone,
  ): void
  /** Makes everything written so far durable (`fdatasync`), off the event loop. */
  datasync(done: DiskDone): void
  /** Gives the space of a byte range back; it reads as zeroes afterwards. */
  punchHole(position: number, length: number, done: DiskDone): void
  /** Closes after the operations under way have ended. Idempotent. */
  close(): void
}

/** Pieces of files of one disk to be read at once: in each array one element per piece, from the beginning on. */
export interface ReadPieces {
  readonly count: number
  readonly files: readonly DiskFile[]
  /** Bytes, in the piece's file. */
  readonly positions: Float64Array
  /** Of 4 KiB. */
  readonly blockCounts: Uint32Array
  /** Bytes, in what all of them are read into. */
  readonly targetOffsets: Uint32Array
  /** The CRC32C of every block, those of one piece behind those of the other. */
  readonly crcs: Uint32Array
}

/** For `Disk.open`. */
export interface OpenOptions {
  readonly createBytes?: number
  readonly recycle?: string | undefined
  readonly fill?: 'durably' | 'cached' | undefined
}

export interface Disk {
  /** `bytes` of memory, cleared, that what is written is copied from fastest. */
  allocate(bytes: number): Uint8Array
  /** Creates the directory and its parents; fine if it exists. Synchronous. */
  makeDirectory(path: string): void
  /** Names in a directory, sorted; empty if it does not exist. Synchronous. */
  list(path: string): string[]
  /** Removes a file or a whole directory; fine if absent. Synchronous. */
  remove(path: string): void
  /**
   * Removes what is directly in a directory and was being made when its process ended. For who has the directory to itself:
   * nothing may be made there meanwhile. Synchronous.
   */
  removeUnfinished(path: string): void
  /** Renames within the tree, replacing the target. Durable after `syncDirectory`. Synchronous. */
  rename(from: string, to: string): void
  /** Makes names created, renamed or removed in a directory durable. */
  syncDirectory(path: string, done: DiskDone): void
  /**
   * A whole file, in pieces one behind the other (an array of bytes has an end at 4 GiB). Synchronous: for small files and
   * start-up. Throws nothing: what the disk does not give is an error, `absent` where there is no such file.
   */
  readWhole(path: string): readonly Uint8Array[] | DiskError
  /** Bytes of a file; 0 if it does not exist. Synchronous. */
  sizeOf(path: string): number
  /** Replaces a file's contents all or nothing, durable when `done` says so. */
  writeAtomic(path: string, chunks: readonly Uint8Array[], done: DiskDone): void
  /**
   * Opens a file for reading and writing. With `createBytes` it is created if absent and its space is
   * allocated, so that later writes inside can't run out of space; with `recycle` the file at that path is renamed
   * to `path` first and keeps its blocks (must have `createBytes` bytes, else it is resized). With `fill: durably` a file that
   * is created is written with zeroes, durably, before it is given: a `datasync` later then moves data only, where one of
   * merely allocated space has to tell the filesystem's journal that the space has become data.
   * With `fill: cached` it only gets its pages in the page cache, all of a middling size, whatever is written to it first.
   * Of one path one at a time may be created. Under its name there is never a file that is being made: one of `createBytes` bytes, or none, whenever the host ends.
   * On `no-space` nothing is left behind. The name is durable once a `datasync` of the file has succeeded.
   */
  open(
    path: string,
    options: OpenOptions,
    done: (error: DiskError | undefined, file: DiskFile | undefined) => void,
  ): void
  /**
   * `DiskFile.tryReadVerified` for several pieces, in one call. False: not all is in the page cache with the right
   * checksum, and `target` is undefined where the pieces lie.
   */
  tryReadPieces(pieces: ReadPieces, target: Uint8Array): boolean
  /** Bytes that may still be allocated in the data directory's filesystem, and its size. */
  space(): { readonly freeBytes: number; readonly totalBytes: number }
}

/** CRC32C (Castagnoli), hardware where there is any. */
export interface Checksum {
  /** CRC32C of `bytes[start, end)`, continued from `seed` (0 to begin). */
  crc32c(bytes: Uint8Array, start: number, end: number, seed: number): number
  /** CRC32C of each of `blockCount` 4 KiB blocks from `offset` on, into `out[outIndex…]`. */
  crc32cBlocks(
    bytes: Uint8Array,
    offset: number,
    blockCount: number,
    out: Uint32Array,
    outIndex: number,
  ): void
}
