/**
 * Writes checkpoints in bounded pieces while the log goes on: the map's pages are copied on write
 * until they are in its file. A checkpoint counts once everything it refers to is durable, it is durable itself and bears its name.
 *
 * A soft one (decision 20) counts for the present boot only: nothing is flushed for it. It frees segments that begin
 * behind the newest durable checkpoint and behind all that was ever called durable, and no others.
 */
import { assert, BLOCK_BYTES, lsn } from '@holdfast/base'
import type { DiskError, DiskFile } from '@holdfast/base'
import type { MapSnapshot } from './block-map.ts'
import { encodeBoot, encodeHead, encodeTrailer, neededSegments } from './checkpoint-codec.ts'
import type { CheckpointHead } from './checkpoint-codec.ts'
import type { Flusher } from './flusher.ts'
import { numberInName } from './geometry.ts'
import type { CheckpointInfo, LogCore } from './log-core.ts'
import { encodeText } from './meta.ts'
import type { Room } from './room.ts'

const PAGES_PER_WRITE = 128
const SPACE_RETURNS_MS = 200

export type CheckpointDone = (error: DiskError | undefined, info: CheckpointInfo | undefined) => void

/** `hole`: a durable one, unless there is no hole in the log any more when its turn comes. */
type Wish = 'durable' | 'hole' | 'soft'

interface Work {
  readonly soft: boolean
  /** Where the checkpoint begins in its file. */
  readonly base: number
  readonly head: CheckpointHead
  readonly snapshot: MapSnapshot
  readonly info: CheckpointInfo
  /** Segments without a live block, wholly below: nobody needs them once this is durable. */
  readonly dead: number[]
  readonly temporary: string
  /** Of the log when this was begun. */
  readonly resets: number
}

export class CheckpointWriter {
  readonly #core: LogCore
  readonly #flusher: Flusher
  readonly #room: Room
  #running: CheckpointDone[] | undefined
  #waiting: { readonly wish: Wish; readonly done: CheckpointDone }[] = []
  #idle: (() => void)[] = []

  constructor(core: LogCore, flusher: Flusher, room: Room) {
    this.#core = core
    this.#flusher = flusher
    this.#room = room
    flusher.closeHole = (done) => this.#ask('hole', done)
  }

  get busy(): boolean {
    return this.#running !== undefined
  }

