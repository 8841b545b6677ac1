/** When upkeep is due. */
import { BLOCK_BYTES } from '@holdfast/base'
import type { CheckpointWriter } from './checkpoint-writer.ts'
import { freeDeadSegments } from './checkpoint-writer.ts'
import type { Flusher } from './flusher.ts'
import type { LogCore } from './log-core.ts'
import type { Room } from './room.ts'

/** Rounds without an append after which a volume is put to rest, in multiples of `idleRounds`. */
const REST_FACTOR = 4
/** The same after which it gives back spare segments, minutes at rest: what was streamed over in bursts is so again. */
const TRIM_FACTOR = 20
/** A checkpoint is worth it when it frees so many times its own bytes: those are written for it. */
const WORTH_FACTOR = 4
/** One that only shortens recovery is worth it behind so many times its own bytes of new log. */
const RECOVERY_FACTOR = 16
/** Flushes since the last durable checkpoint, beyond one a round, up to which soft ones are worth a try. */
const FLUSHES_MAX = 4
/** Segments of log that no flush has made durable yet, from which on it counts as streamed over, whatever was before. */
const STREAMED_SEGMENTS = 2
/**
 * A full segment is looked at behind the answer to what has filled it. A secondary's is made at the end of the turn, and sent
 * at the end of what is left of the turn then.
 */
const LOOK_PUT_OFF = 2

/** What `maintenance` of a log does: bounded work, everything else is left for a later round. */
export class Maintenance {
  readonly #core: LogCore
  readonly #checkpoints: CheckpointWriter
  readonly #flusher: Flusher
  readonly #room: Room
  /** In the last round; NaN: there was none yet. */
  #lastAppended = Number.NaN
  /** Since the newest durable checkpoint, and which that was; NaN: not looked at yet. */
  #rounds = 0
  #roundsOf = Number.NaN
  #flushesOf = 0
  #lookScheduled = false
  #lookPutOff = 0
  #quietRounds = 0

