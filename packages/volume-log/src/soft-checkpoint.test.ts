/** Decision 20: what a log that overwrites itself may use again before it was ever durable, and what that costs. */
import { describe, expect, it } from 'vitest'
import { BLOCK, Harness, type HarnessOptions } from './testing/harness.ts'

const SEGMENT = 16
const SETTINGS = {
  checkpointBytesMin: 1000 * SEGMENT * BLOCK,
  deadSegmentsMax: 1000,
  softDeadSegmentsMin: 2,
  softBytesMax: 1000 * SEGMENT * BLOCK,
}

const softFiles = (h: Harness): string[] => h.disk.paths().filter((path) => path.includes('/soft-'))
const checkpoints = (h: Harness): string[] => h.disk.paths().filter((path) => path.includes('/checkpoint-'))

/** A log with a durable checkpoint, flushed. */
function prepared(options: HarnessOptions = {}): Harness {
  const h = new Harness({ segmentBlocks: SEGMENT, ...options, settings: { ...SETTINGS, ...options.settings } }).open()
  for (let i = 0; i < 12; i++) h.write([i, 1])
  h.commit()
  h.wait<unknown[]>((done) => h.log.checkpointNow(done))
  return h
}

/** Overwrites the same blocks until segments were used again. */
function overwrite(h: Harness, fill: number, batches = 120): void {
  for (let i = 0; i < batches; i++) {
    h.write([i % 12, fill])
    h.commit()
    h.scheduler.run()
  }
}

