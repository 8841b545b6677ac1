/**
 * Cuts the tail behind a fork point (I6). The cut range is kept aside first, with a report of its blocks. Then
 * meta names the cut, so that a crash in between finishes it, and the headers of the tail are wiped: nothing of
 * it can be taken for a continuation of the log again.
 */
import { assert, BLOCK_BYTES } from '@holdfast/base'
import type { Disk, DiskError, DiskFile, Lsn } from '@holdfast/base'
import type { AppendWriter } from './append-writer.ts'
import type { Flusher } from './flusher.ts'
import type { LogCore } from './log-core.ts'
import { encodeText } from './meta.ts'
import { numberInName } from './geometry.ts'
import type { Room } from './room.ts'
import { readAround } from './single-blocks.ts'
import type { TruncateRefusal } from './types.ts'

const COPY_BYTES = 1024 * 1024
const ZERO_BLOCK = new Uint8Array(BLOCK_BYTES)

export type TruncateDone = (error: DiskError | TruncateRefusal | undefined) => void

/** A range of one segment. */
interface Piece {
  readonly segment: number
  readonly index: number
  readonly blocks: number
}

export class Truncation {
  readonly #core: LogCore
  readonly #writer: AppendWriter
  readonly #room: Room
  readonly #flusher: Flusher
  #counter = 0

  constructor(core: LogCore, writer: AppendWriter, room: Room, flusher: Flusher) {
    this.#core = core
    this.#writer = writer
    this.#room = room
    this.#flusher = flusher
  }

