/** Puts blocks that a peer had whole back at their place. */
import { BLOCK_BYTES, lsn } from '@holdfast/base'
import type { DiskError, Lsn } from '@holdfast/base'
import { BatchScan } from './batch-scan.ts'
import { copyCrcs } from './crc-tables.ts'
import type { CrcTables } from './crc-tables.ts'
import { HeaderView } from './header-codec.ts'
import type { LogCore } from './log-core.ts'
import type { Segment } from './segment-set.ts'
import type { RepairDone } from './types.ts'

/**
 * Writes `blocks` (whole 4 KiB blocks) at `position` if each has the checksum that its batch header says, or is
 * itself the right header of that position. Durable with the next flush.
 */
export function repairBlocks(
  core: LogCore,
  tables: CrcTables,
  position: Lsn,
  blocks: Uint8Array,
  done: RepairDone,
): void {
  const { geometry, segments, scheduler } = core
  const segment = segments.get(geometry.segmentOf(position))
  const count = blocks.length / BLOCK_BYTES
  const fits = geometry.indexOf(position) + count <= geometry.segmentBlocks
  if (segment === undefined || !fits || !Number.isInteger(count)) {
    const message = `no blocks at log position ${position}`
    return scheduler.soon(() => done({ kind: 'absent', message }))
  }
  segments.retain(segment)
  const finish: RepairDone = (error) => {
    segments.release(segment)
    done(error)
  }
  tables.ensure(segment, (error) => {
    if (error !== undefined) return finish(error)
    if (right(core, segment, position, blocks)) return write(core, segment, position, blocks, finish)
    tables.complete(segment, () => {
      if (right(core, segment, position, blocks)) return write(core, segment, position, blocks, finish)
      finish({ kind: 'wrong', message: `repair for log position ${position} is wrong itself` })
    })
  })
}

/**
 * The first batch header on the way from the beginning of the segment to `position` that does not check: while it
 * does not, nothing says which block is right at `position`. Undefined when all do, or they can't be read.
 */
export function damagedHeaderBefore(core: LogCore, position: Lsn, done: (header: Lsn | undefined) => void): void {
  const { geometry, segments, checksum, writtenLsn, scheduler } = core
  const segment = segments.get(geometry.segmentOf(position))
  if (segment === undefined) return scheduler.soon(() => done(undefined))
  const baseLsn = segment.number * geometry.segmentBlocks
  const endIndex = Math.min(geometry.segmentBlocks, writtenLsn - baseLsn)
  const finish = (header: number | undefined): void => {
    segments.release(segment)
    done(header === undefined || header >= position ? undefined : lsn(header))
  }
  segments.retain(segment)
  segments.open(segment, (_error, file) => {
    if (file === undefined) return finish(undefined)
    const range = { file, baseLsn, fromIndex: 0, endIndex, seed: geometry.seed, payload: false, pastUnreadable: true }
    new BatchScan(checksum, range, {
      batch: (header) => header.endLsn <= position,
      end: (error, index, stopped) => {
        finish(error === undefined && stopped === 'invalid' ? baseLsn + index : undefined)
      },
    }).run()
  })
}

function write(
  core: LogCore,
  segment: Segment,
  position: Lsn,
  blocks: Uint8Array,
  finish: (error: DiskError | undefined) => void,
): void {
  const written = (error: DiskError | undefined): void => {
    core.segments.markDirty(segment)
    if (error === undefined) forgetDamage(core, position, blocks.length / BLOCK_BYTES)
    finish(error)
  }
  const file = segment.file
  if (file === undefined) return finish({ kind: 'io', message: 'segment was closed' })
  const at = core.geometry.indexOf(position) * BLOCK_BYTES
  if (file.write([blocks], at, written)) core.scheduler.soon(() => written(undefined))
}

function right(core: LogCore, segment: Segment, position: Lsn, blocks: Uint8Array): boolean {
  const count = blocks.length / BLOCK_BYTES
  const found = new Uint32Array(count)
  const header = new HeaderView(core.checksum)
  core.checksum.crc32cBlocks(blocks, 0, count, found, 0)
  const index = core.geometry.indexOf(position)
  for (let i = 0; i < count; i++) {
    if (found[i] === segment.crcs?.[index + i]) continue
    const isHeader = header.decode(blocks, i * BLOCK_BYTES) && header.lsn === position + i
    if (!isHeader || header.seed !== core.geometry.seed) return false
    // The table lacks the checksums behind a header that was damaged, and would not be loaded anew where the log ends.
    if (segment.crcs !== undefined) copyCrcs(header, segment.crcs, index + i + 1)
  }
  return true
}

function forgetDamage(core: LogCore, position: number, count: number): void {
  core.damage = core.damage.filter(
    (range) => range.lsn < position || range.lsn + range.blockCount > position + count,
  )
}