describe('soft checkpoints', () => {
  it('let a log that nobody flushes use its segments again without a datasync of the log', () => {
    const h = prepared()
    const durable = h.log.durableLsn
    overwrite(h, 2)
    expect(softFiles(h)).toHaveLength(1)
    expect(checkpoints(h)).toHaveLength(1)
    expect(h.log.durableLsn).toBe(durable)
    // Those made ready ahead among them; without reuse there would be 17 and more.
    expect(h.log.segmentCount).toBeLessThan(14)
  })

  it('are kept where the disk does not give them for a moment', () => {
    const h = prepared()
    overwrite(h, 2)
    h.crash(100)
    const files = softFiles(h)
    h.disk.failWhole = '/soft-'
    expect(() => h.open()).toThrow('can not be read')
    expect(softFiles(h)).toEqual(files)
    h.disk.failWhole = undefined
    h.open()
    expect(h.report).toMatchObject({ soft: true, damage: [], suspect: false })
    h.commit()
    for (let i = 0; i < 12; i++) expect(h.fill(i)).toBe(2)
  })

  it('lose nothing when the process ends', () => {
    const h = prepared()
    overwrite(h, 2)
    h.write([3, 9])
    const end = h.log.appendedLsn
    h.crash(100)
    h.open()
    expect(h.report).toMatchObject({ soft: true, damage: [], suspect: false })
    expect(h.log.appendedLsn).toBe(end)
    h.commit()
    for (let i = 0; i < 12; i++) expect(h.fill(i)).toBe(i === 3 ? 9 : 2)
    // All that was found is durable now, behind a durable checkpoint.
    expect(softFiles(h)).toEqual([])
    expect(h.log.durableLsn).toBe(end)
    h.crash(0)
    h.open()
    expect(h.log.appendedLsn).toBe(end)
    h.commit()
    expect(h.fill(4)).toBe(2)
  })

  it('are not believed when the host has lost its page cache, and what was flushed is there', () => {
    const h = prepared()
    const durable = h.log.durableLsn
    overwrite(h, 2)
    h.crash(50)
    h.open()
    expect(h.report).toMatchObject({ soft: false, damage: [], suspect: true })
    expect(h.log.state).toBe('ok')
    expect(h.log.appendedLsn).toBeGreaterThanOrEqual(durable)
    expect(softFiles(h)).toEqual([])
  })

  it('of an earlier boot are not believed either when the mark of a clean stop lies between', () => {
    const h = prepared()
    overwrite(h, 2)
    const [path] = softFiles(h)
    const bytes = h.disk.bytesOf(path ?? '')?.slice()
    h.close()
    h.open()
    overwrite(h, 3, 1)
    const inode = h.disk.bytesOf(path ?? '')
    expect(inode).toBeUndefined()
    h.wait<unknown[]>((done) => h.disk.writeAtomic(path ?? '', [bytes ?? new Uint8Array(0)], done))
    h.crash(100)
    h.open()
    expect(h.report).toMatchObject({ soft: false, damage: [] })
    h.commit()
    expect(h.fill(0)).toBe(3)
  })

  it('are followed by a durable one before a flush says anything', () => {
    const h = prepared()
    overwrite(h, 2)
    const end = h.log.appendedLsn
    const before = checkpoints(h)
    expect(h.flush()).toBe(end)
    expect(checkpoints(h)).not.toEqual(before)
    expect(softFiles(h)).toEqual([])
    h.crash(0)
    h.open()
    expect(h.log.appendedLsn).toBe(end)
    h.commit()
    for (let i = 0; i < 12; i++) expect(h.fill(i)).toBe(2)
  })

  it('cost only the first flush a checkpoint', () => {
    const h = prepared()
    overwrite(h, 2)
    h.flush()
    const after = checkpoints(h)
    h.write([1, 3])
    h.commit()
    h.flush()
    expect(checkpoints(h)).toEqual(after)
  })

  it('answers flushes that come while a durable checkpoint is made, all of them', () => {
    const h = prepared()
    overwrite(h, 2)
    let answered = 0
    for (let i = 0; i < 5; i++) {
      h.log.flush((error) => {
        expect(error).toBeUndefined()
        answered++
      })
      h.write([i, 4])
      h.commit()
    }
    h.scheduler.run(() => answered === 5)
    expect(answered).toBe(5)
    const durable = h.log.durableLsn
    h.crash(0)
    h.open()
    expect(h.log.appendedLsn).toBeGreaterThanOrEqual(durable)
  })

  it('never free what a flush has made durable, nor what the durable checkpoint needs', () => {
    const h = prepared()
    overwrite(h, 2, 40)
    h.flush()
    const durable = h.log.durableLsn
    overwrite(h, 3, 120)
    expect(softFiles(h)).toHaveLength(1)
    h.crash(0)
    h.open()
    expect(h.report?.damage).toEqual([])
    expect(h.log.state).toBe('ok')
    expect(h.log.appendedLsn).toBeGreaterThanOrEqual(durable)
  })

  it('give way to a durable one after so many rounds', () => {
    const h = prepared({ settings: { softRoundsMax: 2, deadSegmentsMax: 2 } })
    const before = checkpoints(h)
    for (let i = 0; i < 5; i++) {
      overwrite(h, 2 + i, 60)
      h.upkeep(1)
    }
    expect(checkpoints(h)).not.toEqual(before)
  })

  it('serve a stream that begins after a long rest: the durable one is as new as the log then', () => {
    const h = prepared({ settings: { softRoundsMax: 2, deadSegmentsMax: 2, checkpointBytesMin: 2 * SEGMENT * BLOCK } })
    const before = checkpoints(h)
    h.upkeep(10)
    overwrite(h, 2, 60)
    h.upkeep(1)
    expect(softFiles(h)).toHaveLength(1)
    expect(checkpoints(h)).toEqual(before)
  })

  it.each([
    ['has', 1 / 16, 1],
    ['lacks', 0, 2],
  ])('leave what only a durable one frees alone while the disk %s the space for it', (_, deadFreeShareMax, durableOnes) => {
    const settings = { softBytesMax: 3 * SEGMENT * BLOCK, deadSegmentsMax: 2, deadFreeShareMax, softDeadSegmentsMin: 100 }
    const h = prepared({ settings })
    const made = new Set(checkpoints(h))
    for (let i = 0; i < 12; i++) {
      // Durable, so that its segments are not freed softly once they are dead.
      for (let block = 0; block < 12; block++) h.write([block, 2 + i])
      h.commit()
      if (i === 6) h.flush()
      h.upkeep(1)
      for (const path of checkpoints(h)) made.add(path)
    }
    expect(made.size).toBe(durableOnes)
  })

  it('come as soon as a log streams that was flushed after every write, which has durable ones', () => {
    const h = prepared({ settings: { deadSegmentsMax: 2 } })
    const flushed = (count: number): void => {
      for (let i = 0; i < count; i++) {
        overwrite(h, 2, 1)
        h.flush()
        if (i % 16 === 15) h.upkeep(1)
      }
    }
    const before = checkpoints(h)
    flushed(60)
    expect(checkpoints(h)).not.toEqual(before)
    expect(softFiles(h)).toEqual([])
    flushed(12)
    const durable = checkpoints(h)
    overwrite(h, 3, 40)
    h.upkeep(1)
    expect(softFiles(h)).toHaveLength(1)
    overwrite(h, 4, 40)
    h.upkeep(1)
    expect(checkpoints(h)).toEqual(durable)
  })

  it('only shorten recovery where all is live, and are a small part of what is written then', () => {
    const h = prepared({ settings: { checkpointBytesMin: SEGMENT * BLOCK, softDeadSegmentsMin: 1000 } })
    const [durable] = checkpoints(h)
    const bytes = h.disk.sizeOf(durable ?? '')
    expect(16 * bytes).toBeGreaterThan(2 * SEGMENT * BLOCK)
    const grow = (from: number, end: number): void => {
      for (let i = from; i < end; i++) {
        h.write([100 + i, 1])
        h.commit()
        h.scheduler.run()
      }
    }
    // Each write is a header and a block.
    const batches = Math.ceil((16 * bytes) / (2 * BLOCK))
    grow(0, batches - 1)
    expect(softFiles(h)).toEqual([])
    grow(batches, batches + SEGMENT)
    expect([softFiles(h).length, checkpoints(h)]).toEqual([1, [durable]])
  })

  it('whose file is damaged leave a log that says so, and does not pass for complete', () => {
    const h = prepared()
    overwrite(h, 2)
    const [path] = softFiles(h)
    h.crash(100)
    h.disk.flipBit(path ?? '', 2 * BLOCK + 5, 1)
    h.open()
    expect(h.log.state).toBe('damaged')
    expect(h.log.suspect).toBe(true)
  })

  it('show damage that lies below them', () => {
    const h = prepared()
    overwrite(h, 2)
    const at = Number(softFiles(h)[0]?.split('-').at(-1))
    h.crash(100)
    const number = Math.floor((at - 1) / SEGMENT)
    const index = (at - 1) % SEGMENT
    h.disk.flipBit(h.segmentFile(number), index * BLOCK + 100, 1)
    h.open()
    expect(h.report?.damage).toMatchObject([{ kind: 'payload', lsn: at - 1 }])
    expect(h.log.state).toBe('ok')
  })
})