  truncateTo(target: Lsn, done: TruncateDone): void {
    const core = this.#core
    const refusal = this.#refusal(target)
    if (refusal !== undefined) {
      return core.scheduler.soon(() => done({ kind: refusal, lsn: core.committedLsn }))
    }
    if (target === core.appendedLsn) return core.scheduler.soon(() => done(undefined))
    core.truncating = true
    core.taskBegan()
    const finish: TruncateDone = (error) => {
      core.truncating = false
      done(error)
      core.taskEnded()
    }
    // `truncating` keeps new writes and segments from beginning. A flush still uses files that go.
    this.#room.whenQuiet(this.#writer, () => {
      this.#flusher.whenIdle(() => {
        if (!core.usable) return finish({ kind: 'not-usable', lsn: core.appendedLsn })
        this.#keepAside(target, () => this.#cut(target, finish))
      })
    })
  }

  #refusal(target: Lsn): TruncateRefusal['kind'] | undefined {
    const core = this.#core
    if (!core.usable || core.truncating) return 'not-usable'
    if (target < core.committedLsn) return 'would-lose-committed'
    assert(core.softLsn <= target, 'soft checkpoint above the commit position', { target, soft: core.softLsn })
    if (target === core.appendedLsn || core.pending.hasStart(target)) return undefined
    return 'not-a-boundary'
  }

  /** Copies the range. Without room only the report is kept: none of it was ever acknowledged. */
  #keepAside(target: Lsn, done: () => void): void {
    const core = this.#core
    const stamp = core.options.wallMs?.() ?? this.#counter++
    const directory = `${core.geometry.path}/cut-${target}-${Math.floor(stamp)}`
    core.disk.makeDirectory(directory)
    const report = JSON.stringify(this.#report(target))
    core.disk.writeAtomic(`${directory}/report.json`, [encodeText(report)], (error) => {
      if (error !== undefined) this.#warn('cut tail has no report', error)
      this.#copyPieces(directory, this.#pieces(target), 0, done)
    })
  }

  #report(target: Lsn): unknown {
    const core = this.#core
    const batches: { lsn: number; epoch: number; records: unknown[] }[] = []
    core.pending.forEachFrom(
      target,
      (start, epoch) => batches.push({ lsn: start, epoch, records: [] }),
      (operation, logicalBlock, blockCount, position) => {
        batches.at(-1)?.records.push({ operation, logicalBlock, blockCount, lsn: position })
      },
    )
    return {
      volume: core.options.volume,
      fromLsn: target,
      endLsn: core.appendedLsn,
      committedLsn: core.committedLsn,
      why: 'another history was chosen; nothing of this range was ever acknowledged to a client',
      batches,
    }
  }

  #pieces(target: Lsn): Piece[] {
    const { geometry, writtenLsn } = this.#core
    const pieces: Piece[] = []
    let at: number = target
    while (at < writtenLsn) {
      const index = geometry.indexOf(at)
      const blocks = Math.min(geometry.segmentBlocks - index, writtenLsn - at)
      pieces.push({ segment: geometry.segmentOf(at), index, blocks })
      at += blocks
    }
    return pieces
  }

  #copyPieces(directory: string, pieces: readonly Piece[], i: number, done: () => void): void {
    const core = this.#core
    const piece = pieces[i]
    if (piece === undefined) return done()
    const next = (error: DiskError | undefined, copy: DiskFile | undefined): void => {
      copy?.close()
      if (error !== undefined) this.#warn('cut tail was not kept', error)
      this.#copyPieces(directory, pieces, error === undefined ? i + 1 : pieces.length, done)
    }
    const segment = core.segments.get(piece.segment)
    if (segment === undefined) return next(undefined, undefined)
    core.segments.open(segment, (error, source) => {
      if (source === undefined) return next(error, undefined)
      const path = `${directory}/segment-${piece.segment}-from-${piece.index}`
      core.disk.open(path, { createBytes: piece.blocks * BLOCK_BYTES }, (openError, copy) => {
        if (copy === undefined) return next(openError, undefined)
        this.#copy(source, copy, piece, 0, (copyError) => next(copyError, copy))
      })
    })
  }

  #copy(
    source: DiskFile,
    copy: DiskFile,
    piece: Piece,
    at: number,
    done: (error: DiskError | undefined) => void,
  ): void {
    const total = piece.blocks * BLOCK_BYTES
    if (at >= total) return copy.datasync(done)
    const bytes = new Uint8Array(Math.min(COPY_BYTES, total - at))
    const range = { file: source, index: piece.index + at / BLOCK_BYTES, count: bytes.length / BLOCK_BYTES }
    readAround(range, bytes, (error) => {
      if (error !== undefined) return done(error)
      const written = (writeError: DiskError | undefined): void => {
        if (writeError !== undefined) return done(writeError)
        this.#copy(source, copy, piece, at + bytes.length, done)
      }
      if (copy.write([bytes], at, written)) written(undefined)
    })
  }

  #cut(target: Lsn, done: TruncateDone): void {
    const core = this.#core
    const meta = core.meta.value
    meta.cutTo = target
    meta.durableLsn = Math.min(meta.durableLsn, target)
    core.meta.save((error) => {
      if (error !== undefined) {
        // Nobody knows whether the cut stands on the disk: opening anew shows it, and finishes it if it does.
        core.fail(error)
        return done(error)
      }
      this.#wipe(target, (wipeError) => {
        if (wipeError !== undefined) {
          core.fail(wipeError)
          return done(wipeError)
        }
        core.cutPending(target)
        if (core.damagedBelowLsn > target) core.damagedBelowLsn = target
        if (core.state === 'damaged') core.state = 'ok'
        this.#writer.restart(target)
        meta.cutTo = undefined
        core.meta.save((endError) => {
          // What follows would go with the cut at the next start if that still stands on the disk.
          if (endError !== undefined) core.fail(endError)
          done(endError)
        })
      })
    })
  }

  #wipe(target: Lsn, done: (error: DiskError | undefined) => void): void {
    const core = this.#core
    const { geometry, segments } = core
    const tail = geometry.segmentOf(target)
    for (const number of segments.numbers) {
      const segment = segments.get(number)
      // Not kept for reuse: under the same number its old contents would be in their right place.
      if (segment !== undefined && number * geometry.segmentBlocks >= target) {
        segments.free(segment, false)
      }
    }
    const segment = segments.get(tail)
    if (segment === undefined) return core.scheduler.soon(() => done(undefined))
    const starts: number[] = []
    core.pending.forEachFrom(
      target,
      (start) => {
        if (geometry.segmentOf(start) === tail) starts.push(start)
      },
      () => undefined,
    )
    segments.open(segment, (error, file) => {
      if (file === undefined) return done(error)
      this.#zero(file, starts, 0, done)
    })
  }

  #zero(
    file: DiskFile,
    starts: readonly number[],
    i: number,
    done: (error: DiskError | undefined) => void,
  ): void {
    const start = starts[i]
    if (start === undefined) return file.datasync(done)
    const next = (error: DiskError | undefined): void => {
      if (error !== undefined) return done(error)
      this.#zero(file, starts, i + 1, done)
    }
    const position = this.#core.geometry.indexOf(start) * BLOCK_BYTES
    if (file.write([ZERO_BLOCK], position, next)) next(undefined)
  }

  #warn(message: string, error: DiskError): void {
    this.#core.events.event('warn', message, {
      path: this.#core.geometry.path,
      cause: error.message,
    })
  }
}

/**
 * Moves a closed log into a directory inside its place, so that an empty one can be made there; it goes the way of
 * cut tails. Each of the two steps is atomic, and opening finishes what a crash has left between them.
 */
export function setLogAside(disk: Disk, path: string, wallMs: number): string {
  if (disk.list(path).length > 0) disk.rename(path, asidePath(path))
  return takeIn(disk, path, wallMs)
}

/** Finishes a `setLogAside` that was interrupted; does nothing else. */
export function finishSettingAside(disk: Disk, path: string, wallMs: number): void {
  if (disk.list(asidePath(path)).length > 0) takeIn(disk, path, wallMs)
}

const asidePath = (path: string): string => `${path}.aside`

function takeIn(disk: Disk, path: string, wallMs: number): string {
  const directory = `${path}/cut-0-${Math.floor(wallMs)}`
  disk.makeDirectory(path)
  disk.rename(asidePath(path), directory)
  return directory
}

/** Removes what was cut and kept aside longer ago than the setting says. */
export function removeOldCuts(core: LogCore): void {
  const now = core.options.wallMs?.()
  if (now === undefined) return
  for (const name of core.disk.list(core.geometry.path)) {
    if (!name.startsWith('cut-')) continue
    const at = numberInName(name.slice(name.lastIndexOf('-') + 1), '')
    if (at >= 0 && now - at > core.settings.cutKeepMs) core.disk.remove(`${core.geometry.path}/${name}`)
  }
}

