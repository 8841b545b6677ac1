/** When upkeep is due. */
import { BLOCK_BYTES } from '@holdfast/base'
import type { CheckpointWriter } from './checkpoint-writer.ts'
import { freeDeadSegments } from './checkpoint-writer.ts'
import type { Flusher } from './flusher.ts'
import type { LogCore } from './log-core.ts'
import type { Room } from './room.ts'

/** Rounds without an append after which a volume is put to rest, in multiples of `idleRounds`. */
const REST_FACTOR = 4

/** What `maintenance` of a log does: bounded work, everything else is left for a later round. */
export class Maintenance {
  readonly #core: LogCore
  readonly #checkpoints: CheckpointWriter
  readonly #flusher: Flusher
  readonly #room: Room
  #lastAppended = -1
  #quietRounds = 0

  constructor(core: LogCore, checkpoints: CheckpointWriter, flusher: Flusher, room: Room) {
    this.#core = core
    this.#checkpoints = checkpoints
    this.#flusher = flusher
    this.#room = room
  }

  round(): void {
    const core = this.#core
    if (!core.usable || core.truncating) return
    freeDeadSegments(core)
    if (!this.#checkpoints.busy && needsCheckpoint(core)) this.#checkpoints.write(() => undefined)
    this.#noteDurable()
    core.segments.closeIdle()
    this.#trimSpares()
    this.#rest()
  }

  /** Nothing appended since the last round, or other volumes may want the space. */
  #trimSpares(): void {
    const { segments, appendedLsn, settings } = this.#core
    if (!segments.hasExcessSpares) return
    const quiet = appendedLsn === this.#lastAppended && this.#quietRounds >= settings.idleRounds
    if (quiet || !segments.hasRoom(false)) segments.trimSpares()
  }

  /** Recovery tells a torn tail from damage by it, and need not check payloads below. */
  #noteDurable(): void {
    const { meta, durableLsn, geometry, state } = this.#core
    const gap = durableLsn - meta.value.durableLsn
    if (state !== 'ok' || meta.value.clean || gap < geometry.segmentBlocks / 4) return
    meta.value.durableLsn = durableLsn
    meta.save(() => undefined)
  }

  /**
   * A volume nobody writes to is flushed, gets a checkpoint and is marked as cleanly stopped, so that a crash of
   * the node finds nothing to recover in thousands of idle volumes. The next append takes the mark away first.
   */
  #rest(): void {
    const core = this.#core
    const meta = core.meta.value
    if (core.appendedLsn !== this.#lastAppended) {
      this.#lastAppended = core.appendedLsn
      this.#quietRounds = 0
      return
    }
    this.#quietRounds++
    const due = this.#quietRounds >= core.settings.idleRounds * REST_FACTOR
    if (!due || meta.clean || core.state !== 'ok' || this.#checkpoints.busy || this.#flusher.busy) return
    // Somebody is about to append: the mark would stand over it.
    if (core.committedLsn < core.appendedLsn || this.#room.busy) return
    if (core.durableLsn < core.appendedLsn) return this.#flusher.flush(() => undefined)
    if (core.lastCheckpoint?.lsn !== core.committedLsn) return this.#checkpoints.write(() => undefined)
    const busy = [...core.segments.all].some((segment) => segment.users > 0 && segment.ready)
    if (busy) return
    // Closed, so that the next append has to ask for its segment and finds the mark.
    for (const segment of core.segments.all) if (segment.ready) core.segments.closeFile(segment)
    meta.clean = true
    meta.bootId = core.options.bootId
    meta.durableLsn = core.durableLsn
    core.meta.save(() => undefined)
  }
}

/** Enough new log since the last checkpoint, or enough dead segments that only a checkpoint frees. */
export function needsCheckpoint(core: LogCore): boolean {
  const last = core.lastCheckpoint
  const newBytes = (core.committedLsn - (last?.lsn ?? 0)) * BLOCK_BYTES
  if (newBytes === 0) return false
  const { checkpointBytesMin, deadSegmentsMax } = core.settings
  if (newBytes >= Math.max(checkpointBytesMin, 4 * (last?.bytes ?? 0))) return true
  const dead = deadSegments(core)
  if (dead === 0) return false
  // Space that is wanted is worth a checkpoint; else only when it is worth its own bytes.
  if (!core.segments.hasRoom(false) && !core.segments.hasSpare) return true
  const worth = dead * core.geometry.segmentBytes >= 2 * (last?.bytes ?? 0)
  return dead >= deadSegmentsMax && worth
}

/** Segments wholly below the commit position without a live block. */
export function deadSegments(core: LogCore): number {
  const { geometry, segments, map, committedLsn } = core
  let dead = 0
  for (const segment of segments.all) {
    if ((segment.number + 1) * geometry.segmentBlocks > committedLsn) continue
    if ((map.live[segment.slot] ?? 0) === 0) dead++
  }
  return dead
}