describe('a segment that was freed', () => {
  it('stays a spare while the log is busy, and is given back when it has been quiet for long or space is short', () => {
    const spares = (h: Harness): number => h.disk.paths().filter((path) => path.includes('/spare-')).length
    const settings = { spareFilesMax: 1, spareBytesMax: 6 * SEGMENT * BLOCK, softDeadSegmentsMin: 0, idleRounds: 1 }
    const h = prepared({ settings })
    overwrite(h, 2)
    h.wait<unknown[]>((done) => h.log.checkpointNow(done))
    h.upkeep(15)
    expect(spares(h)).toBe(6)
    h.upkeep(10)
    expect(spares(h)).toBe(1)
    const full = prepared({ settings })
    overwrite(full, 2)
    full.wait<unknown[]>((done) => full.log.checkpointNow(done))
    full.disk.capacityBytes = 0
    full.upkeep(1)
    expect(spares(full)).toBe(1)
  })

  it('is not taken for its old self when a loss of power brings its name back', () => {
    const h = prepared()
    overwrite(h, 2)
    h.flush()
    const gone = h.log.fullSegmentsBelow(h.log.durableLsn).includes(1)
    expect(gone).toBe(false)
    const foreign = [new Uint8Array(SEGMENT * BLOCK).fill(7)]
    h.wait<unknown[]>((done) => h.disk.writeAtomic(`${h.path}/segment-000000000001`, foreign, done))
    h.crash(0)
    h.open()
    expect(h.log.fullSegmentsBelow(h.log.durableLsn)).not.toContain(1)
    expect(h.log.streamableFrom()).toBeGreaterThan(SEGMENT * 2)
  })
})

