/**
 * The whole boundary between TypeScript and the addon. Thin: no policy, only what TypeScript can't do well.
 *
 * A bad argument throws a TypeError or RangeError. A failed system call throws (or hands to `done`) an Error
 * with `code` (such as ENOSPC) and `errno`. Buffers given to an asynchronous call must not change until `done`.
 */
type Done = (error: (Error & { code: string; errno: number }) | undefined) => void

/** CRC32C of `bytes[start, end)` continued from `seed`. */
export function crc32c(bytes: Uint8Array, start: number, end: number, seed: number): number
/** CRC32C of each of `blockCount` blocks of 4 KiB from `offset`, into `out[outIndex…]`. */
export function crc32cBlocks(
  bytes: Uint8Array,
  offset: number,
  blockCount: number,
  out: Uint32Array,
  outIndex: number,
): void
/** The implementations of CRC32C that this processor has, of `vpclmulqdq`, `sse4.2`, `armv8`, `table`: the first is used. */
export const crc32cKinds: readonly string[]
/** `crc32c` by one of `crc32cKinds`, to compare them. */
export function crc32cBy(
  kindIndex: number,
  bytes: Uint8Array,
  start: number,
  end: number,
  seed: number,
): number

/** Writes all of `buffers` at `position`, on the calling thread. */
export function writeSync(fd: number, buffers: readonly Uint8Array[], position: number): void
/** The same on a worker thread. */
export function write(
  fd: number,
  buffers: readonly Uint8Array[],
  position: number,
  done: Done,
): void
/**
 * Reads blocks of 4 KiB if the page cache holds them all and compares their CRC32C. -1: not cached; otherwise how many
 * leading blocks are right.
 */
export function tryReadVerified(
  fd: number,
  target: Uint8Array,
  targetOffset: number,
  blockCount: number,
  position: number,
  crcs: Uint32Array,
  crcIndex: number,
): number
/**
 * The same for the first `count` pieces, each of its own descriptor, into `target` from its offset on; `crcs` has those of
 * all pieces, one behind the other. False: not all cached, or not all right.
 */
export function tryReadPieces(
  count: number,
  target: Uint8Array,
  fds: Int32Array,
  positions: Float64Array,
  blockCounts: Uint32Array,
  targetOffsets: Uint32Array,
  crcs: Uint32Array,
): boolean
/** Reads exactly `length` bytes on a worker thread; the end of the file in between is EIO. */
export function read(
  fd: number,
  target: Uint8Array,
  targetOffset: number,
  length: number,
  position: number,
  done: Done,
): void
/** How many `datasync`s have a thread of their own at once; more than that take one of libuv's pool. */
export const syncThreads: number
/**
 * `fdatasync` on such a thread. The range `[position, position + length)`, where much of it is dirty, is begun before in
 * small steps, between which others get the processor; `length` 0: none.
 */
export function datasync(fd: number, position: number, length: number, done: Done): void
/** `fsync` on a worker thread; for directories. */
export function sync(fd: number, done: Done): void
/** Allocates space for `[0, length)` on a worker thread; the file's size becomes at least `length`. */
export function allocate(fd: number, length: number, done: Done): void
/**
 * Writes zeroes to a range on a worker thread, in steps of 32 KiB; with `wait` these are on the disk one by one. What the
 * filesystem has to note in its journal is left to a later `datasync`.
 */
export function fill(fd: number, position: number, length: number, wait: boolean, done: Done): void
/** Gives a range's space back; it reads as zeroes then. On a worker thread. */
export function punchHole(fd: number, position: number, length: number, done: Done): void
/**
 * Where the next data of a sparse file lies, at or after `position`: [start, end) in bytes. Undefined: only a hole is left.
 */
export function nextData(fd: number, position: number): [number, number] | undefined

/** A generic netlink socket, to be used with `fs.read` and `fs.write`; a read gives EAGAIN after `timeoutMs` (0: never). */
export function netlinkSocket(timeoutMs: number): number
/** Lets the socket receive what is sent to a multicast group. */
export function joinNetlinkGroup(fd: number, group: number): void
/** Connects to a unix socket, on the calling thread; the descriptor blocks, for `timeoutMs` at most (0: no limit). */
export function unixSocket(path: string, timeoutMs: number): number
/** Changes that limit of a socket. */
export function socketTimeout(fd: number, timeoutMs: number): void

/**
 * Sends `parts[i][bounds[2 * i], bounds[2 * i + 1])` for `count` i from `from` on, 64 of them at most, without waiting; each
 * of `apart` bytes and more by a system call of its own. How many bytes the kernel took; none, too, where the connection
 * has failed: whoever sends next gets an error, EPIPE perhaps.
 */
export function send(
  fd: number,
  parts: readonly Uint8Array[],
  bounds: Uint32Array,
  from: number,
  count: number,
  apart: number,
): number
/**
 * Receives what has come at a socket, as much as `target` takes, without waiting. How many bytes; none, too, where the other
 * side has ended: whoever reads next finds out. Below zero: the number of an error, which the socket does not tell again.
 */
export function receive(fd: number, target: Uint8Array): number
/** How much a stream socket holds of what the other side has not taken, in bytes; no more than the system allows. */
export function sendBuffer(fd: number, bytes: number): void
/** A TCP connection ends when what was sent is not acknowledged for so many milliseconds (tcp(7), `TCP_USER_TIMEOUT`). */
export function tcpUserTimeout(fd: number, ms: number): void
/** What is left when the address of the first byte is divided. */
export function addressRest(bytes: Uint8Array, divisor: number): number
/** Another descriptor of the same open file or socket, not kept by programs that this one starts. */
export function duplicate(fd: number): number

/** With fractions. The time that the machine slept counts (clock_gettime(2), `CLOCK_BOOTTIME`); the same in all threads. */
export function millisecondsSinceBoot(): number
