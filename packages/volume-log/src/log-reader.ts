/** Whole batches, raw, for a peer that catches up. */
import { BLOCK_BYTES, lsn } from '@holdfast/base'
import type { Lsn } from '@holdfast/base'
import { HeaderView } from './header-codec.ts'
import type { LogCore } from './log-core.ts'
import { readAround } from './single-blocks.ts'
import type { ReadError } from './types.ts'

export type ReadLogDone = (error: ReadError | undefined, payload: Uint8Array, endLsn: Lsn) => void

const NOTHING = new Uint8Array(0)

/** Lowest LSN from which every segment up to the written end is there. */
export function streamableFrom(core: LogCore): Lsn {
  const { geometry, segments } = core
  let number = geometry.segmentOf(core.writtenLsn)
  if (geometry.indexOf(core.writtenLsn) === 0) number--
  if (number < 0 || segments.get(number) === undefined) return core.writtenLsn
  while (number > 0 && segments.get(number - 1) !== undefined) number--
  return lsn(number * geometry.segmentBlocks)
}

/**
 * Reads whole batches from `fromLsn` (a batch's start) on, at least one, otherwise at most `maxBytes`, all
 * within one segment. Headers and payload are checked; a pad is passed on as its header alone. What the disk does not give
 * is damaged.
 */
export function readLog(core: LogCore, fromLsn: Lsn, maxBytes: number, done: ReadLogDone): void {
  const { geometry, segments } = core
  const later = (error: ReadError | undefined): void => {
    core.scheduler.soon(() => done(error, NOTHING, fromLsn))
  }
  if (fromLsn >= core.writtenLsn) return later(undefined)
  const segment = segments.get(geometry.segmentOf(fromLsn))
  if (segment === undefined) return later({ kind: 'io', message: `log position ${fromLsn} is gone` })
  segments.retain(segment)
  const finish: ReadLogDone = (error, payload, endLsn) => {
    segments.release(segment)
    done(error, payload, endLsn)
  }
  const index = geometry.indexOf(fromLsn)
  const room = Math.min(geometry.segmentBlocks - index, core.writtenLsn - fromLsn)
  const attempt = (blocks: number): void => {
    segments.open(segment, (error, file) => {
      if (file === undefined) {
        return finish({ kind: 'io', message: error?.message ?? 'no file' }, NOTHING, fromLsn)
      }
      const buffer = new Uint8Array(blocks * BLOCK_BYTES)
      readAround({ file, index, count: blocks }, buffer, (readError) => {
        if (readError !== undefined) {
          return finish({ kind: 'io', message: readError.message }, NOTHING, fromLsn)
        }
        const found = wholeBatches(core, buffer, fromLsn)
        if (found.missing > 0) return attempt(Math.min(room, found.missing))
        finish(found.error, buffer.subarray(0, found.blocks * BLOCK_BYTES), found.endLsn)
      })
    })
  }
  attempt(Math.max(1, Math.min(room, Math.floor(maxBytes / BLOCK_BYTES))))
}

interface Found {
  /** Blocks of the buffer that are whole, good batches. */
  readonly blocks: number
  readonly endLsn: Lsn
  /** Blocks to read when not even the first batch was whole. */
  readonly missing: number
  readonly error: ReadError | undefined
}

function wholeBatches(core: LogCore, buffer: Uint8Array, fromLsn: Lsn): Found {
  const header = new HeaderView(core.checksum)
  const crcs = new Uint32Array(512)
  const total = buffer.length / BLOCK_BYTES
  let blocks = 0
  let endLsn = fromLsn
  const stop = (blockCount: number): Found => {
    // What was good before the damage goes out; the damage shows when it comes first.
    if (blocks > 0) return { blocks, endLsn, missing: 0, error: undefined }
    const error: ReadError = { kind: 'damaged', lsn: endLsn, logicalBlock: -1, blockCount }
    return { blocks: 0, endLsn, missing: 0, error }
  }
  while (blocks < total) {
    if (!header.decode(buffer, blocks * BLOCK_BYTES) || header.lsn !== endLsn) return stop(1)
    const span = 1 + header.payloadBlocks
    if (blocks + span > total) {
      if (blocks > 0) break
      return { blocks: 0, endLsn, missing: span, error: undefined }
    }
    core.checksum.crc32cBlocks(buffer, (blocks + 1) * BLOCK_BYTES, header.payloadBlocks, crcs, 0)
    for (let i = 0; i < header.payloadBlocks; i++) {
      if (crcs[i] === header.words[header.crcWord + i]) continue
      const error: ReadError = { kind: 'damaged', lsn: lsn(endLsn + 1 + i), logicalBlock: -1, blockCount: 1 }
      return blocks > 0 ? stop(1) : { blocks: 0, endLsn, missing: 0, error }
    }
    blocks += span
    endLsn = lsn(header.endLsn)
    // Behind a pad nothing of this segment is log.
    if (header.padBlocks > 0) break
  }
  return { blocks, endLsn, missing: 0, error: undefined }
}
