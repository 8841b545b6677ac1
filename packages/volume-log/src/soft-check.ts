/**
 * Reads back what lies between the durable position and a soft checkpoint that a recovery begins at, compares it with
 * its checksums, and writes it again: it may be in the page cache alone, and in pages whose write-back has failed, which
 * no later `fdatasync` says (decision 15). What is wrong and live is damage.
 */
import { lsn } from '@holdfast/base'
import type { DiskError, DiskFile } from '@holdfast/base'
import { BatchScan } from './batch-scan.ts'
import type { HeaderView } from './header-codec.ts'
import { op } from './header-codec.ts'
import type { LogCore } from './log-core.ts'
import type { Segment } from './segment-set.ts'
import { type ReadBatch, rewriteReadable } from './single-blocks.ts'
import type { DamageRange, LogOpenError } from './types.ts'

export interface SoftCheckSink {
  damaged(range: DamageRange): void
  /** With the segments that were written: open, and not durable yet. */
  done(error: LogOpenError | undefined, written: readonly Segment[]): void
}

export interface SoftRange {
  /** Durable up to here. */
  readonly fromLsn: number
  /** The soft checkpoint. */
  readonly toLsn: number
  /** What the disk does not give is damage. Otherwise it is an error, and nothing is decided. */
  readonly pastUnreadable: boolean
}

export class SoftCheck {
  readonly #core: LogCore
  readonly #range: SoftRange
  readonly #sink: SoftCheckSink
  readonly #written: Segment[] = []
  readonly #left: Segment[]
  readonly #crcs = new Uint32Array(512)
  /** Live blocks met in the segment that is read, whole or not. */
  #liveMet = 0
  #outstanding = 0
  #failure: LogOpenError | undefined

  constructor(core: LogCore, range: SoftRange, sink: SoftCheckSink) {
    this.#core = core
    this.#range = range
    this.#sink = sink
    const { segmentBlocks } = core.geometry
    const { fromLsn, toLsn } = range
    this.#left = [...core.segments.all].filter(({ number }) => {
      return number * segmentBlocks < toLsn && (number + 1) * segmentBlocks > fromLsn
    })
  }

  run(): void {
    const segment = this.#left.shift()
    if (segment === undefined || this.#failure !== undefined) return this.#sink.done(this.#failure, this.#written)
    this.#core.segments.open(segment, (error, file) => {
      // That it is gone is known from the list of files.
      if (file === undefined && error?.kind === 'absent') return this.run()
      if (file === undefined) return this.#sink.done({ kind: 'io', message: error?.message ?? 'no file' }, this.#written)
      this.#scan(segment, file)
    })
  }

  #scan(segment: Segment, file: DiskFile): void {
    const { geometry, checksum, map } = this.#core
    const baseLsn = segment.number * geometry.segmentBlocks
    const { fromLsn, toLsn, pastUnreadable } = this.#range
    const endIndex = Math.min(geometry.segmentBlocks, toLsn - baseLsn)
    this.#written.push(segment)
    this.#liveMet = 0
    this.#outstanding = 1
    const range = { file, baseLsn, fromIndex: 0, endIndex, seed: geometry.seed, payload: true, resync: true, pastUnreadable }
    new BatchScan(checksum, range, {
      batch: (header, bytes, offset, unreadable) => {
        this.#check(header, bytes, offset)
        if (header.endLsn > fromLsn) this.#rewrite(file, { header, bytes, offset, unreadable })
        return true
      },
      end: (error) => {
        const missing = (map.live[segment.slot] ?? 0) - this.#liveMet
        if (error === undefined && missing > 0) {
          this.#sink.damaged({ kind: 'header', lsn: lsn(baseLsn), blockCount: missing, logicalBlock: -1 })
        }
        this.#ended('unreadable', error)
      },
    }).run()
  }

  #check(header: HeaderView, bytes: Uint8Array, offset: number): void {
    const { checksum, map } = this.#core
    checksum.crc32cBlocks(bytes, offset, header.payloadBlocks, this.#crcs, 0)
    const entry = this.#core.entryOf(header.lsn)
    let payload = 0
    for (let r = 0; r < header.recordCount; r++) {
      const operation = header.recordOp(r)
      if (operation !== op.WRITE && operation !== op.RELOCATE) continue
      for (let i = 0; i < header.recordBlocks(r); i++, payload++) {
        const logicalBlock = header.recordLogical(r) + i
        // What nothing refers to may be wrong.
        if (map.get(logicalBlock) !== entry + 1 + payload) continue
        this.#liveMet++
        if (this.#crcs[payload] === header.words[header.crcWord + payload]) continue
        this.#sink.damaged({ kind: 'payload', lsn: lsn(header.lsn + 1 + payload), blockCount: 1, logicalBlock })
      }
    }
  }

  #rewrite(file: DiskFile, batch: ReadBatch): void {
    this.#outstanding++
    rewriteReadable(file, this.#core.geometry.indexOf(batch.header.lsn), batch, (error) => this.#ended('io', error))
  }

  #ended(kind: LogOpenError['kind'], error: DiskError | undefined): void {
    this.#failure ??= error && { kind, message: error.message }
    if (--this.#outstanding === 0) this.run()
  }
}
