/**
 * The secondary's append: raw batches from a peer are checked completely before a byte of them is
 * written, then written in order. Where segments are missing the batches wait for them.
 */
import { assert, BLOCK_BYTES, empty, lsn } from '@holdfast/base'
import type { DiskError, Lsn } from '@holdfast/base'
import type { AppendWriter, WritePart } from './append-writer.ts'
import { HeaderView } from './header-codec.ts'
import { onlyFreesSpace } from './log-core.ts'
import type { LogCore } from './log-core.ts'
import type { Room } from './room.ts'
import type { AppendRefusal, RawAppendDone } from './types.ts'

/** Of 16 MiB of payload. */
const CRC_WORDS = 4096

const NONE: Uint8Array[] = []
const NOTHING = new Uint8Array(0)

interface Job {
  readonly startLsn: Lsn
  readonly endLsn: Lsn
  readonly parts: readonly WritePart[]
  /** Payload checksums of all batches, from one word on, and for each batch: LSN of its payload, count. */
  readonly crcs: Uint32Array
  readonly crcsFrom: number
  readonly places: readonly number[]
  readonly useReserve: boolean
  readonly done: RawAppendDone
}

interface Finished {
  readonly done: RawAppendDone
  readonly error: DiskError | AppendRefusal | undefined
}

/** Walks a list of byte pieces as if they were one. */
class Cursor {
  readonly #chunks: readonly Uint8Array[]
  #chunk = 0
  #offset = 0
  #position = 0
  readonly length: number

  constructor(chunks: readonly Uint8Array[]) {
    this.#chunks = chunks
    this.length = chunks.reduce((sum, chunk) => sum + chunk.length, 0)
  }

  get position(): number {
    return this.#position
  }

  get left(): number {
    return this.length - this.#position
  }

  /** The piece that was taken last: `[start, end)` of `chunk`. No view of it, since there are two for each batch. */
  chunk: Uint8Array = NOTHING
  start = 0
  end = 0

  /** Takes the next piece of at most `wanted` bytes that lies in one chunk, and moves behind it; its bytes. */
  take(wanted: number): number {
    while (this.#chunk < this.#chunks.length && this.#offset === this.#chunks[this.#chunk]?.length) {
      this.#chunk++
      this.#offset = 0
    }
    this.chunk = this.#chunks[this.#chunk] ?? NOTHING
    const count = Math.min(wanted, this.chunk.length - this.#offset)
    this.start = this.#offset
    this.end = this.#offset + count
    this.#offset += count
    this.#position += count
    return count
  }
}

/** The pieces of a byte range of the list. */
function slice(chunks: readonly Uint8Array[], from: number, to: number): Uint8Array[] {
  const [only] = chunks
  // What a peer sends is one piece as a rule, and one batch.
  if (chunks.length === 1 && only !== undefined) return [to - from === only.length ? only : only.subarray(from, to)]
  const pieces: Uint8Array[] = []
  let start = 0
  for (const chunk of chunks) {
    const a = Math.max(0, from - start)
    const b = Math.min(chunk.length, to - start)
    if (a < b) pieces.push(chunk.subarray(a, b))
    start += chunk.length
  }
  return pieces
}

/**
 * Room for checksums of batches that are checked and not written yet. One array for many of them: each of its own would be
 * memory outside of the engine's heap, and its collector takes longer for a thousand of these than for all else.
 */
class CrcRoom {
  words = new Uint32Array(CRC_WORDS)
  #used = 0

  /** Where the next `count` words of `words` begin, which is another array when this one is full. */
  take(count: number): number {
    if (this.#used + count > this.words.length) {
      this.words = new Uint32Array(Math.max(CRC_WORDS, count))
      this.#used = 0
    }
    this.#used += count
    return this.#used - count
  }

  /** Nobody needs what is in it any more. */
  clear(): void {
    this.#used = 0
  }
}

export class RawAppender {
  readonly #core: LogCore
  readonly #room: Room
  readonly #writer: AppendWriter
  readonly #header: HeaderView
  readonly #queue: Job[] = []
  readonly #crcRoom = new CrcRoom()
  #finished: Finished[] = []
  /** The other one of two lists that take turns. */
  #announced: Finished[] = []
  /** Something was written since the next segment was last seen to, and whether that may use the reserve. */
  #nextWanted = false
  #useReserve = false

