/**
 * Brings a log back after a stop: newest valid checkpoint, then replay of the batches behind it up to the first
 * that does not check. What follows is a torn tail and is cut, unless something proves that it was durable: then
 * it is damage, reported and never cut (DESIGN section 3).
 *
 * Proof is the durable LSN in meta, that in later valid headers which this replica sealed in the boot it
 * stopped in (a header sealed elsewhere speaks of the other replica's disk), and, if the host did not lose its page
 * cache, the committed LSN in any later valid header.
 *
 * A block that the disk does not give (decision 37) may have been whole and acknowledged, or not: nobody can tell. So it is
 * damage where the chain meets it, and is neither cut nor written over, since the disk may give it once more.
 *
 * A soft checkpoint (decision 20) is believed in the boot that it names and no other. What it refers to may never have
 * been written to the disk: it is read, checked and written again, and nothing of it is durable before `harden`.
 */
import { BLOCK_BYTES, lsn } from '@holdfast/base'
import type { DiskError, DiskFile, Lsn } from '@holdfast/base'
import { BatchScan } from './batch-scan.ts'
import type { Checkpoint } from './checkpoint-codec.ts'
import { loadCheckpoint, newestCheckpoint, softCheckpoint, sparesLieBelow } from './found-checkpoints.ts'
import { numberInName } from './geometry.ts'
import type { HeaderView } from './header-codec.ts'
import { op, wasHeader } from './header-codec.ts'
import { sealerOf } from './log-core.ts'
import type { LogCore } from './log-core.ts'
import { type ReadBatch, rewriteReadable } from './single-blocks.ts'
import { SoftCheck } from './soft-check.ts'
import type { Segment } from './segment-set.ts'
import type { DamageRange, LogOpenError, RecoveryReport } from './types.ts'

export type RecoveryDone = (error: LogOpenError | undefined, report: RecoveryReport | undefined) => void

const ZERO_BLOCK = new Uint8Array(BLOCK_BYTES)
/** So many openings fail for a block of a segment that can't be read: a path that is away for seconds is no bad sector. */
const BLOCK_TRIES = 3

export class Recovery {
  readonly #core: LogCore
  readonly #done: RecoveryDone
  /** Mark of headers sealed here in the boot that ended. */
  readonly #sealer: number
  readonly #crcs = new Uint32Array(512)
  #bad: DamageRange[] = []
  #replayed: Segment[] = []
  #provenLsn: number
  /** Behind the header at which the chain ended since it could not be read: nothing proves it, so meta does not hear of it. */
  #unreadableEnd = 0
  /** Blocks of payload that could not be read: no torn ones. */
  readonly #unreadable = new Set<number>()
  /** The part of it that headers prove to have been on the disk itself, not in the page cache only. */
  #durableSeen = 0
  #committedSeen = 0
  #batches = 0
  #cutAt: number | undefined
  /** Stale headers behind the end, to be wiped when the tail is cut. */
  #stale: number[] = []
  /**
   * Where the log ends now there stands more that was begun: torn by the stop, or damaged after it was acknowledged.
   * Nobody can tell from here, so this copy does not pass for complete while a silent one may hold it.
   */
  #wholeBehind = false
  /**
   * From here on what is found is written again. The page cache has outlived the process: it may show pages whose
   * write-back failed, which the kernel has said once and no later `fdatasync` says or repairs.
   */
  readonly #rewriteFrom: number
  /** Position of the soft checkpoint that it began at. */
  #softLsn = 0
  #rewriting = 1
  #rewriteError: LogOpenError | undefined
  #rewritten: () => void = () => undefined

  constructor(core: LogCore, done: RecoveryDone) {
    this.#core = core
    this.#done = done
    this.#sealer = sealerOf(core.meta.value.bootId, core.checksum)
    const cutTo = core.meta.value.cutTo ?? Number.POSITIVE_INFINITY
    this.#provenLsn = Math.min(core.meta.value.durableLsn, cutTo)
    const { clean, bootId, durableLsn, suspect } = core.meta.value
    // What a damaged log has healed since is not durable although it lies below what was.
    const notDurableFrom = suspect ? 0 : durableLsn
    this.#rewriteFrom = clean || bootId !== core.options.bootId ? Number.POSITIVE_INFINITY : notDurableFrom
  }

