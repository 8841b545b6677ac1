/**
 * Random operations against a plain array, with crashes. The history is the list of batches with the LSN each ends
 * at; at any time the map must equal what the committed ones make, and after a crash the log must be a prefix that
 * holds at least what was flushed.
 */
import { epoch, lsn, sessionId } from '@holdfast/base'
import { describe, expect, it } from 'vitest'
import { BLOCK, Harness } from './testing/harness.ts'
import { SeededRandom } from './testing/manual-scheduler.ts'

const BLOCKS = 48
const FIRST_SEED = 1
const CASES = 260

interface Change {
  readonly block: number
  /** 0: zeroed. */
  readonly fills: readonly number[]
}
interface Step {
  readonly endLsn: number
  readonly changes: readonly Change[]
  readonly seq: number
}

class Model {
  readonly random: SeededRandom
  readonly harness: Harness
  readonly counts = { torn: 0, truncated: 0, relocated: 0, hostCrashes: 0, checkpoints: 0, soft: 0, softLost: 0 }
  #history: Step[] = []
  #seq = 0
  #fill = 0
  readonly #lazy: boolean

  constructor(seed: number) {
    this.random = new SeededRandom(seed)
    this.#lazy = this.random.chance(60)
    const segmentBlocks = [16, 32, 64][this.random.below(3)] ?? 16
    this.harness = new Harness({
      seed,
      segmentBlocks,
      sizeBlocks: BLOCKS,
      immediatePercent: [0, 50, 100][this.random.below(3)] ?? 50,
      crcBytes: segmentBlocks * 4 * 3,
      settings: {
        checkpointBytesMin: 120 * BLOCK,
        deadSegmentsMax: 2,
        softDeadSegmentsMin: this.random.below(3),
        softRoundsMax: this.#lazy ? 30 : 1 + this.random.below(12),
        softBytesMax: 10 ** (1 + this.random.below(3)) * segmentBlocks * BLOCK,
        deadFreeShareMax: 0,
        compactionSlackSegments: 1,
        openFilesMax: 3,
        idleRounds: 1,
        mapWholePages: seed % 2,
      },
    }).open()
  }

  /** What the batches up to an LSN make of an empty volume. */
  contents(limit: number): Uint8Array {
    const blocks = new Uint8Array(BLOCKS)
    for (const { endLsn, changes } of this.#history) {
      if (endLsn > limit) break
      for (const { block, fills } of changes) fills.forEach((fill, i) => (blocks[block + i] = fill))
    }
    return blocks
  }

  step(): void {
    const roll = this.random.below(100)
    const { harness } = this
    if (roll < 55) this.#append()
    else if (roll < 72) harness.log.commitTo(this.#somewhere())
    else if (roll < 78) this.#seldom(() => harness.flush())
    else if (roll < 84) harness.log.maintenance()
    else if (roll < 86) this.#seldom(() => this.#checkpoint())
    else if (roll < 92) this.#relocate()
    else if (roll < 94) this.#truncate()
    else if (roll < 95) this.#closeAndOpen()
    else if (roll < 97) this.#crash(100)
    else if (roll < 98) this.#crash(this.random.below(100))
    else this.check()
    this.#checkOne()
  }

  check(): void {
    const expected = this.contents(this.harness.log.committedLsn)
    const bytes = this.harness.read(0, BLOCKS * BLOCK)
    for (let i = 0; i < bytes.length; i += 512) {
      if (bytes[i] !== expected[Math.floor(i / BLOCK)]) {
        expect({ block: Math.floor(i / BLOCK), found: bytes[i] }).toEqual({
          block: Math.floor(i / BLOCK),
          found: expected[Math.floor(i / BLOCK)],
        })
      }
    }
    const mapped = expected.filter((fill) => fill !== 0).length
    expect(this.harness.log.mappedBlocks).toBe(mapped)
    const holes = this.harness.log.blockStatus(100, BLOCKS * BLOCK - 100, 1000)
    expect(holes.reduce((sum, extent) => sum + extent.lengthBytes, 0)).toBe(BLOCKS * BLOCK - 100)
  }

  /** What makes the log durable comes often or hardly ever: only then soft checkpoints have their day. */
  #seldom(task: () => void): void {
    if (!this.#lazy || this.random.chance(10)) task()
  }

  #somewhere(): ReturnType<typeof lsn> {
    const { committedLsn, appendedLsn } = this.harness.log
    return lsn(committedLsn + this.random.below(appendedLsn - committedLsn + 1))
  }

