/** Which of the checkpoints in a log's directory a recovery begins at, and how one is loaded. */
import { lsn } from '@holdfast/base'
import type { DiskError } from '@holdfast/base'
import { decodeCheckpoint, decodeSoft, neededSegments } from './checkpoint-codec.ts'
import type { Checkpoint } from './checkpoint-codec.ts'
import { FilePieces } from './file-pieces.ts'
import { numberInName } from './geometry.ts'
import type { LogCore } from './log-core.ts'
import { encodeText } from './meta.ts'

/** So many openings fail for a checkpoint that the disk does not give: it may give it the next time. */
const CHECKPOINT_TRIES = 5

/** Loads map and tables of a checkpoint into an empty log that ends there. Segments are added. */
export function loadCheckpoint(core: LogCore, checkpoint: Checkpoint): void {
  checkpoint.slots.forEach((segment, slot) => {
    if (segment >= 0) core.segments.add(segment, slot)
  })
  checkpoint.pageNumbers.forEach((number, i) => core.map.loadPage(number, checkpoint.page(i)))
  core.epochs.replace(checkpoint.epochs)
  core.dedupe.load(checkpoint.sessions, checkpoint.lsn)
  core.sizeBytes = checkpoint.sizeBytes
  core.lastHeaderCrc = checkpoint.lastHeaderCrc
  core.committedCrc = checkpoint.lastHeaderCrc
  core.appendedLsn = lsn(checkpoint.lsn)
  core.writtenLsn = core.appendedLsn
  core.committedLsn = core.appendedLsn
  core.durableLsn = core.appendedLsn
  core.lastCheckpoint = {
    lsn: core.appendedLsn,
    segments: neededSegments(checkpoint, core.map.live),
    bytes: checkpoint.bytes,
  }
}

/** The newest durable one that checks. Where it is the last try, one that can't be read is as good as damaged. */
export function newestCheckpoint(core: LogCore, names: readonly string[]): Checkpoint | 'unreadable' | undefined {
  const { geometry, checksum, events } = core
  const found = names.map((name) => numberInName(name, 'checkpoint-')).filter((at) => at >= 0)
  for (const at of found.sort((a, b) => b - a)) {
    const file = readCheckpoint(core, geometry.checkpointPath(at))
    if (file === undefined && mayBecomeReadable(core)) return 'unreadable'
    const checkpoint = file && decodeCheckpoint(file, checksum)
    if (checkpoint?.seed === geometry.seed && checkpoint.segmentBlocks === geometry.segmentBlocks) return checkpoint
    events.event('error', 'checkpoint is damaged', { path: geometry.path, lsn: at })
  }
  return undefined
}

/**
 * The newest soft checkpoint of this boot that is newer than any durable one. Those of another boot speak of a page
 * cache that is gone; so does any where the log was last changed in another boot or was stopped cleanly since.
 */
export function softCheckpoint(
  core: LogCore,
  names: readonly string[],
  durable: Checkpoint | undefined,
): Checkpoint | 'unreadable' | undefined {
  const { disk, geometry, checksum, events, meta, options } = core
  const found = names.map((name) => numberInName(name, 'soft-')).filter((at) => at >= 0)
  const believed = !meta.value.clean && meta.value.bootId === options.bootId
  let soft: Checkpoint | undefined
  for (const at of found.sort((a, b) => b - a)) {
    const newer = soft === undefined && at > (durable?.lsn ?? 0) && at <= (meta.value.cutTo ?? at)
    const file = believed && newer ? readCheckpoint(core, geometry.softPath(at)) : undefined
    // It may be whole: what only it knows how to find must not go for an error that passes.
    if (believed && newer && file === undefined && mayBecomeReadable(core)) return 'unreadable'
    const decoded = file && decodeSoft(file, encodeText(options.bootId), checksum)
    const fits = decoded?.seed === geometry.seed && decoded.segmentBlocks === geometry.segmentBlocks
    if (decoded !== undefined && fits) soft = decoded
    else {
      if (believed && newer) events.event('error', 'soft checkpoint is of no use', { path: geometry.path, lsn: at })
      disk.remove(geometry.softPath(at))
    }
  }
  return soft
}

/**
 * Whether no spare file can have been a segment behind where this log ends. One that was freed softly before a loss of
 * power may have been: under its old number its old batches would be taken for what the log went on with.
 */
export function sparesLieBelow({ meta, options }: LogCore, names: readonly string[], soft: Checkpoint | undefined): boolean {
  if (meta.value.clean || soft !== undefined) return true
  return meta.value.bootId === options.bootId && !names.some((name) => numberInName(name, 'soft-') >= 0)
}

function mayBecomeReadable({ options }: LogCore): boolean {
  return (options.unreadableBefore ?? 0) < CHECKPOINT_TRIES
}

/** Undefined where the disk does not give it. */
function readCheckpoint({ disk, events }: LogCore, path: string): FilePieces | undefined {
  const pieces: readonly Uint8Array[] | DiskError = disk.readWhole(path)
  if (!('kind' in pieces)) return new FilePieces(pieces)
  events.event('error', 'checkpoint can not be read', { path, cause: pieces.message })
  return undefined
}