  run(): void {
    const core = this.#core
    const { disk, geometry, segments } = core
    const names = disk.list(geometry.path)
    const files = names.map((name) => numberInName(name, 'segment-')).filter((number) => number >= 0)
    const durable = newestCheckpoint(core, names)
    const known = durable === 'unreadable' ? undefined : durable
    const soft = softCheckpoint(core, names, known)
    if (soft === 'unreadable' || (soft === undefined && durable === 'unreadable')) {
      core.scheduler.soon(() => this.#fail({ kind: 'unreadable', message: 'a checkpoint can not be read' }))
      return
    }
    const checkpoint = soft ?? known
    if (checkpoint !== undefined) loadCheckpoint(core, checkpoint)
    if (soft !== undefined) this.#beganSoftly(soft, known)
    this.#missing(files)
    for (const number of files) this.#addFound(number)
    if (sparesLieBelow(core, names, soft)) segments.adopt(names)
    else segments.dropSpares(names)
    // In the boot of a soft one nothing returns, and the durable one still needs what that has left dead.
    if (checkpoint !== undefined && soft === undefined) this.#dropReturned()
    this.#committedSeen = core.committedLsn
    disk.remove(`${geometry.path}/checkpoint.tmp`)
    if (checkpoint === undefined && files.length > 0 && (files[0] ?? 0) > 0) {
      return this.#withoutCheckpoint(files)
    }
    if (soft === undefined) return this.#replay()
    const from = Math.max(known?.lsn ?? 0, this.#rewriteFrom)
    new SoftCheck(core, { fromLsn: from, toLsn: soft.lsn, pastUnreadable: this.#pastUnreadable }, {
      damaged: (range) => this.#bad.push(range),
      done: (error, written) => {
        if (error !== undefined) return this.#fail(error)
        this.#replayed.push(...written)
        this.#replay()
      },
    }).run()
  }

  #beganSoftly(soft: Checkpoint, durable: Checkpoint | undefined): void {
    const core = this.#core
    this.#softLsn = soft.lsn
    core.events.event('info', 'recovery begins at a soft checkpoint', {
      path: core.geometry.path,
      lsn: soft.lsn,
      durable: durable?.lsn,
    })
    core.softLsn = soft.lsn
    core.softFreedEnd = soft.lsn
    core.lastCheckpoint = durable && { lsn: lsn(durable.lsn), segments: [], bytes: durable.bytes }
    // It was committed, and the page cache is still there: what is wrong below is damage, never a torn tail.
    this.#provenLsn = Math.max(this.#provenLsn, soft.lsn)
  }

  /** Segments with live blocks whose file is gone. */
  #missing(files: readonly number[]): void {
    const { segments, map, geometry } = this.#core
    const there = new Set(files)
    for (const segment of [...segments.all]) {
      if (there.has(segment.number)) continue
      const live = map.live[segment.slot] ?? 0
      if (live === 0) segments.forget(segment)
      else {
        const at = lsn(segment.number * geometry.segmentBlocks)
        this.#bad.push({ kind: 'segment-missing', lsn: at, blockCount: live, logicalBlock: -1 })
      }
    }
  }