  #append(): void {
    const h = this.harness
    const batches = 1 + this.random.below(3)
    let open = batches
    for (let b = 0; b < batches; b++) {
      const changes: Change[] = []
      h.room(14)
      const batch = h.log.newBatch(14)
      const seq = ++this.#seq
      for (let r = 1 + this.random.below(4); r > 0; r--) {
        const block = this.random.below(BLOCKS)
        const count = Math.min(1 + this.random.below(4), BLOCKS - block)
        if (!batch.fits(1, count)) break
        if (this.random.chance(15)) {
          batch.addZero(sessionId(9), seq, block, count)
          changes.push({ block, fills: new Array<number>(count).fill(0) })
          continue
        }
        const at = batch.addWrite(sessionId(9), seq, block, count)
        const fills: number[] = []
        for (let i = 0; i < count; i++) {
          this.#fill = (this.#fill % 250) + 1
          fills.push(this.#fill)
          batch.buffer.fill(this.#fill, at + i * BLOCK, at + (i + 1) * BLOCK)
        }
        changes.push({ block, fills })
      }
      h.log.seal(batch, h.epoch)
      this.#history.push({ endLsn: batch.endLsn, changes, seq })
      this.#checkLatest()
      if (h.log.append(batch, () => open--)) open--
      batch.release()
    }
    // Some crashes and reads come while writes are under way.
    if (!this.random.chance(10)) h.scheduler.run(() => open === 0)
  }

  #checkLatest(): void {
    const block = this.random.below(BLOCKS)
    const target = new Uint8Array(BLOCK)
    const { log } = this.harness
    if (!log.readLatest(block, target, 0)) {
      const [error] = this.harness.wait<[unknown]>((done) => {
        log.readLatestAsync(block, target, 0, done)
      })
      expect(error).toBeUndefined()
    }
    const expected = this.contents(log.appendedLsn)[block]
    expect([target[0], target[BLOCK - 1]]).toEqual([expected, expected])
  }

