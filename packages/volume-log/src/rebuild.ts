/**
 * Replaces a replica's contents by a peer's checkpoint and the segments it needs. Own segments wholly below the
 * fork are the same bytes and stay. `meta` says `rebuilding` from before the first loss to the moment the new state
 * is complete on disk: in between the replica is empty, and what arrived whole survives a crash.
 */
import type { DiskError, DiskFile, Lsn } from '@holdfast/base'
import { BLOCK_BYTES } from '@holdfast/base'
import type { AppendWriter } from './append-writer.ts'
import { BlockMap } from './block-map.ts'
import { decodeCheckpoint, neededSegments } from './checkpoint-codec.ts'
import type { Checkpoint } from './checkpoint-codec.ts'
import { FilePieces } from './file-pieces.ts'
import { numberInName } from './geometry.ts'
import type { Flusher } from './flusher.ts'
import type { LogCore } from './log-core.ts'
import { loadCheckpoint } from './found-checkpoints.ts'
import type { Room } from './room.ts'
import type { LogState } from './types.ts'

type Done = (error: DiskError | undefined) => void

export interface RebuildTarget {
  /** Writes a piece of a segment; the pieces of one segment come in order, from 0. */
  writeSegment(segment: number, offsetBytes: number, bytes: Uint8Array, done: Done): void
  /** Needed segments that are not whole yet (the last one, cut at the checkpoint, never counts as whole). */
  missing(): number[]
  /** Atomic: before, the replica is empty; after, its log ends at the checkpoint, whose file comes in pieces. */
  install(checkpoint: readonly Uint8Array[], done: Done): void
  /** Stops; the replica stays `rebuilding` and what is whole is kept for the next attempt. */
  abort(): void
}

/** A segment that arrives. */
interface Arriving {
  file: DiskFile | undefined
  bytes: number
  /** Pieces may end out of order: the segment is whole when all have. */
  writtenBytes: number
  /** Pieces that came while the file is being made. */
  waiting: ((error: DiskError | undefined) => void)[] | undefined
}

export class Rebuild implements RebuildTarget {
  readonly #core: LogCore
  readonly #writer: AppendWriter
  readonly #needed: readonly number[]
  readonly #whole: Set<number>
  readonly #arriving = new Map<number, Arriving>()
  readonly #before: LogState
  readonly #begun: () => void
  #queue: (() => void)[] | undefined = []
  #failure: DiskError | undefined

