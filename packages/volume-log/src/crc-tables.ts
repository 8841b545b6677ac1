/**
 * Brings the checksum table of a segment back into memory, from its batch headers.
 *
 * A header that the disk does not give hides the checksums of its batch alone. The table is used without them, and
 * completed when one of them is missed: the disk may give the header then, or a member has.
 */
import type { DiskError } from '@holdfast/base'
import { BatchScan } from './batch-scan.ts'
import type { HeaderView } from './header-codec.ts'
import type { LogCore } from './log-core.ts'
import type { Segment } from './segment-set.ts'

type TableDone = (error: DiskError | undefined) => void

export class CrcTables {
  readonly #core: LogCore
  readonly #loading = new Map<Segment, TableDone[]>()

  constructor(core: LogCore) {
    this.#core = core
  }

  /** Opens the file and loads the table where they are absent. May call back at once. */
  ensure(segment: Segment, done: TableDone): void {
    segment.crcUsed = true
    if (segment.file !== undefined && segment.crcs !== undefined) return done(undefined)
    this.#begin(segment, done)
  }

  /** Looks once more for checksums that the table lacks. May call back at once. */
  complete(segment: Segment, done: TableDone): void {
    if (!segment.crcsPartial) return done(undefined)
    this.#begin(segment, done)
  }

  #begin(segment: Segment, done: TableDone): void {
    const waiting = this.#loading.get(segment)
    if (waiting !== undefined) {
      waiting.push(done)
      return
    }
    this.#loading.set(segment, [done])
    this.#core.segments.retain(segment)
    this.#core.segments.open(segment, (error) => {
      const complete = segment.crcs !== undefined && !segment.crcsPartial
      if (error !== undefined || complete) return this.#finish(segment, error)
      this.#load(segment)
    })
  }

  #load(segment: Segment): void {
    const { geometry, checksum, writtenLsn } = this.#core
    const baseLsn = segment.number * geometry.segmentBlocks
    const table = new Uint32Array(geometry.segmentBlocks)
    const file = segment.file
    if (file === undefined) return this.#finish(segment, { kind: 'io', message: 'segment closed' })
    const endIndex = Math.max(0, Math.min(geometry.segmentBlocks, writtenLsn - baseLsn))
    const range = { file, baseLsn, fromIndex: 0, endIndex, seed: geometry.seed, payload: false }
    let partial = false
    const visitor = {
      batch: (header: HeaderView): boolean => {
        copyCrcs(header, table, header.lsn - baseLsn + 1)
        return true
      },
      unreadable: () => {
        partial = true
      },
      end: (error: DiskError | undefined): void => {
        if (error === undefined) this.#take(segment, table, partial)
        this.#finish(segment, error)
      },
    }
    new BatchScan(checksum, { ...range, resync: true, pastUnreadable: true }, visitor).run()
  }

  /** What a table has stays: it may have been appended to since this one was begun. */
  #take(segment: Segment, table: Uint32Array, partial: boolean): void {
    const { crcs } = segment
    segment.crcsPartial = partial
    if (crcs === undefined) return this.#core.segments.setTable(segment, table)
    for (let i = 0; i < crcs.length; i++) if (crcs[i] === 0) crcs[i] = table[i] ?? 0
  }

  #finish(segment: Segment, error: DiskError | undefined): void {
    const waiting = this.#loading.get(segment) ?? []
    this.#loading.delete(segment)
    for (const done of waiting) done(error)
    this.#core.segments.release(segment)
  }
}

/** Payload checksums of a header into a table from `index` on. */
export function copyCrcs(header: HeaderView, table: Uint32Array, index: number): void {
  const from = header.crcWord
  for (let i = 0; i < header.payloadBlocks; i++) table[index + i] = header.words[from + i] ?? 0
}