  #checkOne(): void {
    const offset = this.random.below(BLOCKS * BLOCK - 1)
    const length = 1 + this.random.below(Math.min(3 * BLOCK, BLOCKS * BLOCK - offset))
    const expected = this.contents(this.harness.log.committedLsn)
    const bytes = this.harness.read(offset, length)
    for (const i of [0, length >> 1, length - 1]) {
      expect(bytes[i]).toBe(expected[Math.floor((offset + i) / BLOCK)])
    }
  }

  #checkpoint(): void {
    this.harness.wait<unknown[]>((done) => this.harness.log.checkpointNow(done))
    this.counts.checkpoints++
  }

  #relocate(): void {
    const h = this.harness
    if (h.log.writtenLsn !== h.log.appendedLsn) return
    const plan = h.log.compactionWork(12)
    if (plan === undefined) return h.scheduler.run()
    h.room(12)
    const batch = h.log.newBatch(12)
    for (const run of plan.runs) {
      const target = new Uint8Array(run.blockCount * BLOCK)
      const [error] = h.wait<[unknown]>((done) => {
        h.log.readBlockAt(run.oldLsn, run.blockCount, target, done)
      })
      expect(error).toBeUndefined()
      const atOnce = new Uint8Array(target.length)
      if (h.log.tryReadBlockAt(run.oldLsn, run.blockCount, atOnce)) expect(Buffer.compare(atOnce, target)).toBe(0)
      batch.buffer.set(target, batch.addRelocate(run.logicalBlock, run.blockCount, run.oldLsn))
    }
    h.log.seal(batch, h.epoch)
    this.#history.push({ endLsn: batch.endLsn, changes: [], seq: 0 })
    let written = false
    written = h.log.append(batch, () => (written = true))
    h.scheduler.run(() => written)
    batch.release()
    this.counts.relocated += plan.blockCount
  }

  #truncate(): void {
    const h = this.harness
    const starts = [h.log.committedLsn as number, ...this.#history.map((step) => step.endLsn)]
    const cuts = starts.filter((at) => at >= h.log.committedLsn && at <= h.log.appendedLsn)
    const to = cuts[this.random.below(cuts.length)] ?? h.log.appendedLsn
    const [error] = h.wait<[unknown]>((done) => h.log.truncateTo(lsn(to), done))
    expect(error).toBeUndefined()
    this.#cut(to)
    h.epoch = epoch(h.epoch + 1)
    this.counts.truncated++
  }

  #closeAndOpen(): void {
    this.harness.scheduler.run()
    const { appendedLsn } = this.harness.log
    this.harness.reopen()
    expect(this.harness.log.appendedLsn).toBe(appendedLsn)
    this.#afterOpen()
  }

  #crash(keep: number): void {
    const h = this.harness
    let keepPercent = keep
    const { durableLsn, committedLsn, writtenLsn } = h.log
    const softly = h.disk.paths().some((path) => path.includes('/soft-'))
    h.crash(keepPercent)
    if (this.random.chance(20)) {
      // A second crash in the middle of recovery.
      h.openHalfway(this.random.below(60))
      const second = this.random.chance(50) ? 100 : this.random.below(100)
      h.crash(second)
      keepPercent = Math.min(keepPercent, second)
    }
    h.open()
    expect(h.report?.damage).toEqual([])
    expect(h.log.state).toBe('ok')
    expect(h.log.appendedLsn).toBeGreaterThanOrEqual(keepPercent === 100 ? writtenLsn : durableLsn)
    expect(h.log.committedLsn).toBeLessThanOrEqual(committedLsn)
    if (h.report?.cutAtLsn !== undefined) this.counts.torn++
    if (keepPercent < 100) this.counts.hostCrashes++
    if (h.report?.soft === true) this.counts.soft++
    if (softly && keepPercent < 100) this.counts.softLost++
    // Nothing of it is believed twice, and none is left to be believed by mistake.
    expect(h.disk.paths().filter((path) => path.includes('/soft-'))).toEqual([])
    this.#afterOpen()
  }

  #afterOpen(): void {
    const { log } = this.harness
    this.#cut(log.appendedLsn)
    this.harness.epoch = epoch(Math.max(this.harness.epoch + 1, log.lastEpoch))
    this.check()
  }

  #cut(to: number): void {
    const lost = this.#history.filter((step) => step.endLsn > to)
    this.#history = this.#history.filter((step) => step.endLsn <= to)
    const { log } = this.harness
    for (const { seq } of lost) {
      if (seq > 0) expect(log.isApplied(sessionId(9), seq)).toBeUndefined()
    }
    for (const { seq, endLsn } of this.#history.slice(-20)) {
      const known = log.isApplied(sessionId(9), seq)
      if (seq > 0 && known !== undefined && known !== 0) expect(known).toBe(endLsn)
      if (seq > 0) expect(known).toBeDefined()
    }
  }
}

describe('random operations against a plain array', () => {
  it('keeps every flushed batch and shows exactly the committed ones', () => {
    const total = { torn: 0, truncated: 0, relocated: 0, hostCrashes: 0, checkpoints: 0, soft: 0, softLost: 0 }
    for (let seed = FIRST_SEED; seed < FIRST_SEED + CASES; seed++) {
      const model = new Model(seed)
      try {
        for (let i = 0; i < 90; i++) model.step()
        model.harness.scheduler.run()
        model.check()
      } catch (error) {
        throw new Error(`seed ${seed} failed`, { cause: error })
      }
      for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += model.counts[key]
    }
    // A run that never met the rare cases proves nothing.
    expect(total.torn).toBeGreaterThan(20)
    expect(total.truncated).toBeGreaterThan(100)
    expect(total.relocated).toBeGreaterThan(50)
    expect(total.hostCrashes).toBeGreaterThan(50)
    expect(total.soft).toBeGreaterThan(20)
    expect(total.softLost).toBeGreaterThan(10)
  })
})
