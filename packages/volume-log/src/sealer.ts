/** The primary's append: position, checksums and chain of a batch (DESIGN section 3). */
import { assert, BLOCK_BYTES, lsn, WIDE } from '@holdfast/base'
import type { Epoch, Lsn } from '@holdfast/base'
import type { Batch } from './batch.ts'
import type { AppendWriter } from './append-writer.ts'
import {
  crcWord,
  encodeFixed,
  encodeRecord,
  op,
  RECORDS_WORD,
} from './header-codec.ts'
import type { LogCore } from './log-core.ts'
import type { Room, RoomState } from './room.ts'

const HEADER_CRC_WORD = 15

export class Sealer {
  readonly #core: LogCore
  readonly #room: Room
  readonly #writer: AppendWriter
  /** Of the header that is being sealed. */
  readonly #fields = {
    epoch: WIDE,
    lsn: WIDE,
    committedLsn: WIDE,
    durableLsn: WIDE,
    previousHeaderCrc: WIDE,
    seed: WIDE,
    sealer: WIDE,
  }
  /** Whether the batch that there is room for may use the reserve. */
  #useReserve = false

  constructor(core: LogCore, room: Room, writer: AppendWriter) {
    this.#core = core
    this.#room = room
    this.#writer = writer
  }

  /** Whether a batch of so many payload blocks can be sealed now; opens segments ahead of need. */
  roomFor(payloadBlocks: number, useReserve: boolean): RoomState {
    const { geometry, appendedLsn } = this.#core
    const blocks = 1 + Math.min(payloadBlocks, geometry.segmentBlocks - 1)
    const segment = geometry.segmentOf(appendedLsn)
    const left = geometry.segmentBlocks - geometry.indexOf(appendedLsn)
    const current = this.#room.ensure(segment, useReserve)
    if (current !== 'ready') return current
    if (blocks > left) return this.#room.ensure(segment + 1, useReserve)
    this.#useReserve = useReserve
    return 'ready'
  }

  /** A batch has left for everybody who gets it: while they write it, what comes behind is made ready. */
  prepareNext(): void {
    this.#room.prepareNext(this.#useReserve)
    this.#useReserve = false
  }

  /**
   * The first `blocks` blocks of payload are in the buffer of an empty batch, which will get one record: their checksums
   * are made now and put where they will belong.
   */
  checksumAhead(batch: Batch, blocks: number): void {
    assert(batch.recordCount === 0, 'checksums are made ahead for an empty batch')
    this.#checksum(batch, batch.headerWord + crcWord(1), batch.checksummedBlocks, blocks)
    batch.markChecksummed(blocks)
  }

  seal(batch: Batch, epoch: Epoch): Lsn {
    const core = this.#core
    assert(core.state === 'ok', 'seal on a log that is not usable', { state: core.state })
    assert(!batch.sealed, 'batch is sealed already')
    assert(epoch >= core.epochs.last, 'epoch goes backwards', { epoch, last: core.epochs.last })
    const { geometry } = core
    const blocks = 1 + batch.payloadBlocks
    assert(blocks <= geometry.segmentBlocks, 'batch is larger than a segment', { blocks })
    const start = core.appendedLsn
    const left = geometry.segmentBlocks - geometry.indexOf(start)
    if (blocks > left) this.#sealPad(batch, epoch, left)
    const headerLsn = core.appendedLsn
    this.#checksums(batch, headerLsn)
    const end = lsn(headerLsn + blocks)
    this.#sealHeader(batch, batch.headerWord, batch.recordCount, batch.payloadBlocks, end, epoch)
    batch.markSealed(start, headerLsn)
    batch.retain()
    this.#writer.unwritten.push(batch)
    return start
  }

  /** Fills the rest of the segment; the pad's header is the first block of the batch's buffer. */
  #sealPad(batch: Batch, epoch: Epoch, left: number): void {
    batch.words.fill(0, 0, batch.headerWord)
    encodeRecord(batch.words, RECORDS_WORD, op.PAD, 0, 0, left - 1, 0)
    this.#sealHeader(batch, 0, 1, 0, lsn(this.#core.appendedLsn + left), epoch)
  }

  #checksums(batch: Batch, headerLsn: number): void {
    const { segments, geometry } = this.#core
    const segment = segments.get(geometry.segmentOf(headerLsn))
    const table = segment?.crcs
    assert(segment?.ready === true && table !== undefined, 'seal without room: ask canAppend before', {
      lsn: headerLsn,
      segment: segment?.number,
      ready: segment?.ready,
      table: table !== undefined,
    })
    segment.lastUse = segments.round
    if (batch.payloadBlocks === 0) return
    const word = batch.headerWord + crcWord(batch.recordCount)
    const ahead = batch.checksummedBlocks
    assert(ahead === 0 || (batch.recordCount === 1 && ahead <= batch.payloadBlocks), 'checksums are of another payload', { ahead })
    this.#checksum(batch, word, ahead, batch.payloadBlocks)
    const index = geometry.indexOf(headerLsn) + 1
    for (let i = 0; i < batch.payloadBlocks; i++) table[index + i] = batch.words[word + i] ?? 0
  }

  /** Of payload blocks [from, to), into the words from `word` + `from` on. */
  #checksum(batch: Batch, word: number, from: number, to: number): void {
    if (from >= to) return
    const offset = batch.payloadOffset + from * BLOCK_BYTES
    this.#core.checksum.crc32cBlocks(batch.buffer, offset, to - from, batch.words, word + from)
  }

  #sealHeader(
    batch: Batch,
    at: number,
    recordCount: number,
    payloadBlocks: number,
    end: Lsn,
    epoch: Epoch,
  ): void {
    const core = this.#core
    const fields = this.#fields
    fields.epoch = epoch
    fields.lsn = core.appendedLsn
    fields.committedLsn = core.committedLsn
    fields.durableLsn = core.durableLsn
    fields.previousHeaderCrc = core.lastHeaderCrc
    fields.seed = core.geometry.seed
    fields.sealer = core.sealer
    encodeFixed(batch.words, at, recordCount, payloadBlocks, fields)
    const crc = core.checksum.crc32c(batch.buffer, at * 4, at * 4 + 4096, 0)
    batch.words[at + HEADER_CRC_WORD] = crc
    core.noteAppended(batch.words, at, recordCount, core.appendedLsn, end, epoch, crc)
  }
}