  constructor(core: LogCore, room: Room, writer: AppendWriter) {
    this.#core = core
    this.#room = room
    this.#writer = writer
    this.#header = new HeaderView(core.checksum)
  }

  get idle(): boolean {
    return this.#queue.length === 0
  }

  append(payload: readonly Uint8Array[], start: Lsn, done: RawAppendDone): void {
    const core = this.#core
    if (!core.usable || core.truncating) return this.#refuse('not-usable', done)
    if (start !== core.appendedLsn) return this.#refuse('gap', done)
    const job = this.#take(payload, start, done)
    if (typeof job === 'string') {
      core.cutPending(start)
      return this.#refuse(job, done)
    }
    this.#queue.push(job)
    this.process()
  }

  /** Writes what has room; called again when segments were opened. */
  readonly process = (): void => {
    for (let job = this.#queue[0]; job !== undefined; job = this.#queue[0]) {
      if (!this.#core.usable) return this.#giveUp()
      const state = this.#roomFor(job)
      if (state === 'opening') return this.#room.onRoom(this.process)
      if (state === 'no-space') return this.#noSpace()
      this.#queue.shift()
      this.#write(job)
    }
    this.#crcRoom.clear()
  }

  #roomFor(job: Job): 'ready' | 'opening' | 'no-space' {
    for (const part of job.parts) {
      const state = this.#room.ensure(part.segment, job.useReserve)
      if (state !== 'ready') return state
    }
    return 'ready'
  }

  #write(job: Job): void {
    const { segments, geometry } = this.#core
    const { crcs, places } = job
    let from = job.crcsFrom
    for (let i = 0; i < places.length; i += 2) {
      const position = places[i] ?? 0
      const count = places[i + 1] ?? 0
      const table = segments.get(geometry.segmentOf(position))?.crcs
      const index = geometry.indexOf(position)
      if (table !== undefined) for (let at = 0; at < count; at++) table[index + at] = crcs[from + at] ?? 0
      from += count
    }
    const finish = (error: DiskError | undefined): void => {
      this.#healed()
      this.#finish(job.done, error)
    }
    if (this.#writer.appendParts(job.parts, job.endLsn, finish)) finish(undefined)
    this.#useReserve = job.useReserve
    this.#nextWanted = true
  }

  /** A damaged log that was written anew up to where it had reached is whole again. */
  #healed(): void {
    const core = this.#core
    if (core.state !== 'damaged' || core.writtenLsn < core.damagedBelowLsn) return
    core.state = 'ok'
    core.events.event('info', 'damaged log was healed', { path: core.geometry.path })
  }

  #giveUp(): void {
    for (const job of this.#queue.splice(0)) this.#refuse('not-usable', job.done)
  }