  /** Calls back, at once perhaps, when no checkpoint is being written. */
  whenIdle(callback: () => void): void {
    if (this.#running === undefined) callback()
    else this.#idle.push(callback)
  }

  /** Writes a checkpoint of what is committed now; one that is asked for meanwhile follows. */
  write(done: CheckpointDone): void {
    this.#ask('durable', done)
  }

  /** Writes one that only the present boot believes, and frees what it may. */
  writeSoft(): void {
    this.#ask('soft', () => undefined)
  }

  #ask(wish: Wish, done: CheckpointDone): void {
    this.#waiting.push({ wish, done })
    if (this.#running === undefined) this.#start()
  }

  #start(): void {
    const core = this.#core
    const wishes = this.#waiting.map(({ wish }) => wish)
    this.#running = this.#waiting.map(({ done }) => done)
    this.#waiting = []
    const last = core.lastCheckpoint
    const soft = wishes.every((wish) => wish === 'soft')
    const needless = last?.lsn === core.committedLsn || (soft && core.softLsn === core.committedLsn)
    if (needless || (!core.hasHole && wishes.every((wish) => wish === 'hole'))) {
      core.scheduler.soon(() => this.#end(undefined, last))
      return
    }
    if (!core.usable) {
      core.scheduler.soon(() => this.#end({ kind: 'io', message: 'log is not usable' }, undefined))
      return
    }
    const work = this.#snapshot(soft)
    if (soft) return this.#writeFile(work)
    const flushed = (error: DiskError | undefined): void => {
      if (error !== undefined) return this.#end(error, undefined)
      this.#writeFile(work)
    }
    // A flush would wait for this very checkpoint; so does one already where a hole has closed since it asked.
    if (core.hasHole || wishes.includes('hole')) this.#flusher.sync(flushed)
    else this.#flusher.flush(flushed)
  }

  #snapshot(soft: boolean): Work {
    const core = this.#core
    const { geometry, segments, map } = core
    const snapshot = map.snapshot()
    const head: CheckpointHead = {
      lsn: core.committedLsn,
      lastHeaderCrc: core.committedCrc,
      sizeBytes: core.sizeBytes,
      segmentBlocks: geometry.segmentBlocks,
      seed: geometry.seed,
      slots: Array.from(segments.slots, (segment) => segment?.number ?? -1),
      epochs: core.epochs.entries.filter((entry) => entry.firstLsn < core.committedLsn),
      sessions: core.dedupe.snapshot(core.committedLsn),
      pageNumbers: snapshot.numbers,
      mappedBlocks: snapshot.mappedBlocks,
    }
    const dead: number[] = []
    for (const segment of segments.all) {
      const end = (segment.number + 1) * geometry.segmentBlocks
      if (end <= head.lsn && (map.live[segment.slot] ?? 0) === 0) dead.push(segment.number)
    }
    const info = { lsn: lsn(head.lsn), segments: neededSegments(head, map.live), bytes: 0 }
    const base = soft ? BLOCK_BYTES : 0
    return { soft, base, head, snapshot, info, dead, temporary: `${geometry.path}/checkpoint.tmp`, resets: core.resets }
  }

  #writeFile(work: Work): void {
    const { disk, checksum, options } = this.#core
    const headBytes = encodeHead(work.head)
    const first = work.soft ? [encodeBoot(encodeText(options.bootId), checksum), headBytes] : [headBytes]
    const total = work.base + headBytes.length + (work.snapshot.pages.length + 1) * BLOCK_BYTES
    disk.remove(work.temporary)
    disk.open(work.temporary, { createBytes: total }, (error, file) => {
      if (file === undefined) return this.#withoutRoom(work, error)
      const crc = checksum.crc32c(headBytes, 0, headBytes.length, 0)
      this.#write(file, first, 0, (writeError) => {
        if (writeError !== undefined) return this.#abandon(work, file, writeError)
        this.#writePages(work, file, 0, headBytes.length, crc, total)
      })
    })
  }

  /** The log's own spare files, and what is ready ahead, are in the way of what a flush may wait for: they go first. */
  #withoutRoom(work: Work, error: DiskError | undefined): void {
    const { segments, scheduler } = this.#core
    if (error?.kind !== 'no-space') return this.#abandon(work, undefined, error)
    const { hasSpare } = segments
    segments.dropSpares()
    if (!this.#room.trimAhead() && !hasSpare) return this.#abandon(work, undefined, error)
    // The space comes back a little later than the name goes.
    scheduler.after(SPACE_RETURNS_MS, () => this.#writeFile(work))
  }

  #writePages(
    work: Work,
    file: DiskFile,
    page: number,
    position: number,
    crcBefore: number,
    total: number,
  ): void {
    const pages = work.snapshot.pages.slice(page, page + PAGES_PER_WRITE)
    if (pages.length === 0) {
      const trailer = encodeTrailer(crcBefore, position)
      return this.#write(file, [trailer], work.base + position, (error) => {
        if (error !== undefined) return this.#abandon(work, file, error)
        if (work.soft) this.#publishSoft(work, file)
        else this.#publish(work, file, total)
      })
    }
    let crc = crcBefore
    const buffers = pages.map(({ buffer, byteOffset }) => new Uint8Array(buffer, byteOffset, BLOCK_BYTES))
    for (const buffer of buffers) crc = this.#core.checksum.crc32c(buffer, 0, BLOCK_BYTES, crc)
    this.#write(file, buffers, work.base + position, (error) => {
      if (error !== undefined) return this.#abandon(work, file, error)
      const next = position + buffers.length * BLOCK_BYTES
      this.#core.map.written(work.snapshot, page, page + pages.length)
      // A turn between two pieces, also when the page cache took this one at once.
      this.#core.scheduler.soon(() => {
        this.#writePages(work, file, page + pages.length, next, crc, total)
      })
    })
  }

  #publish(work: Work, file: DiskFile, total: number): void {
    const { disk, geometry } = this.#core
    file.datasync((error) => {
      if (error !== undefined) return this.#abandon(work, file, error)
      if (this.#outdated(work)) return this.#abandon(work, file, undefined)
      file.close()
      disk.rename(work.temporary, geometry.checkpointPath(work.head.lsn))
      disk.syncDirectory(geometry.path, (syncError) => {
        // It may bear its name after a loss of power or not: nothing may be freed on the word of either.
        if (syncError !== undefined) this.#core.fail(syncError)
        if (syncError !== undefined || work.resets !== this.#core.resets) return this.#end(syncError, undefined)
        this.#published(work, total)
      })
    })
  }

  /** A rebuild began meanwhile, or is over already: this is the state that was given up. */
  #outdated({ resets }: Work): boolean {
    return !this.#core.usable || resets !== this.#core.resets
  }

  #publishSoft(work: Work, file: DiskFile): void {
    const core = this.#core
    const { disk, geometry } = core
    if (this.#outdated(work)) return this.#abandon(work, file, undefined)
    assert(work.head.lsn <= core.committedLsn, 'soft checkpoint above the commit position', { lsn: work.head.lsn })
    file.close()
    disk.rename(work.temporary, geometry.softPath(work.head.lsn))
    const before = core.softLsn
    core.softLsn = work.head.lsn
    if (before > 0) disk.remove(geometry.softPath(before))
    freeSoftly(core, work.dead, this.#flusher.busy)
    this.#end(undefined, core.lastCheckpoint)
  }

  #published(work: Work, total: number): void {
    const core = this.#core
    if (core.softLsn > 0) core.disk.remove(core.geometry.softPath(core.softLsn))
    core.softLsn = 0
    for (const name of core.disk.list(core.geometry.path)) {
      const other = numberInName(name, 'checkpoint-')
      if (other < 0 || other === work.head.lsn || core.pinnedCheckpoints.has(other)) continue
      core.disk.remove(`${core.geometry.path}/${name}`)
    }
    core.lastCheckpoint = { ...work.info, bytes: total }
    // Whatever was freed softly lies below: the log has no hole above this any more, and all below it was flushed.
    if (core.durableLsn < work.head.lsn) core.durableLsn = lsn(work.head.lsn)
    core.freeable = work.dead
    freeDeadSegments(core)
    this.#end(undefined, core.lastCheckpoint)
  }

  #write(
    file: DiskFile,
    buffers: readonly Uint8Array[],
    position: number,
    done: (error: DiskError | undefined) => void,
  ): void {
    if (file.write(buffers, position, done)) done(undefined)
  }

  #abandon(work: Work, file: DiskFile | undefined, error: DiskError | undefined): void {
    file?.close()
    this.#core.disk.remove(work.temporary)
    this.#core.events.event('warn', 'checkpoint failed', {
      path: this.#core.geometry.path,
      cause: error?.message,
    })
    this.#end(error ?? { kind: 'io', message: 'no checkpoint file' }, undefined)
  }

  #end(error: DiskError | undefined, info: CheckpointInfo | undefined): void {
    this.#core.map.release()
    const running = this.#running ?? []
    this.#running = undefined
    for (const done of running) done(error, info)
    if (this.#running === undefined && this.#waiting.length > 0) this.#start()
    if (this.#running === undefined) for (const callback of this.#idle.splice(0)) callback()
  }
}

