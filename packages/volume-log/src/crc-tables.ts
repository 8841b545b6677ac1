/** Brings the checksum table of a segment back into memory, from its batch headers. */
import type { DiskError } from '@holdfast/base'
import { BatchScan } from './batch-scan.ts'
import type { HeaderView } from './header-codec.ts'
import type { LogCore } from './log-core.ts'
import type { Segment } from './segment-set.ts'

/** `partial`: a header could not be read; the checksums of its batch, and of what it hides, are missing. */
type TableDone = (error: DiskError | undefined, partial: boolean) => void

export class CrcTables {
  readonly #core: LogCore
  readonly #loading = new Map<Segment, TableDone[]>()

  constructor(core: LogCore) {
    this.#core = core
  }

  /**
   * Opens the file and loads the table where they are absent. May call back at once. A partial table is there during the
   * calls only: the disk may give the header the next time.
   */
  ensure(segment: Segment, done: TableDone): void {
    segment.crcUsed = true
    if (segment.file !== undefined && segment.crcs !== undefined) return done(undefined, false)
    const waiting = this.#loading.get(segment)
    if (waiting !== undefined) {
      waiting.push(done)
      return
    }
    this.#loading.set(segment, [done])
    this.#core.segments.retain(segment)
    this.#core.segments.open(segment, (error) => {
      if (error !== undefined || segment.crcs !== undefined) return this.#finish(segment, error, false)
      this.#load(segment)
    })
  }

  #load(segment: Segment): void {
    const { geometry, segments, checksum, writtenLsn } = this.#core
    const baseLsn = segment.number * geometry.segmentBlocks
    const table = new Uint32Array(geometry.segmentBlocks)
    const file = segment.file
    if (file === undefined) return this.#finish(segment, { kind: 'io', message: 'segment closed' }, false)
    const endIndex = Math.max(0, Math.min(geometry.segmentBlocks, writtenLsn - baseLsn))
    const range = { file, baseLsn, fromIndex: 0, endIndex, seed: geometry.seed, payload: false }
    let partial = false
    const visitor = {
      unreadable: () => {
        partial = true
      },
      batch: (header: HeaderView): boolean => {
        copyCrcs(header, table, header.lsn - baseLsn + 1)
        return true
      },
      end: (error: DiskError | undefined): void => {
        if (error === undefined) segments.setTable(segment, table)
        this.#finish(segment, error, partial)
        if (partial) segments.dropTable(segment)
      },
    }
    // A header that is damaged hides only the checksums of its own batch, a bad sector those of no other.
    new BatchScan(checksum, { ...range, resync: true, pastUnreadable: true }, visitor).run()
  }

  #finish(segment: Segment, error: DiskError | undefined, partial: boolean): void {
    const waiting = this.#loading.get(segment) ?? []
    this.#loading.delete(segment)
    for (const done of waiting) done(error, partial)
    this.#core.segments.release(segment)
  }
}

/** Payload checksums of a header into a table from `index` on. */
export function copyCrcs(header: HeaderView, table: Uint32Array, index: number): void {
  const from = header.crcWord
  for (let i = 0; i < header.payloadBlocks; i++) table[index + i] = header.words[from + i] ?? 0
}