  constructor(
    core: LogCore,
    writer: AppendWriter,
    room: Room,
    flusher: Flusher,
    fork: Lsn,
    needed: readonly number[],
    begun: () => void,
  ) {
    this.#core = core
    this.#writer = writer
    this.#needed = needed
    this.#before = core.state
    this.#begun = begun
    core.taskBegan()
    this.#whole = new Set(this.#keepable(fork).filter((segment) => needed.includes(segment)))
    core.state = 'rebuilding'
    // A flush under way holds segments that pass for clean and are not durable yet.
    room.whenQuiet(writer, () => flusher.whenIdle(() => this.#prepare()))
  }

  missing(): number[] {
    return this.#needed.filter((segment) => !this.#whole.has(segment))
  }

  writeSegment(segment: number, offsetBytes: number, bytes: Uint8Array, callback: Done): void {
    this.#whenReady(callback, (done) => {
      const arriving = this.#arriving.get(segment) ?? {
        file: undefined,
        bytes: 0,
        writtenBytes: 0,
        waiting: undefined,
      }
      this.#arriving.set(segment, arriving)
      const end = offsetBytes + bytes.length
      if (offsetBytes !== arriving.bytes || end > this.#core.geometry.segmentBytes) {
        return this.#later(done, ioError(`piece of segment ${segment} out of order`))
      }
      arriving.bytes = end
      this.#write(segment, arriving, offsetBytes, bytes, done)
    })
  }

  install(pieces: readonly Uint8Array[], callback: Done): void {
    this.#whenReady(callback, (done) => {
      const core = this.#core
      const checkpoint = decodeCheckpoint(new FilePieces(pieces), core.checksum)
      const problem = checkpoint === undefined ? 'checkpoint is damaged' : this.#problem(checkpoint)
      if (checkpoint === undefined || problem !== undefined) {
        return this.#later(done, ioError(problem ?? 'checkpoint is damaged'))
      }
      this.#syncArriving((error) => {
        if (error !== undefined) return done(error)
        this.#removeCheckpoints()
        const path = core.geometry.checkpointPath(checkpoint.lsn)
        core.disk.writeAtomic(path, pieces, (writeError) => {
          if (writeError !== undefined) return done(writeError)
          this.#switch(checkpoint, done)
        })
      })
    })
  }

  abort(): void {
    this.#failure ??= ioError('rebuild was given up')
    for (const arriving of this.#arriving.values()) arriving.file?.close()
  }

  /** Own segments that are the peer's bytes too. */
  #keepable(fork: Lsn): number[] {
    const { meta, segments, geometry, disk, writtenLsn } = this.#core
    if (meta.value.state === 'rebuilding') {
      const there = new Set(disk.list(geometry.path))
      const name = (segment: number): string =>
        geometry.segmentPath(segment).slice(geometry.path.length + 1)
      return meta.value.kept.filter((segment) => there.has(name(segment)))
    }
    const limit = Math.min(fork, writtenLsn)
    return segments.numbers.filter((number) => (number + 1) * geometry.segmentBlocks <= limit)
  }

  /** What is kept becomes durable, then meta tells, then the rest goes. */
  #prepare(): void {
    const core = this.#core
    if (this.#failure !== undefined) return this.#unchanged()
    let open = 1
    let failure = core.failure
    const step: Done = (error) => {
      failure ??= error
      if (--open > 0) return
      // What is kept would pass for durable: nothing is marked then.
      if (failure === undefined) this.#mark()
      else this.#broken(failure)
    }
    for (const { number, file } of core.segments.dirty) {
      if (file === undefined || !this.#whole.has(number)) continue
      open++
      file.datasync(step)
    }
    step(undefined)
  }

  #mark(): void {
    const core = this.#core
    const meta = core.meta.value
    const { state, kept, clean, cutTo, durableLsn } = meta
    meta.state = 'rebuilding'
    meta.kept = [...this.#whole]
    meta.clean = false
    meta.cutTo = undefined
    meta.durableLsn = 0
    core.meta.save((error) => {
      if (error?.kind === 'no-space') {
        // The file is as before: so is the log.
        Object.assign(meta, { state, kept, clean, cutTo, durableLsn })
        this.#failure ??= error
        return this.#unchanged()
      }
      if (error !== undefined) return this.#broken(error)
      this.#clear()
      this.#ready()
    })
  }

  /** Ended before anything was changed. */
  #unchanged(): void {
    if (this.#core.state === 'rebuilding') this.#core.state = this.#before
    this.#ready()
  }

  /** Whether the log is being rebuilt, and what of it is durable, is not known now: opening anew shows it. */
  #broken(error: DiskError): void {
    this.#failure ??= error
    this.#core.fail(error)
    this.#ready()
  }

  #ready(): void {
    const queue = this.#queue ?? []
    this.#queue = undefined
    for (const task of queue) task()
    this.#begun()
    this.#core.taskEnded()
  }

  #clear(): void {
    const core = this.#core
    core.reset()
    this.#writer.restart(core.appendedLsn)
    this.#removeCheckpoints()
    for (const name of core.disk.list(core.geometry.path)) {
      const number = numberInName(name, 'segment-')
      if (number < 0 || this.#whole.has(number)) continue
      core.disk.remove(`${core.geometry.path}/${name}`)
    }
  }

  #removeCheckpoints(): void {
    const { disk, geometry } = this.#core
    for (const name of disk.list(geometry.path)) {
      if (name.startsWith('checkpoint') || name.startsWith('soft-')) disk.remove(`${geometry.path}/${name}`)
    }
  }

  #whenReady(callback: Done, task: (done: Done) => void): void {
    this.#core.taskBegan()
    const done: Done = (error) => {
      callback(error)
      this.#core.taskEnded()
    }
    const run = (): void => {
      if (this.#failure !== undefined) this.#later(done, this.#failure)
      else task(done)
    }
    if (this.#queue === undefined) run()
    else this.#queue.push(run)
  }

  #write(
    segment: number,
    arriving: Arriving,
    offsetBytes: number,
    bytes: Uint8Array,
    done: Done,
  ): void {
    const { disk, geometry } = this.#core
    const written: Done = (error) => {
      if (error !== undefined) return this.#fail(error, done)
      arriving.writtenBytes += bytes.length
      if (arriving.writtenBytes < geometry.segmentBytes) return done(undefined)
      this.#complete(segment, arriving, done)
    }
    const write = (error: DiskError | undefined): void => {
      const file = arriving.file
      if (file === undefined) return this.#fail(error ?? ioError('segment was closed'), done)
      if (file.write([bytes], offsetBytes, written)) this.#later(written, undefined)
    }
    if (arriving.file !== undefined) return write(undefined)
    if (arriving.waiting !== undefined) {
      arriving.waiting.push(write)
      return
    }
    arriving.waiting = [write]
    const path = geometry.segmentPath(segment)
    disk.open(path, { createBytes: geometry.segmentBytes }, (error, file) => {
      const waiting = arriving.waiting ?? []
      arriving.waiting = undefined
      if (this.#failure === undefined) arriving.file = file
      else file?.close()
      for (const task of waiting) task(error)
    })
  }

  #complete(segment: number, arriving: Arriving, done: Done): void {
    const file = arriving.file
    if (file === undefined) return done(ioError('segment was closed'))
    file.datasync((error) => {
      if (error !== undefined) return this.#fail(error, done)
      file.close()
      this.#arriving.delete(segment)
      this.#whole.add(segment)
      this.#core.meta.value.kept.push(segment)
      this.#core.meta.save(done)
    })
  }

  #syncArriving(done: Done): void {
    let open = 1
    let failure: DiskError | undefined
    const step: Done = (error) => {
      if (error !== undefined) failure ??= error
      open--
      if (open === 0) done(failure)
    }
    for (const arriving of this.#arriving.values()) {
      if (arriving.file === undefined) continue
      open++
      arriving.file.datasync(step)
    }
    step(undefined)
  }

  /** Why the checkpoint can't be installed with what is here. */
  #problem(checkpoint: Checkpoint): string | undefined {
    const { geometry, settings, options } = this.#core
    if (checkpoint.seed !== geometry.seed) return 'checkpoint of another volume'
    if (checkpoint.segmentBlocks !== geometry.segmentBlocks) return 'checkpoint of another segment size'
    const { segmentBlocks, seed } = geometry
    const { wordPool } = options
    const map = new BlockMap({ segmentBlocks, wholePages: settings.mapWholePages, seed, wordPool })
    checkpoint.pageNumbers.forEach((number, i) => map.loadPage(number, checkpoint.page(i)))
    for (const segment of neededSegments(checkpoint, map.live)) {
      const tail = segment === geometry.segmentOf(checkpoint.lsn)
      const wanted = tail ? geometry.indexOf(checkpoint.lsn) * BLOCK_BYTES : geometry.segmentBytes
      const bytes = this.#whole.has(segment) ? wanted : (this.#arriving.get(segment)?.writtenBytes ?? 0)
      if (bytes < wanted) return `segment ${segment} has not arrived`
    }
    return undefined
  }

  #switch(checkpoint: Checkpoint, done: Done): void {
    const core = this.#core
    const meta = core.meta.value
    meta.state = 'normal'
    meta.kept = []
    // It ends at the peer's checkpoint: what was acknowledged behind that is not here before it was fed (I5).
    meta.suspect = true
    meta.bootId = core.options.bootId
    meta.durableLsn = checkpoint.lsn
    core.meta.save((error) => {
      if (error !== undefined) {
        core.fail(error)
        return done(error)
      }
      for (const arriving of this.#arriving.values()) arriving.file?.close()
      core.reset()
      loadCheckpoint(core, checkpoint)
      for (const segment of [...core.segments.all]) {
        // The peer had it, nothing needs it, it did not travel.
        const here = this.#whole.has(segment.number) || this.#arriving.has(segment.number)
        if (!here) core.segments.forget(segment)
      }
      core.suspect = true
      core.state = 'ok'
      this.#writer.restart(core.appendedLsn)
      done(undefined)
    })
  }

  #fail(error: DiskError, done: Done): void {
    this.#failure ??= error
    done(error)
  }

  #later(done: Done, error: DiskError | undefined): void {
    this.#core.scheduler.soon(() => done(error))
  }
}

const ioError = (message: string): DiskError => ({ kind: 'io', message })