  /**
   * A segment behind the checkpoint may have been in the making when the host or the process ended: nothing was appended to it
   * before it had its full size. Files are not left like that any more; releases before did.
   */
  #addFound(number: number): void {
    const { segments, geometry, disk, appendedLsn } = this.#core
    const path = geometry.segmentPath(number)
    const bytes = segments.get(number) === undefined && number * geometry.segmentBlocks >= appendedLsn ? disk.sizeOf(path) : -1
    if (bytes === 0) return disk.remove(path)
    const segment = segments.add(number)
    // Opened, it gets what it lacks.
    if (bytes > 0 && bytes < geometry.segmentBytes) segment.nameOwed = true
  }

  /**
   * What the checkpoint has left dead was freed, and perhaps used again, before a loss of power gave it its old name
   * back. It is not offered to peers: what it holds may be of another segment by now.
   */
  #dropReturned(): void {
    const { segments, map, geometry, committedLsn } = this.#core
    for (const segment of [...segments.all]) {
      const end = (segment.number + 1) * geometry.segmentBlocks
      if (end <= committedLsn && (map.live[segment.slot] ?? 0) === 0) segments.free(segment, true)
    }
  }

  /** Old segments were freed and no map tells what the others mean: only a peer can help. */
  #withoutCheckpoint(files: readonly number[]): void {
    const { geometry } = this.#core
    const end = ((files.at(-1) ?? 0) + 1) * geometry.segmentBlocks
    this.#bad.push({ kind: 'checkpoint', lsn: lsn(0), blockCount: end, logicalBlock: -1 })
    this.#damaged(Math.max(this.#provenLsn, 1))
  }

  /** Walks the batches of the segment in which the log ends so far. */
  #replay(): void {
    const core = this.#core
    const { geometry, segments } = core
    const start = core.appendedLsn
    const end = this.#endsBelow
    const segment = segments.get(geometry.segmentOf(start))
    if (segment === undefined || start >= end) return this.#tail(segment)
    segments.open(segment, (error, file) => {
      if (file === undefined) return this.#fail(error)
      this.#scan(segment, file, start, end)
    })
  }

  /** Where the log is known to end at the latest: behind lies nothing that anybody wants. */
  get #endsBelow(): number {
    const { clean, cutTo, durableLsn } = this.#core.meta.value
    return cutTo ?? (clean ? durableLsn : Number.POSITIVE_INFINITY)
  }

  #scan(segment: Segment, file: DiskFile, start: number, end: number): void {
    const core = this.#core
    const { geometry } = core
    const { clean, durableLsn } = core.meta.value
    const baseLsn = segment.number * geometry.segmentBlocks
    this.#replayed.push(segment)
    const range = {
      file,
      baseLsn,
      fromIndex: start - baseLsn,
      endIndex: Math.min(geometry.segmentBlocks, end - baseLsn),
      seed: geometry.seed,
      // Below the mark of a clean stop it is neither checked nor written again.
      payload: !clean || end > durableLsn,
      pastUnreadable: this.#pastUnreadable,
    }
    new BatchScan(core.checksum, range, {
      batch: (header, bytes, offset, unreadable) => this.#take({ header, bytes, offset, unreadable }),
      unreadable: (index) => {
        this.#unreadableEnd = baseLsn + index + 1
      },
      end: (error) => {
        if (error !== undefined) this.#rewriteError ??= { kind: 'unreadable', message: error.message }
        this.#rewritten = () => {
          if (this.#rewriteError !== undefined) return this.#fail(this.#rewriteError)
          this.#rewriting = 1
          const whole = geometry.indexOf(core.appendedLsn) === 0 && core.appendedLsn > start
          if (whole) this.#replay()
          else this.#tail(segment)
        }
        this.#rewriteEnded(undefined)
      },
    }).run()
  }

  get #pastUnreadable(): boolean {
    return (this.#core.options.unreadableBefore ?? 0) >= BLOCK_TRIES
  }

  /** Makes the pages of a batch dirty again, with the very bytes that were checked. */
  #rewrite(batch: ReadBatch): void {
    const { segments, geometry } = this.#core
    const { lsn: at } = batch.header
    const file = segments.get(geometry.segmentOf(at))?.file
    if (file === undefined) return
    this.#rewriting++
    rewriteReadable(file, geometry.indexOf(at), batch, (error) => this.#rewriteEnded(error))
  }

  /** The walk of a segment has ended, or one write of it: when all have, `#rewritten` goes on. */
  #rewriteEnded(error: DiskError | undefined): void {
    this.#rewriteError ??= error && { kind: 'io', message: error.message }
    if (--this.#rewriting === 0) this.#rewritten()
  }

  /** False: no continuation of the log. */
  #take(batch: ReadBatch): boolean {
    const core = this.#core
    const { header } = batch
    if (header.previousHeaderCrc !== core.lastHeaderCrc || header.epoch < core.epochs.last) return false
    if (header.endLsn > core.meta.value.durableLsn) this.#checkPayload(batch)
    if (header.endLsn > this.#rewriteFrom) this.#rewrite(batch)
    core.noteHeader(header)
    core.writtenLsn = core.appendedLsn
    this.#committedSeen = Math.max(this.#committedSeen, header.committedLsn)
    this.#proof(header)
    this.#batches++
    return true
  }

  /**
   * What a header proves to have been whole here: what its sealer had made durable, if that was this copy; and, with
   * the page cache still there, what was committed when it was made.
   */
  #proof(header: HeaderView): void {
    const core = this.#core
    const cutTo = core.meta.value.cutTo ?? Number.POSITIVE_INFINITY
    const durableLsn = header.sealer === this.#sealer ? header.durableLsn : 0
    const committedLsn = core.suspect ? 0 : header.committedLsn
    this.#durableSeen = Math.max(this.#durableSeen, Math.min(durableLsn, cutTo))
    this.#provenLsn = Math.max(this.#provenLsn, Math.min(Math.max(durableLsn, committedLsn), cutTo))
  }

  /** Wrong blocks are noted; whether they are a torn tail or damage shows at the end of the walk. */
  #checkPayload({ header, bytes, offset, unreadable }: ReadBatch): void {
    const { checksum, geometry } = this.#core
    checksum.crc32cBlocks(bytes, offset, header.payloadBlocks, this.#crcs, 0)
    let payload = 0
    for (let r = 0; r < header.recordCount; r++) {
      const operation = header.recordOp(r)
      if (operation !== op.WRITE && operation !== op.RELOCATE) continue
      for (let i = 0; i < header.recordBlocks(r); i++, payload++) {
        if (this.#crcs[payload] === header.words[header.crcWord + payload]) continue
        const at = lsn(header.lsn + 1 + payload)
        if (unreadable.has(geometry.indexOf(at))) this.#unreadable.add(at)
        this.#bad.push({ kind: 'payload', lsn: at, blockCount: 1, logicalBlock: header.recordLogical(r) + i })
      }
    }
  }

  /** The chain ended: look behind the end for stale batches, and for proof that it was no torn tail. */
  #tail(segment: Segment | undefined): void {
    const core = this.#core
    const { clean, durableLsn, cutTo } = core.meta.value
    if (clean && cutTo === undefined && core.appendedLsn >= durableLsn) return this.#decide()
    const later = core.segments.numbers.filter(
      (number) => number * core.geometry.segmentBlocks > core.appendedLsn,
    )
    if (segment === undefined) this.#look(later)
    else this.#lookAtEnd(segment, () => this.#look([segment.number, ...later]))
  }

  /** A last batch whose header is damaged leaves nothing behind it that could be found: it is known by what is left. */
  #lookAtEnd(segment: Segment, next: () => void): void {
    const core = this.#core
    const { geometry, segments, lastHeaderCrc: previousHeaderCrc } = core
    const place = { lsn: core.appendedLsn, seed: geometry.seed, previousHeaderCrc }
    const block = new Uint8Array(BLOCK_BYTES)
    segments.open(segment, (error, file) => {
      if (file === undefined) return this.#fail(error)
      file.read(block, 0, BLOCK_BYTES, geometry.indexOf(place.lsn) * BLOCK_BYTES, (readError) => {
        if (readError !== undefined && !this.#pastUnreadable) return this.#fail({ kind: 'unreadable', message: readError.message })
        if (readError === undefined && wasHeader(block, place)) this.#foundBehind(place.lsn)
        if (readError !== undefined && place.lsn < this.#endsBelow) this.#unreadableEnd = place.lsn + 1
        next()
      })
    })
  }

  #look(numbers: number[]): void {
    const core = this.#core
    const { geometry, segments } = core
    const number = numbers.shift()
    const segment = number === undefined ? undefined : segments.get(number)
    if (segment === undefined) return this.#decide()
    segments.open(segment, (error, file) => {
      if (file === undefined) return this.#fail(error)
      const baseLsn = segment.number * geometry.segmentBlocks
      const fromIndex = Math.max(0, core.appendedLsn - baseLsn)
      const range = { file, baseLsn, fromIndex, endIndex: geometry.segmentBlocks, seed: geometry.seed }
      new BatchScan(core.checksum, { ...range, payload: false, resync: true, pastUnreadable: this.#pastUnreadable }, {
        // It may have been what proves more; it is left as it is.
        unreadable: () => {
          this.#wholeBehind = true
        },
        batch: (header) => {
          this.#foundBehind(header.lsn)
          if (header.epoch >= core.epochs.last) this.#proof(header)
          return true
        },
        end: (scanError) => {
          if (scanError !== undefined) return this.#fail({ kind: 'unreadable', message: scanError.message })
          this.#look(numbers)
        },
      }).run()
    })
  }

  /** Behind where the chain ends, a header or what is left of one. */
  #foundBehind(at: number): void {
    this.#stale.push(at)
    this.#wholeBehind = true
  }

  #decide(): void {
    const core = this.#core
    // What was never proven durable and is wrong was torn by the stop: the log ends before it.
    const torn = this.#bad.find(({ kind, lsn: at }) => {
      return kind === 'payload' && at >= this.#provenLsn && !this.#unreadable.has(at)
    })
    if (torn !== undefined) {
      let batches = 0
      while (core.pending.tailLsn() >= 0 && core.appendedLsn > torn.lsn) {
        this.#stale.push(core.pending.tailLsn())
        core.cutPending(core.pending.tailLsn())
        batches++
      }
      this.#wholeBehind ||= batches > 0
      this.#bad = this.#bad.filter((range) => range.lsn < core.appendedLsn || range.kind !== 'payload')
    }
    core.commitTo(Math.max(this.#committedSeen, core.committedLsn))
    // A batch that was torn is cut with what follows, readable or not.
    const below = torn === undefined ? Math.max(this.#provenLsn, this.#unreadableEnd) : this.#provenLsn
    if (core.appendedLsn < below) return this.#damaged(below)
    // The first header of a cut tail may look wiped and not be so on the disk, for the same reason.
    if (core.meta.value.cutTo !== undefined) this.#stale.push(core.appendedLsn)
    if (this.#stale.length > 0) this.#cutAt = core.appendedLsn
    // This copy may have acknowledged what goes with the tail, and must not pass for complete (I5, I9).
    core.suspect ||= this.#wholeBehind
    this.#remember(() => this.#wipe(core.appendedLsn))
  }

  /** Before what makes it suspect is wiped: the next start, after a stop or an error in between, would not know. */
  #remember(next: () => void): void {
    const { meta, suspect, appendedLsn } = this.#core
    if (this.#stale.length === 0) return next()
    meta.value.suspect = suspect
    // The headers that prove it may be among what is wiped, too.
    meta.value.durableLsn = Math.max(meta.value.durableLsn, Math.min(this.#durableSeen, appendedLsn))
    meta.save((error) => (error === undefined ? next() : this.#fail(error)))
  }

  #damaged(below: number): void {
    const core = this.#core
    core.state = 'damaged'
    core.damagedBelowLsn = lsn(below)
    // Healed up to there it is readable, but it may have reached further than what is proven (I5).
    core.suspect = true
    const { cutTo } = core.meta.value
    if (core.appendedLsn < below && this.#bad.every((range) => range.kind !== 'checkpoint')) {
      const blockCount = below - core.appendedLsn
      this.#bad.push({ kind: 'header', lsn: core.appendedLsn, blockCount, logicalBlock: -1 })
    }
    if (cutTo === undefined) return this.#settle()
    // A cut that was begun is finished all the same: healed, the log would go on with what it took away.
    this.#stale = [...this.#stale.filter((at) => at >= cutTo), cutTo]
    this.#wipe(lsn(cutTo))
  }

  /** Makes sure that nothing of the tail that is cut at `from` can be taken for a continuation later. */
  #wipe(from: Lsn): void {
    const core = this.#core
    const { segments, geometry } = core
    for (const number of segments.numbers) {
      const segment = segments.get(number)
      const behind = number * geometry.segmentBlocks > from
      // Never reused: what lies in it is at its right place for this number.
      if (segment !== undefined && behind) segments.free(segment, false)
    }
    let open = 1
    let failure: DiskError | undefined
    const step = (error: DiskError | undefined): void => {
      if (error !== undefined) failure ??= error
      open--
      if (open > 0) return
      if (failure !== undefined) this.#fail(failure)
      else this.#settle()
    }
    for (const position of this.#stale) {
      const segment = segments.get(geometry.segmentOf(position))
      const file = segment?.file
      if (file === undefined) continue
      open++
      if (file.write([ZERO_BLOCK], geometry.indexOf(position) * BLOCK_BYTES, step)) step(undefined)
      if (segment !== undefined && !this.#replayed.includes(segment)) this.#replayed.push(segment)
    }
    step(undefined)
  }

  /** What was replayed may lie in the page cache only: make it durable, so that the state is known. */
  #settle(): void {
    const core = this.#core
    let open = 1
    let failure: DiskError | undefined
    const step = (error: DiskError | undefined): void => {
      if (error !== undefined) failure ??= error
      open--
      if (open > 0) return
      if (failure !== undefined) this.#fail(failure)
      else this.#finish()
    }
    // A cut that was begun under the mark of a clean stop has been finished here.
    if (!core.meta.value.clean || core.meta.value.cutTo !== undefined) {
      for (const segment of this.#replayed) {
        if (segment.file === undefined) continue
        open++
        segment.file.datasync(step)
      }
    }
    step(undefined)
  }

  #finish(): void {
    const core = this.#core
    const durableLsn = Math.max(core.meta.value.durableLsn, core.lastCheckpoint?.lsn ?? 0)
    core.durableLsn = this.#softLsn === 0 ? core.writtenLsn : lsn(Math.min(durableLsn, core.writtenLsn))
    core.damage = this.#bad
    // An idle volume keeps no file open.
    for (const segment of core.segments.all) core.segments.closeFile(segment)
    const report: RecoveryReport = {
      created: false,
      checkpointLsn: core.lastCheckpoint?.lsn ?? lsn(0),
      replayedBatches: this.#batches,
      cutAtLsn: this.#cutAt === undefined ? undefined : lsn(this.#cutAt),
      damage: this.#bad,
      suspect: core.suspect,
      rebuilding: false,
      soft: this.#softLsn > 0,
    }
    const meta = core.meta.value
    if (meta.clean && meta.cutTo === undefined && core.state === 'ok') {
      return core.scheduler.soon(() => this.#done(undefined, report))
    }
    meta.clean = false
    meta.cutTo = undefined
    meta.suspect = core.suspect
    meta.bootId = core.options.bootId
    meta.durableLsn = Math.max(core.durableLsn, core.state === 'damaged' ? this.#provenLsn : 0)
    core.meta.save((error) => (error === undefined ? this.#done(undefined, report) : this.#fail(error)))
  }

  #fail(error: DiskError | LogOpenError | undefined): void {
    const kind = error?.kind === 'unreadable' ? error.kind : 'io'
    this.#done({ kind, message: error?.message ?? 'segment could not be opened' }, undefined)
  }
}
