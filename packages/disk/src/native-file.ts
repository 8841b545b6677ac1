/** One open file over the addon. */
import { closeSync } from 'node:fs'
import { native } from '@holdfast/addon'
import type { DiskDone, DiskFile } from '@holdfast/base'
import { diskError, diskErrorOrNone } from './disk-error.ts'
import { type HeldUpWrites, LARGE_WRITE_BYTES_MIN } from './held-up-writes.ts'
import type { SyncGate } from './sync-gate.ts'

/**
 * Up to here a write is done on the calling thread, and that is every batch of one client's. A second core could do the
 * copy, but then it holds the memory's cache lines, and whatever is received into the same memory next has to fetch each
 * of them from there, which takes longer than the copy (decision 25). Above, it would hold up the event loop for too long.
 */
const SYNC_WRITE_BYTES_MAX = 4 * 1024 * 1024
/** What one call on a thread writes of what has gathered: what comes behind it waits no longer than that takes. */
const JOINED_WRITE_BYTES_MAX = 4 * 1024 * 1024
/** From so much on what is dirty is written step by step: a flush with little to write is not held up by the steps. */
const STEPPED_SYNC_BYTES_MIN = 1024 * 1024

interface QueuedWrite {
  readonly buffers: readonly Uint8Array[]
  readonly bytes: number
  readonly position: number
  readonly done: DiskDone
}

export class NativeFile implements DiskFile {
  readonly #fd: number
  readonly #gate: SyncGate
  /** Shared by the files of a disk. */
  readonly #large: HeldUpWrites
  /** Operations under way: the descriptor is closed after them. */
  #pending = 0
  #closing = false
  /** Writes that wait for the one on a thread: two at once would only spin on the kernel's lock of the file. */
  #queued: QueuedWrite[] = []
  #writing = false
  /** Written since the last `datasync` began, and where. */
  #dirtyBytes = 0
  #dirtyFrom = Number.POSITIVE_INFINITY
  #dirtyTo = 0
  /** Makes the file's name durable; undefined when that is done. Owed until the first `datasync`. */
  #syncName: ((done: DiskDone) => void) | undefined

  constructor(fd: number, gate: SyncGate, large: HeldUpWrites, syncName?: ((done: DiskDone) => void) | undefined) {
    this.#fd = fd
    this.#gate = gate
    this.#large = large
    this.#syncName = syncName
  }

  /** For calls that read several files; valid until it is closed. */
  get descriptor(): number {
    return this.#fd
  }

  write(buffers: readonly Uint8Array[], position: number, done: DiskDone): boolean {
    if (this.#refuseIfClosed(done)) return false
    let bytes = 0
    for (const buffer of buffers) bytes += buffer.length
    this.#dirtyBytes += bytes
    if (position < this.#dirtyFrom) this.#dirtyFrom = position
    if (position + bytes > this.#dirtyTo) this.#dirtyTo = position + bytes
    const large = bytes > LARGE_WRITE_BYTES_MIN
    const start = large ? performance.now() : 0
    if (this.#writing || bytes > SYNC_WRITE_BYTES_MAX || (large && this.#large.heldUp(start))) {
      this.#pending++
      this.#queued.push({ buffers, bytes, position, done })
      if (!this.#writing) this.#writeQueued()
      return false
    }
    try {
      native.writeSync(this.#fd, buffers, position)
      if (large) this.#tookSince(start, bytes)
      return true
    } catch (error) {
      setImmediate(done, diskError(error))
      return false
    }
  }

  /** What has gathered and lies behind one another goes in one call. */
  #writeQueued(): void {
    const first = this.#queued[0]
    if (first === undefined) return
    let count = 1
    let bytes = first.bytes
    for (; count < this.#queued.length; count++) {
      const next = this.#queued[count]
      if (next === undefined || next.position !== first.position + bytes) break
      if (bytes + next.bytes > JOINED_WRITE_BYTES_MAX) break
      bytes += next.bytes
    }
    const joined = this.#queued.splice(0, count)
    this.#writing = true
    const buffers = count === 1 ? first.buffers : joined.flatMap((write) => write.buffers)
    const start = performance.now()
    native.write(this.#fd, buffers, first.position, (error) => {
      this.#tookSince(start, bytes)
      this.#writing = false
      // The next is on its way before anybody hears of this one.
      this.#writeQueued()
      for (const { done } of joined) this.#finished(done, error)
    })
  }

  #tookSince(start: number, bytes: number): void {
    const now = performance.now()
    this.#large.took(now - start, bytes, now)
  }

  tryReadVerified(
    target: Uint8Array,
    targetOffset: number,
    blockCount: number,
    position: number,
    crcs: Uint32Array,
    crcIndex: number,
  ): number {
    return native.tryReadVerified(
      this.#fd,
      target,
      targetOffset,
      blockCount,
      position,
      crcs,
      crcIndex,
    )
  }

  read(
    target: Uint8Array,
    targetOffset: number,
    length: number,
    position: number,
    done: DiskDone,
  ): void {
    if (this.#refuseIfClosed(done)) return
    this.#pending++
    native.read(this.#fd, target, targetOffset, length, position, (error) =>
      this.#finished(done, error),
    )
  }

  datasync(done: DiskDone): void {
    const syncName = this.#syncName
    if (syncName !== undefined) {
      syncName((error) => {
        if (error !== undefined) return done(error)
        this.#syncName = undefined
        return this.datasync(done)
      })
      return
    }
    if (this.#refuseIfClosed(done)) return
    this.#pending++
    const stepped = this.#dirtyBytes >= STEPPED_SYNC_BYTES_MIN
    const from = stepped ? this.#dirtyFrom : 0
    const length = stepped ? this.#dirtyTo - from : 0
    this.#dirtyBytes = 0
    this.#dirtyFrom = Number.POSITIVE_INFINITY
    this.#dirtyTo = 0
    this.#gate.datasync(this.#fd, from, length, (error) => this.#finished(done, error))
  }

  punchHole(position: number, length: number, done: DiskDone): void {
    if (this.#refuseIfClosed(done)) return
    this.#pending++
    native.punchHole(this.#fd, position, length, (error) => this.#finished(done, error))
  }

  close(): void {
    if (this.#closing) return
    this.#closing = true
    if (this.#pending === 0) closeSync(this.#fd)
  }

  /** The descriptor is gone, and may be another file's by now. */
  #refuseIfClosed(done: DiskDone): boolean {
    if (!this.#closing || this.#pending > 0) return false
    setImmediate(done, diskError(new Error('the file is closed')))
    return true
  }

  #finished(done: DiskDone, error: unknown): void {
    this.#pending--
    if (this.#closing && this.#pending === 0) closeSync(this.#fd)
    done(diskErrorOrNone(error))
  }
}
