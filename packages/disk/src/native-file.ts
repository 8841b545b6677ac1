/** One open file over the addon. */
import { closeSync } from 'node:fs'
import type { DiskDone, DiskFile } from '@holdfast/base'
import { diskError, diskErrorOrNone } from './disk-error.ts'
import { native } from './native.ts'
import type { SyncGate } from './sync-gate.ts'

/**
 * Up to here a write is done on the calling thread: the page cache takes it in less time than a thread needs to wake up.
 * Above, the copy would hold up the event loop and a second core does it.
 */
const SYNC_WRITE_BYTES_MAX = 256 * 1024

export class NativeFile implements DiskFile {
  readonly #fd: number
  readonly #gate: SyncGate
  /** Operations under way: the descriptor is closed after them. */
  #pending = 0
  #closing = false
  /** Makes the file's name durable; undefined when that is done. Owed until the first `datasync`. */
  #syncName: ((done: DiskDone) => void) | undefined

  constructor(fd: number, gate: SyncGate, syncName?: ((done: DiskDone) => void) | undefined) {
    this.#fd = fd
    this.#gate = gate
    this.#syncName = syncName
  }

  write(buffers: readonly Uint8Array[], position: number, done: DiskDone): boolean {
    let bytes = 0
    for (const buffer of buffers) bytes += buffer.length
    if (bytes > SYNC_WRITE_BYTES_MAX) {
      this.#pending++
      native.write(this.#fd, buffers, position, (error) => this.#finished(done, error))
      return false
    }
    try {
      native.writeSync(this.#fd, buffers, position)
      return true
    } catch (error) {
      setImmediate(done, diskError(error))
      return false
    }
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
    if (this.#closing && this.#pending === 0) {
      setImmediate(done, diskError(new Error('the file is closed')))
      return
    }
    this.#pending++
    this.#gate.datasync(this.#fd, (error) => this.#finished(done, error))
  }

  punchHole(position: number, length: number, done: DiskDone): void {
    this.#pending++
    native.punchHole(this.#fd, position, length, (error) => this.#finished(done, error))
  }

  close(): void {
    if (this.#closing) return
    this.#closing = true
    if (this.#pending === 0) closeSync(this.#fd)
  }

  #finished(done: DiskDone, error: unknown): void {
    this.#pending--
    if (this.#closing && this.#pending === 0) closeSync(this.#fd)
    done(diskErrorOrNone(error))
  }
}