/** Frees what the last checkpoint left dead, unless somebody pinned the segments and the disk has room for them. */
export function freeDeadSegments(core: LogCore): void {
  const { segments, freeable } = core
  if (freeable.length === 0) return
  if (core.pins > 0 && (segments.hasSpare || segments.hasRoom(false))) return
  for (const number of core.freeable.splice(0)) {
    const segment = core.segments.get(number)
    if (segment !== undefined) core.segments.free(segment, true)
  }
}

/**
 * Frees segments that a soft checkpoint leaves dead. None that the newest durable checkpoint may need, nor any byte that
 * was called durable: after a loss of power replay goes from there as far as the log is whole. Nor while a flush is
 * under way, which has looked already where it may begin.
 */
function freeSoftly(core: LogCore, dead: readonly number[], flushing: boolean): void {
  const { segments, geometry, lastCheckpoint, durableLsn, meta } = core
  if (lastCheckpoint === undefined || flushing) return
  if (core.pins > 0 && (segments.hasSpare || segments.hasRoom(false))) return
  const limit = Math.max(lastCheckpoint.lsn, durableLsn, meta.value.durableLsn)
  for (const number of dead) {
    const segment = segments.get(number)
    if (segment === undefined || number * geometry.segmentBlocks < limit) continue
    segments.free(segment, true)
    core.softFreedEnd = Math.max(core.softFreedEnd, (number + 1) * geometry.segmentBlocks)
  }
}

export interface PinnedCheckpoint {
  /** The whole file, in pieces one behind the other. */
  read(): readonly Uint8Array[] | DiskError
  release(): void
}

/** Keeps the file of the newest checkpoint, whatever is published meanwhile. Undefined when there is none. */
export function pinCheckpoint(core: LogCore): PinnedCheckpoint | undefined {
  const { lastCheckpoint, pinnedCheckpoints, disk, geometry } = core
  if (lastCheckpoint === undefined) return undefined
  const at = lastCheckpoint.lsn
  const path = geometry.checkpointPath(at)
  pinnedCheckpoints.set(at, (pinnedCheckpoints.get(at) ?? 0) + 1)
  let held = true
  return {
    read: () => disk.readWhole(path),
    release: () => {
      if (!held) return
      held = false
      const left = (pinnedCheckpoints.get(at) ?? 1) - 1
      if (left > 0) pinnedCheckpoints.set(at, left)
      else pinnedCheckpoints.delete(at)
      // Once the log is closed the place may be another one's.
      if (left === 0 && core.lastCheckpoint?.lsn !== at && core.state !== 'closed') disk.remove(path)
    },
  }
}