  /** Nothing of the waiting batches was written: the log is as it was before them. */
  #noSpace(): void {
    const jobs = this.#queue.splice(0)
    const first = jobs[0]
    if (first !== undefined) this.#core.cutPending(first.startLsn)
    for (const job of jobs) {
      this.#finish(job.done, { kind: 'no-space', message: 'no room for another segment' })
    }
  }

  /** Checks the batches and takes them into the commit queue; a reason when one is not right. */
  #take(payload: readonly Uint8Array[], start: Lsn, done: RawAppendDone): Job | AppendRefusal['reason'] {
    const core = this.#core
    const { geometry } = core
    const cursor = new Cursor(payload)
    if (cursor.length === 0 || cursor.length % BLOCK_BYTES !== 0) return 'bad-header'
    const header = this.#header
    const crcsFrom = this.#crcRoom.take(cursor.length / BLOCK_BYTES)
    const crcs = this.#crcRoom.words
    let places: number[] | undefined
    let parts: WritePart[] | undefined
    let crcIndex = crcsFrom
    let partStart = 0
    let useReserve = true
    while (cursor.left > 0) {
      const at = cursor.position
      const refusal = this.#takeHeader(cursor)
      if (refusal !== undefined) return refusal
      if (header.payloadBlocks * BLOCK_BYTES > cursor.left) return 'bad-header'
      if (!this.#takePayload(cursor, crcs, crcIndex)) return 'bad-payload'
      useReserve &&= onlyFreesSpace(header)
      // Lists of the size that is wanted as a rule: one that is pushed to begins with room for seventeen.
      if (places === undefined) places = [header.lsn + 1, header.payloadBlocks]
      else places.push(header.lsn + 1, header.payloadBlocks)
      crcIndex += header.payloadBlocks
      const segment = geometry.segmentOf(header.lsn)
      const last: WritePart | undefined = parts?.at(-1)
      if (last?.segment !== segment) {
        if (last !== undefined) last.buffers = slice(payload, partStart, at)
        partStart = at
        const part = { segment, index: geometry.indexOf(header.lsn), buffers: NONE }
        if (parts === undefined) parts = [part]
        else parts.push(part)
      }
      core.noteHeader(header)
    }
    assert(places !== undefined && parts !== undefined, 'a payload without a batch')
    const last = parts[parts.length - 1]
    if (last !== undefined) last.buffers = slice(payload, partStart, cursor.length)
    const endLsn = core.appendedLsn
    return { startLsn: start, endLsn, parts, crcs, crcsFrom, places, useReserve, done }
  }

  #takeHeader(cursor: Cursor): AppendRefusal['reason'] | undefined {
    const core = this.#core
    const header = this.#header
    let filled = 0
    while (filled < BLOCK_BYTES) {
      const count = cursor.take(BLOCK_BYTES - filled)
      const { chunk, start } = cursor
      header.bytes.set(new Uint8Array(chunk.buffer, chunk.byteOffset + start, count), filled)
      filled += count
    }
    if (!header.check()) return 'bad-header'
    if (header.seed !== core.geometry.seed) return 'wrong-volume'
    if (header.lsn !== core.appendedLsn) return 'gap'
    if (header.previousHeaderCrc !== core.lastHeaderCrc) return 'bad-chain'
    if (header.epoch < core.epochs.last) return 'stale-epoch'
    const end = core.geometry.indexOf(header.lsn) + (header.endLsn - header.lsn)
    if (end > core.geometry.segmentBlocks) return 'bad-header'
    return undefined
  }

  #takePayload(cursor: Cursor, crcs: Uint32Array, crcIndex: number): boolean {
    const header = this.#header
    const { checksum } = this.#core
    let done = 0
    while (done < header.payloadBlocks) {
      const count = cursor.take((header.payloadBlocks - done) * BLOCK_BYTES)
      const whole = Math.floor(count / BLOCK_BYTES)
      checksum.crc32cBlocks(cursor.chunk, cursor.start, whole, crcs, crcIndex + done)
      done += whole
      let filled = count - whole * BLOCK_BYTES
      if (filled === 0) continue
      // A block that lies across pieces.
      let crc = checksum.crc32c(cursor.chunk, cursor.end - filled, cursor.end, 0)
      while (filled < BLOCK_BYTES) {
        filled += cursor.take(BLOCK_BYTES - filled)
        crc = checksum.crc32c(cursor.chunk, cursor.start, cursor.end, crc)
      }
      crcs[crcIndex + done] = crc
      done++
    }
    for (let i = 0; i < header.payloadBlocks; i++) {
      if (crcs[crcIndex + i] !== header.words[header.crcWord + i]) return false
    }
    return true
  }

  #refuse(reason: AppendRefusal['reason'], done: RawAppendDone): void {
    this.#finish(done, { kind: 'refused', reason, lsn: lsn(this.#core.appendedLsn) })
  }

  /** Calls back at the end of the turn, all in order. */
  #finish(done: RawAppendDone, error: DiskError | AppendRefusal | undefined): void {
    this.#finished.push({ done, error })
    if (this.#finished.length === 1) this.#core.scheduler.soon(this.#announce)
  }

  readonly #announce = (): void => {
    const finished = this.#finished
    this.#finished = this.#announced
    this.#announced = finished
    for (const { done, error } of finished) done(error)
    empty(finished)
    // Behind what those have asked for: the primary waits for their word.
    if (this.#nextWanted) this.#core.scheduler.soon(this.#prepareNext)
  }

  readonly #prepareNext = (): void => {
    this.#nextWanted = false
    this.#room.prepareNext(this.#useReserve)
  }
}