describe('soft checkpoints', () => {
  it('and a flush do not wait for each other, whatever is asked for while a durable one is written', () => {
    const h = prepared()
    overwrite(h, 2)
    expect(softFiles(h)).toHaveLength(1)
    const answers: string[] = []
    h.log.checkpointNow(() => answers.push('first checkpoint'))
    h.log.flush(() => answers.push('flush'))
    h.write([3, 9])
    h.commit()
    h.log.checkpointNow(() => answers.push('second checkpoint'))
    h.scheduler.run()
    expect(answers.sort()).toEqual(['first checkpoint', 'flush', 'second checkpoint'])
    expect(h.log.durableLsn).toBe(h.log.appendedLsn)
  })

  it('give back segments that are made ready again far ahead: a disk that opens nothing for a while is not felt', () => {
    const h = prepared({ settings: { softDeadSegmentsMin: 20, spareFilesMax: 40 } })
    overwrite(h, 2, 200)
    h.disk.open = () => undefined
    let batches = 0
    for (; h.log.canAppend(1) === 'yes'; batches++) {
      h.write([batches % 12, 3])
      h.commit()
    }
    // Of two blocks each.
    expect(batches).toBeGreaterThan((4 * SEGMENT) / 2)
  })

  it('leave no spare file behind that was of this boot when it is over', () => {
    // More than are made ready to be appended to.
    const h = prepared({ settings: { softDeadSegmentsMin: 20, spareFilesMax: 40 } })
    const spares = (): string[] => h.disk.paths().filter((path) => path.includes('/spare-'))
    for (let i = 0; i < 40 && spares().length === 0; i++) overwrite(h, 2, 10)
    expect(spares().length).toBeGreaterThan(0)
    h.crash(99)
    h.open()
    expect(spares()).toEqual([])
  })
})

describe('a pause between two bursts', () => {
  const burst = (h: Harness): void => {
    overwrite(h, 2)
    h.flush()
  }

  it('frees what only a durable checkpoint frees, for the next burst to write over', () => {
    const h = prepared({ settings: { softDeadSegmentsMin: 1000, deadSegmentsMax: 4, idleRounds: 100 } })
    const before = checkpoints(h)
    burst(h)
    // While it is written to, dead segments are no reason yet.
    for (let i = 0; i < 5; i++) {
      h.write([i, 3])
      h.commit()
      h.upkeep(1)
    }
    expect(checkpoints(h)).toEqual(before)
    const { segmentCount } = h.log
    // Others pause, too, and it is not this one's turn.
    h.log.maintenance(() => false)
    h.scheduler.run()
    expect(checkpoints(h)).toEqual(before)
    h.upkeep(1)
    expect(checkpoints(h)).not.toEqual(before)
    expect(h.log.segmentCount).toBeLessThanOrEqual(segmentCount - 4)
    h.upkeep(5)
    expect(checkpoints(h)).toHaveLength(1)
  })

  it('is no reason to write anything to the disk when little would come free, or what soft ones free anyway', () => {
    const few = prepared({ settings: { softDeadSegmentsMin: 1000, deadSegmentsMax: 40, idleRounds: 100 } })
    const [first] = checkpoints(few)
    burst(few)
    few.upkeep(5)
    expect(checkpoints(few)).toEqual([first])
    const soft = prepared({ settings: { softDeadSegmentsMin: 20, deadSegmentsMax: 4, idleRounds: 100 } })
    const [second] = checkpoints(soft)
    overwrite(soft, 2, 70)
    soft.upkeep(5)
    expect(checkpoints(soft)).toEqual([second])
  })
})
