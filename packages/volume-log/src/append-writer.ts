/**
 * Writes sealed or received batches at their places and moves writtenLsn in order, also when the disk
 * answers out of order. One reused object per write under way; no closure per batch.
 */
import { assert, BLOCK_BYTES, empty, lsn } from '@holdfast/base'
import type { DiskDone, DiskError, Lsn } from '@holdfast/base'
import type { Batch } from './batch.ts'
import type { LogCore } from './log-core.ts'
import type { Segment } from './segment-set.ts'
import type { AppendDone } from './types.ts'

/** One contiguous piece inside one segment. */
export interface WritePart {
  readonly segment: number
  readonly index: number
  buffers: Uint8Array[]
}

class InFlight {
  readonly #writer: AppendWriter
  endLsn: Lsn = lsn(0)
  outstanding = 0
  batch: Batch | undefined
  done: AppendDone | undefined
  error: DiskError | undefined
  readonly segments: Segment[] = []
  readonly padBuffers: Uint8Array[] = []
  readonly buffers: Uint8Array[] = []
  readonly onDisk: DiskDone

  constructor(writer: AppendWriter) {
    this.#writer = writer
    this.onDisk = (error) => this.#writer.partDone(this, error)
  }
}

export class AppendWriter {
  readonly #core: LogCore
  readonly #queue: InFlight[] = []
  #head = 0
  readonly #pool: InFlight[] = []
  /** Sealed batches not written yet, in order: what read-modify-write sees of them. */
  readonly unwritten: Batch[] = []
  #drained: (() => void)[] = []
  /** End of the last write issued. */
  issuedLsn: Lsn = lsn(0)

  constructor(core: LogCore) {
    this.#core = core
  }

  get idle(): boolean {
    return this.#head === this.#queue.length
  }

  /** Calls back when nothing is under way; at once when that is so. */
  whenDrained(callback: () => void): void {
    if (this.idle) callback()
    else this.#drained.push(callback)
  }

  /** Writes the next sealed batch. True: it is written, together with all before. */
  append(batch: Batch, done: AppendDone): boolean {
    assert(batch.lsn === this.issuedLsn, 'batches are appended in the order of seal', {
      lsn: batch.lsn,
      expected: this.issuedLsn,
    })
    const flight = this.#take()
    flight.batch = batch
    flight.done = done
    flight.endLsn = batch.endLsn
    flight.outstanding = batch.hasPad ? 2 : 1
    if (batch.hasPad) {
      flight.padBuffers.push(batch.bytes.subarray(0, BLOCK_BYTES))
      this.#write(flight, batch.lsn, flight.padBuffers)
    }
    flight.buffers.push(batch.body)
    this.#write(flight, batch.headerLsn, flight.buffers)
    return this.#enqueue(flight)
  }

  /** Writes received batches, pieces in order. */
  appendParts(parts: readonly WritePart[], endLsn: Lsn, done: AppendDone): boolean {
    const flight = this.#take()
    flight.done = done
    flight.endLsn = endLsn
    flight.outstanding = parts.length
    for (const part of parts) {
      const position = part.segment * this.#core.geometry.segmentBlocks + part.index
      this.#write(flight, position, part.buffers)
    }
    return this.#enqueue(flight)
  }

  partDone(flight: InFlight, error: DiskError | undefined): void {
    flight.outstanding--
    if (error !== undefined) flight.error = error
    if (flight.outstanding === 0) this.#drain()
  }

  /** Forgets what was appended: the log is empty or cut. */
  restart(at: Lsn): void {
    assert(this.idle, 'restart with writes under way')
    this.issuedLsn = at
    while (this.unwritten.length > 0) this.unwritten.pop()?.release()
  }

  #write(flight: InFlight, position: number, buffers: Uint8Array[]): void {
    const { geometry, segments } = this.#core
    const segment = segments.get(geometry.segmentOf(position))
    const file = segment?.file
    assert(segment !== undefined && file !== undefined, 'append without an open segment', { position })
    segments.retain(segment)
    flight.segments.push(segment)
    if (file.write(buffers, geometry.indexOf(position) * BLOCK_BYTES, flight.onDisk)) {
      flight.outstanding--
    }
  }

  #enqueue(flight: InFlight): boolean {
    this.issuedLsn = flight.endLsn
    if (flight.outstanding === 0 && this.idle && this.#core.usable) {
      this.#finish(flight)
      return true
    }
    this.#queue.push(flight)
    return false
  }

  #drain(): void {
    while (this.#head < this.#queue.length) {
      const flight = this.#queue[this.#head]
      if (flight === undefined || flight.outstanding > 0) break
      this.#head++
      if (flight.error !== undefined) this.#core.fail(flight.error)
      const done = flight.done
      const error = this.#core.failure
      this.#finish(flight)
      done?.(error)
    }
    if (!this.idle) return
    this.#queue.length = 0
    this.#head = 0
    const drained = this.#drained
    if (drained.length === 0) return
    this.#drained = []
    for (const callback of drained) callback()
  }

  #finish(flight: InFlight): void {
    const core = this.#core
    for (const segment of flight.segments) {
      core.segments.markDirty(segment)
      core.segments.release(segment)
    }
    if (core.failure === undefined) this.#advance(flight.endLsn)
    if (flight.batch !== undefined) {
      const index = this.unwritten.indexOf(flight.batch)
      if (index >= 0) this.unwritten.splice(index, 1)
      flight.batch.release()
    }
    empty(flight.segments)
    empty(flight.padBuffers)
    empty(flight.buffers)
    flight.batch = undefined
    flight.done = undefined
    flight.error = undefined
    if (this.#pool.length < 64) this.#pool.push(flight)
  }

  /** Written up to `end`; a segment left behind needs no pinned table any more. */
  #advance(end: Lsn): void {
    const { geometry, segments } = this.#core
    const before = geometry.segmentOf(this.#core.writtenLsn)
    const after = geometry.segmentOf(end)
    this.#core.writtenLsn = end
    if (after > before) this.#core.segmentFilled?.()
    for (let number = before; number < after; number++) {
      const segment = segments.get(number)
      if (segment === undefined) continue
      segment.ready = false
      segment.crcPinned = false
    }
  }

  #take(): InFlight {
    return this.#pool.pop() ?? new InFlight(this)
  }
}