  constructor(core: LogCore, checkpoints: CheckpointWriter, flusher: Flusher, room: Room) {
    this.#core = core
    this.#checkpoints = checkpoints
    this.#flusher = flusher
    this.#room = room
    core.segmentFilled = () => {
      if (this.#lookScheduled || core.settings.softDeadSegmentsMin === 0) return
      this.#lookScheduled = true
      this.#lookPutOff = LOOK_PUT_OFF
      core.scheduler.soon(this.#look)
    }
  }

  /** A log that overwrites itself would be through its segments many times before the next round. */
  readonly #look = (): void => {
    const core = this.#core
    if (this.#lookPutOff-- > 0) return core.scheduler.soon(this.#look)
    this.#lookScheduled = false
    if (!core.mayBegin || this.#checkpoints.busy || this.#flusher.busy) return
    if (dueCheckpoint(core, this.#patient, false) === 'soft') this.#checkpoints.writeSoft()
  }

  /** Rounds in a row without an append. */
  get quietRounds(): number {
    return this.#quietRounds
  }

  round(takeStep: () => boolean): void {
    const core = this.#core
    if (!core.usable || core.truncating) return
    freeDeadSegments(core)
    this.#countRound()
    if (!this.#checkpoints.busy) {
      const due = dueCheckpoint(core, this.#patient, this.#quietRounds > 0)
      // Volumes that pause together are not to flush all at once.
      if (due === 'durable' || (due === 'pause' && takeStep())) this.#checkpoints.write(() => undefined)
      else if (due === 'soft' && !this.#flusher.busy) this.#checkpoints.writeSoft()
    }
    this.#noteDurable()
    core.segments.closeIdle()
    this.#trimSpares()
    this.#rest(takeStep)
  }

  /**
   * Rounds in a row without an append, and rounds since the newest durable checkpoint. A log at rest does not age: its
   * next stream is no older than itself.
   */
  #countRound(): void {
    const { lastCheckpoint, committedLsn, appendedLsn, flushes } = this.#core
    this.#quietRounds = appendedLsn === this.#lastAppended ? this.#quietRounds + 1 : 0
    this.#lastAppended = appendedLsn
    const newest = lastCheckpoint?.lsn ?? 0
    if (newest === this.#roundsOf && newest < committedLsn) this.#rounds++
    else {
      this.#rounds = 0
      this.#flushesOf = flushes
    }
    this.#roundsOf = newest
  }

  /**
   * Soft checkpoints may do for now: the last durable one is not old, and what is flushed all the time gains nothing.
   * What was flushed until a moment ago and streams now does: a durable one would hold up its freeing for as long as the
   * disk takes to write it all.
   */
  get #patient(): boolean {
    const { flushes, settings, appendedLsn, durableLsn, geometry } = this.#core
    if (this.#rounds >= settings.softRoundsMax) return false
    const streams = appendedLsn - durableLsn >= STREAMED_SEGMENTS * geometry.segmentBlocks
    return streams || flushes - this.#flushesOf <= this.#rounds + FLUSHES_MAX
  }

  /** Nothing was appended for long, or other volumes may want the space. */
  #trimSpares(): void {
    const { segments, settings } = this.#core
    if (this.#quietRounds === settings.idleRounds * TRIM_FACTOR) this.#room.trimAhead()
    if (!segments.hasExcessSpares) return
    if (this.#quietRounds >= settings.idleRounds * TRIM_FACTOR || !segments.hasRoom(false)) segments.trimSpares()
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
  #rest(takeStep: () => boolean): void {
    const core = this.#core
    const meta = core.meta.value
    const due = this.#quietRounds >= core.settings.idleRounds * REST_FACTOR
    if (!due || core.state !== 'ok' || this.#checkpoints.busy || this.#flusher.busy) return
    if (meta.clean) return core.map.trim()
    // Somebody is about to append: the mark would stand over it.
    if (core.committedLsn < core.appendedLsn || this.#room.busy) return
    if (!takeStep()) return
    if (core.durableLsn < core.appendedLsn) return this.#flusher.flush(() => undefined)
    if (core.lastCheckpoint?.lsn !== core.committedLsn) return this.#checkpoints.write(() => undefined)
    const promisedLately = core.segments.round - 1
    const busy = [...core.segments.all].some(({ ready, users, promised }) => {
      return ready && (users > 0 || promised >= promisedLately)
    })
    if (busy) return
    // Closed, so that the next append has to ask for its segment and finds the mark.
    for (const segment of core.segments.all) if (segment.ready) core.segments.closeFile(segment)
    meta.clean = true
    meta.bootId = core.options.bootId
    meta.durableLsn = core.durableLsn
    core.meta.save(() => undefined)
  }
}

interface Dead {
  /** Wholly below the commit position, without a live block. */
  readonly all: number
  /** Of them, those that a soft checkpoint frees. */
  readonly soft: number
  /** Bytes of live segments that begin behind the newest durable checkpoint: what a replay would read. */
  readonly replayBytes: number
}

/**
 * Which checkpoint is due: enough new log since the last one, or enough dead segments that it frees. `pause`: a durable
 * one, since it is `quiet`. Nothing is appended just now, so it holds nobody up, and the next burst finds segments whose
 * pages are still cached.
 */
export function dueCheckpoint(core: LogCore, patient: boolean, quiet: boolean): 'durable' | 'pause' | 'soft' | undefined {
  const { settings, segments, geometry, committedLsn, lastCheckpoint: last, softLsn } = core
  const newBytes = (committedLsn - (last?.lsn ?? 0)) * BLOCK_BYTES
  if (newBytes === 0) return undefined
  const bytesMin = Math.max(settings.checkpointBytesMin, 4 * (last?.bytes ?? 0))
  const { all, soft, replayBytes } = deadSegments(core)
  const worth = (count: number): boolean => count * geometry.segmentBytes >= WORTH_FACTOR * (last?.bytes ?? 0)
  const allowed = settings.softDeadSegmentsMin > 0 && last !== undefined && core.state === 'ok'
  if (!allowed || !patient || replayBytes >= Math.max(settings.softBytesMax, bytesMin)) {
    if (newBytes >= bytesMin || (all >= settings.deadSegmentsMax && worth(all))) return 'durable'
  }
  const hardBytes = (all - soft) * geometry.segmentBytes
  if (hardBytes >= settings.softBytesMax && all >= settings.deadSegmentsMax && worth(all)) {
    // The disk is asked last: it costs a system call.
    if (hardBytes >= segments.freeBytes * settings.deadFreeShareMax) return 'durable'
  }
  // Space that is wanted is worth a checkpoint.
  if (all > 0 && !segments.hasSpare && !segments.hasRoom(false)) return 'durable'
  if (!allowed) return undefined
  if (quiet && all - soft >= settings.deadSegmentsMax && worth(all)) return 'pause'
  if (soft >= settings.softDeadSegmentsMin && worth(soft)) return segments.hasRoom(false) ? 'soft' : 'durable'
  // Recovery from the end of the process alone stays short.
  const sinceBytes = (committedLsn - Math.max(last.lsn, softLsn)) * BLOCK_BYTES
  return sinceBytes >= Math.max(settings.checkpointBytesMin, RECOVERY_FACTOR * last.bytes) ? 'soft' : undefined
}

function deadSegments(core: LogCore): Dead {
  const { geometry, segments, map, committedLsn, durableLsn, lastCheckpoint, meta } = core
  const durableEnd = lastCheckpoint?.lsn ?? 0
  const limit = Math.max(durableEnd, durableLsn, meta.value.durableLsn)
  let all = 0
  let soft = 0
  let replay = 0
  for (const segment of segments.all) {
    const start = segment.number * geometry.segmentBlocks
    const dead = start + geometry.segmentBlocks <= committedLsn && (map.live[segment.slot] ?? 0) === 0
    if (dead) all++
    else if (start >= durableEnd) replay++
    if (dead && start >= limit) soft++
  }
  return { all, soft, replayBytes: replay * geometry.segmentBytes }
}
