import { epoch, lsn } from '@holdfast/base'
import type { Lsn } from '@holdfast/base'
import { describe, expect, it, vi } from 'vitest'
import { BlockMap } from './block-map.ts'
import type { RelocationPlan } from './compaction.ts'
import type { CheckpointInfo } from './log-core.ts'
import { BLOCK, Harness } from './testing/harness.ts'

const checkpoint = (h: Harness): CheckpointInfo => {
  const [error, info] = h.wait<[unknown, CheckpointInfo | undefined]>((done) => {
    h.log.checkpointNow(done)
  })
  if (info === undefined) throw new Error(JSON.stringify(error))
  return info
}

/** Does what the engine does with a plan. Returns the blocks moved. */
const relocate = (h: Harness, maxBlocks: number, plan = h.log.compactionWork(maxBlocks)): number => {
  if (plan === undefined) return 0
  h.room()
  const batch = h.log.newBatch(plan.blockCount)
  for (const run of plan.runs) {
    const at = batch.addRelocate(run.logicalBlock, run.blockCount, run.oldLsn)
    const target = new Uint8Array(run.blockCount * BLOCK)
    const [error] = h.wait<[unknown]>((done) => {
      h.log.readBlockAt(run.oldLsn, run.blockCount, target, done)
    })
    expect(error).toBeUndefined()
    batch.buffer.set(target, at)
  }
  h.log.seal(batch, h.epoch)
  let written = false
  written = h.log.append(batch, () => {
    written = true
  })
  h.scheduler.run(() => written)
  batch.release()
  h.commit()
  return plan.blockCount
}

describe('checkpoint and recovery', () => {
  it('recovers from a checkpoint and replays only what is behind it', () => {
    const h = new Harness({ segmentBlocks: 16 }).open()
    for (let i = 0; i < 30; i++) h.write([i, i + 1])
    h.commit()
    const info = checkpoint(h)
    expect(info.lsn).toBe(h.log.committedLsn)
    h.write([0, 99])
    h.commit()
    h.flush()
    h.crash(0)
    h.open()
    expect(h.report).toMatchObject({ checkpointLsn: info.lsn, replayedBatches: 1, damage: [] })
    h.commit()
    expect([0, 1, 29].map((block) => h.fill(block))).toEqual([99, 2, 30])
  })

  it('keeps the map right while a checkpoint is written', () => {
    const h = new Harness({ segmentBlocks: 16 }).open()
    for (let i = 0; i < 20; i++) h.write([i, 1])
    h.commit()
    const at = h.log.committedLsn
    let info: CheckpointInfo | undefined
    h.log.checkpointNow((_error, result) => {
      info = result
    })
    for (let i = 0; i < 20; i++) h.write([i, 2])
    h.commit()
    h.scheduler.run(() => info !== undefined)
    expect(info?.lsn).toBe(at)
    h.crash(100)
    h.open()
    h.commit()
    for (let i = 0; i < 20; i++) expect(h.fill(i)).toBe(2)
  })

  it('a clean stop needs no replay and does not write on the next open', () => {
    const h = new Harness().open()
    h.write([4, 4])
    h.commit()
    h.close()
    const before = h.disk.bytesOf(`${h.path}/meta`)?.slice()
    h.bootId = 'boot-2'
    h.open()
    expect(h.report).toMatchObject({ replayedBatches: 0, suspect: false })
    expect(h.disk.bytesOf(`${h.path}/meta`)).toEqual(before)
    expect(h.disk.openFiles).toBe(0)
    expect(h.fill(4)).toBe(4)
    h.write([5, 5])
    h.crash(0)
    h.open()
    expect(h.log.suspect).toBe(true)
  })

  it('is suspect also when the mark of the clean stop could not be taken away at the first attempt', () => {
    const h = new Harness().open()
    h.write([1, 1])
    h.commit()
    h.reopen()
    h.disk.failNext = 'save'
    h.write([5, 5])
    expect(h.disk.failNext).toBeUndefined()
    h.crash(0)
    h.open()
    expect(h.log.suspect).toBe(true)
  })

  it('stays suspect over a second crash until it is cleared', () => {
    const h = new Harness().open()
    h.write([1, 1])
    h.crash(50)
    h.open()
    h.crash(100)
    h.open()
    expect(h.log.suspect).toBe(true)
    h.log.clearSuspect()
    h.scheduler.run()
    h.crash(100)
    expect(h.open().log.suspect).toBe(false)
  })

  it('takes an older checkpoint when the newest is damaged, and says when there is none', () => {
    const h = new Harness({ segmentBlocks: 16 }).open()
    for (let round = 0; round < 4; round++) for (let i = 0; i < 10; i++) h.write([i, round + 1])
    h.commit()
    const info = checkpoint(h)
    h.close()
    expect(h.open().log.segmentCount).toBeLessThan(6)
    h.close()
    h.disk.flipBit(`${h.path}/checkpoint-${String(info.lsn).padStart(16, '0')}`, 5000, 3)
    h.open()
    expect(h.log.state).toBe('damaged')
    expect(h.report?.damage[0]?.kind).toBe('checkpoint')
  })
})

/** So much in one round that segments are made ready ahead. */
function writeQuickly(h: Harness): void {
  for (let i = 0; i < 60; i++) {
    h.write([i % 12, 1, 2, 3])
    h.scheduler.run()
  }
  h.commit()
}

describe('rest', () => {
  it('of a segment before its first flush does not forget that its name is not durable', () => {
    const h = new Harness({ segmentBlocks: 16, settings: { idleRounds: 1 } }).open()
    const opened: (readonly [string, number | undefined])[] = []
    const open = h.disk.open.bind(h.disk)
    h.disk.open = (path, options, done) => {
      opened.push([path.slice(h.path.length + 1), options.createBytes])
      open(path, options, done)
    }
    const rest = (): void => {
      for (let i = 0; i < 3; i++) h.log.maintenance()
      h.scheduler.run()
      expect(h.disk.openFiles).toBe(0)
    }
    h.room()
    rest()
    h.write([1, 1])
    h.flush()
    rest()
    h.write([2, 2])
    const name = 'segment-000000000000'
    expect(opened).toEqual([[name, 16 * BLOCK], [name, 16 * BLOCK], [name, undefined]])
  })

  it('marks an idle volume as cleanly stopped, and an append takes the mark away first', () => {
    const h = new Harness({ settings: { idleRounds: 1 } }).open()
    h.write([1, 1])
    h.commit()
    h.upkeep(10)
    expect(h.disk.openFiles).toBe(0)
    h.crash(0)
    h.open()
    expect(h.log.suspect).toBe(false)
    expect(h.report?.replayedBatches).toBe(0)
    expect(h.fill(1)).toBe(1)
    h.upkeep(10)
    h.write([2, 2])
    h.flush()
    h.crash(0)
    h.open()
    expect(h.log.suspect).toBe(true)
    h.commit()
    expect(h.fill(2)).toBe(2)
  })

  it('gives back memory of the map once the volume is at rest', () => {
    const trim = vi.spyOn(BlockMap.prototype, 'trim')
    const h = new Harness({ settings: { idleRounds: 1 } }).open()
    h.write([1, 1])
    h.commit()
    h.upkeep(3)
    expect(trim).not.toHaveBeenCalled()
    h.upkeep(10)
    expect(trim).toHaveBeenCalled()
    trim.mockRestore()
  })

  it('does not begin while a segment is opened for somebody who is about to append', () => {
    const h = new Harness({ settings: { idleRounds: 1 } }).open()
    h.write([1, 1])
    h.commit()
    h.flush()
    h.reopen()
    // The first append takes the mark away and goes no further; then the volume is all but due for its rest.
    expect(h.log.canAppend()).toBe('opening')
    h.scheduler.run()
    h.upkeep(4)
    expect(h.log.canAppend()).toBe('opening')
    for (let i = 0; i < 4; i++) h.log.maintenance()
    h.write([2, 2])
    h.flush()
    h.crash(0)
    h.open()
    expect(h.log.suspect).toBe(true)
  })

  it('gives back the room that was made ready ahead', () => {
    const h = new Harness({ segmentBlocks: 16, settings: { idleRounds: 1 } }).open()
    writeQuickly(h)
    const beyond = (): number => {
      const numbers = h.disk.paths().map((path) => Number(/segment-(\d+)$/.exec(path)?.[1] ?? -1))
      return numbers.filter((number) => number > h.log.appendedLsn / 16).length
    }
    expect(beyond()).toBeGreaterThan(2)
    h.upkeep(40)
    expect(beyond()).toBeLessThan(2)
    expect(h.write([1, 4])).toBeDefined()
    h.crash(0)
    h.open()
    expect(h.log.state).toBe('ok')
  })

  it('comes step by step, as its caller lets it', () => {
    const h = new Harness({ settings: { idleRounds: 1 } }).open()
    h.write([1, 1])
    h.commit()
    let asked = 0
    const rounds = (allow: boolean): void => {
      for (let i = 0; i < 10; i++) {
        h.log.maintenance(() => {
          asked++
          return allow
        })
        h.scheduler.run()
      }
    }
    rounds(false)
    expect([h.log.durableLsn, asked > 3]).toEqual([0, true])
    asked = 0
    rounds(true)
    expect([h.log.durableLsn, h.disk.openFiles, asked]).toEqual([h.log.appendedLsn, 0, 3])
  })

  it('leaves a segment open for a batch that was told that there is room, and no mark over it', () => {
    const h = new Harness({ settings: { idleRounds: 1 } }).open()
    h.write([1, 1])
    h.commit()
    h.flush()
    for (let rounds = 0; rounds < 8; rounds++) {
      h.upkeep(rounds)
      h.room()
      h.upkeep(1)
      expect(h.log.canAppend(32)).toBe('yes')
    }
    h.log.maintenance()
    h.scheduler.run()
    h.write([2, 2])
    h.flush()
    h.crash(0)
    h.open()
    expect(h.log.suspect).toBe(true)
    h.commit()
    expect(h.fill(2)).toBe(2)
  })

  it('notes the durable LSN of a secondary, so that damage is not taken for a torn tail', () => {
    const a = new Harness({ segmentBlocks: 16 }).open()
    const b = new Harness({ segmentBlocks: 16, seed: 2 }).open()
    b.bootId = 'another'
    b.crash(100)
    b.open()
    for (let i = 0; i < 12; i++) a.write([i, i + 1])
    a.commit()
    b.catchUpFrom(a)
    b.flush()
    b.log.maintenance()
    b.scheduler.run()
    b.crash(100)
    b.disk.flipBit(`${b.path}/segment-000000000001`, 4 * BLOCK + 30, 1)
    b.open()
    expect(b.log.state).toBe('damaged')
    expect(b.log.damagedBelowLsn).toBe(24)
  })
})

/** The next piece of work once whatever it takes has been read. */
const nextPlan = (h: Harness, maxBlocks: number): RelocationPlan | undefined => {
  for (let i = 0; i < 20; i++) {
    const plan = h.log.compactionWork(maxBlocks)
    if (plan !== undefined) return plan
    h.scheduler.run()
  }
  return undefined
}

const blocksOf = (plan: RelocationPlan | undefined): unknown =>
  plan?.runs.flatMap(({ logicalBlock, blockCount, oldLsn }) =>
    Array.from({ length: blockCount }, (_, i) => [logicalBlock + i, oldLsn + i]),
  )

describe('compaction', () => {
  it.each([1 << 20, 300, 0])('keeps the log bounded under random overwrite and loses nothing (%d bytes of summaries)', (summaryBytes) => {
    const settings = { checkpointBytesMin: 200 * BLOCK, deadSegmentsMax: 3, compactionSlackSegments: 2 }
    const h = new Harness({ segmentBlocks: 16, settings, crcBytes: 300, summaryBytes }).open()
    const model = new Uint8Array(64)
    let seed = 5
    let moved = 0
    for (let i = 0; i < 700; i++) {
      seed = (seed * 1103515245 + 12345) % 2 ** 31
      const block = Math.floor(seed / 65536) % 64
      model[block] = 1 + (i % 250)
      h.write([block, 1 + (i % 250)])
      h.commit()
      if (i % 4 === 0) h.log.maintenance()
      moved += relocate(h, 8)
      expect(h.log.segmentCount).toBeLessThan(40)
    }
    expect(moved).toBeGreaterThan(20)
    for (let block = 0; block < 64; block++) expect(h.fill(block)).toBe(model[block])
    h.crash(0)
    h.open()
    expect(h.report?.damage).toEqual([])
    for (let block = 0; block < 64; block++) {
      const known = h.fill(block)
      expect(known === 0 && model[block] !== 0).toBe(false)
    }
  })

  it('finds by summaries what it finds by headers', () => {
    const settings = { compactionSlackSegments: 0, checkpointBytesMin: 400 * BLOCK, deadSegmentsMax: 3 }
    const logs = [1 << 20, 0].map((summaryBytes) => new Harness({ segmentBlocks: 16, settings, summaryBytes }).open())
    let seed = 11
    const random = (below: number): number => {
      seed = (seed * 1103515245 + 12345) % 2 ** 31
      return Math.floor(seed / 65536) % below
    }
    let blocks = 0
    for (let i = 0; i < 500; i++) {
      const first = random(60)
      const fills = Array.from({ length: 1 + random(4) }, () => 1 + random(250))
      const second = random(60)
      const lost = random(20) === 0 ? random(60) : undefined
      for (const h of logs) {
        if (lost !== undefined) {
          // What was never committed is gone, and others come to lie there.
          const from = h.write([lost, 9, 9]).lsn
          expect(h.wait<[unknown]>((done) => h.log.truncateTo(from, done))[0]).toBeUndefined()
        }
        h.write([first, ...fills], [second, i % 250])
        h.commit()
        if (i % 5 === 0) h.upkeep(1)
        if (i === 250) h.reopen()
      }
      const [plan, byHeaders] = logs.map((h) => nextPlan(h, 6))
      // Blocks of two records may be one run of a summary.
      expect(blocksOf(plan)).toEqual(blocksOf(byHeaders))
      for (const h of logs) if (plan !== undefined) blocks += relocate(h, 6, plan)
    }
    expect(blocks).toBeGreaterThan(200)
  })

  it('reads nothing to find them where there is a summary', () => {
    const h = new Harness({ segmentBlocks: 16, settings: { compactionSlackSegments: 0 } }).open()
    for (let i = 0; i < 7; i++) h.write([i, i + 1])
    for (let round = 0; round < 6; round++) for (let i = 1; i < 7; i++) h.write([i, 50 + round])
    h.commit()
    h.scheduler.run()
    h.disk.failNext = 'read'
    expect(nextPlan(h, 8)?.runs).toEqual([{ logicalBlock: 0, blockCount: 1, oldLsn: 1 }])
    expect(h.disk.failNext).toBe('read')
  })

  it.each([
    [2 ** 32 - 2, 'read'],
    [2 ** 32 - 1, undefined],
    [2 ** 32 + 5, undefined],
  ] as const)('reads headers where a block lies beyond what a summary can say (%d)', (far, left) => {
    const h = new Harness({ segmentBlocks: 16, sizeBlocks: 2 ** 33, settings: { compactionSlackSegments: 0 } }).open()
    h.write([far, 1], [3, 2])
    for (let round = 0; round < 40; round++) h.write([7, 50 + round])
    h.commit()
    h.scheduler.run()
    h.disk.failNext = 'read'
    const plan = h.log.compactionWork(8) ?? h.log.compactionWork(8)
    expect(h.disk.failNext).toBe(left)
    if (left === undefined) return
    expect(plan?.runs).toEqual([
      { logicalBlock: far, blockCount: 1, oldLsn: 1 },
      { logicalBlock: 3, blockCount: 1, oldLsn: 2 },
    ])
  })

  it('finds by headers what lies beyond what a summary can say', () => {
    const far = 2 ** 32 + 5
    const h = new Harness({ segmentBlocks: 16, sizeBlocks: 2 ** 33, settings: { compactionSlackSegments: 0 } }).open()
    h.write([far, 1, 2], [3, 2])
    for (let round = 0; round < 40; round++) h.write([7, 50 + round])
    h.commit()
    expect(nextPlan(h, 8)?.runs).toEqual([
      { logicalBlock: far, blockCount: 2, oldLsn: 1 },
      { logicalBlock: 3, blockCount: 1, oldLsn: 3 },
    ])
  })

  it('of a copy that was a secondary until now needs to read nothing either', () => {
    const settings = { compactionSlackSegments: 0 }
    const [p, m] = [2, 3].map((seed) => new Harness({ seed, segmentBlocks: 16, settings }).open()) as [Harness, Harness]
    for (let i = 0; i < 7; i++) p.write([i, i + 1])
    for (let round = 0; round < 6; round++) for (let i = 1; i < 7; i++) p.write([i, 50 + round])
    p.commit()
    m.catchUpFrom(p)
    m.scheduler.run()
    m.disk.failNext = 'read'
    expect(nextPlan(m, 8)?.runs).toEqual([{ logicalBlock: 0, blockCount: 1, oldLsn: 1 }])
    expect(m.disk.failNext).toBe('read')
  })

  it('keeps no summary of a segment that is gone, nor of a log that is closed', () => {
    const settings = { checkpointBytesMin: 20 * BLOCK, deadSegmentsMax: 1 }
    const h = new Harness({ segmentBlocks: 16, settings }).open()
    for (let round = 0; round < 30; round++) {
      for (let i = 0; i < 8; i++) h.write([i, 1 + round])
      h.commit()
      h.upkeep(1)
    }
    expect(h.summaryCache.bytes).toBeGreaterThan(0)
    expect(h.summaryCache.bytes).toBeLessThanOrEqual(h.log.segmentCount * 16 * 4)
    h.close()
    expect(h.summaryCache.bytes).toBe(0)
  })

  it('is given at once what the page cache has, and is right', () => {
    const h = new Harness({ segmentBlocks: 16 }).open()
    for (let i = 0; i < 10; i++) h.write([i, 70 + i])
    h.commit()
    const target = new Uint8Array(BLOCK)
    const at = (position: number, count = 1): boolean => h.log.tryReadBlockAt(lsn(position), count, target)
    expect(at(1)).toBe(true)
    expect(target.every((byte) => byte === 70)).toBe(true)
    // The header before it, the space behind the end of the log and behind that of the segment.
    expect([at(0), at(h.log.appendedLsn), at(15, 2), at(16 * 9)]).toEqual([false, false, false, false])
    const path = `${h.path}/${h.disk.list(h.path).filter((name) => name.startsWith('seg')).sort()[0]}`
    h.disk.evict(path)
    expect(at(1)).toBe(false)
    expect(h.wait<[unknown]>((done) => h.log.readBlockAt(lsn(1), 1, target, done))[0]).toBeUndefined()
    expect(at(1)).toBe(true)
    h.disk.flipBit(path, BLOCK + 99, 3)
    expect(at(1)).toBe(false)
  })

  it('does not move a block that was written anew in between', () => {
    const settings = { compactionSlackSegments: 0 }
    const h = new Harness({ segmentBlocks: 16, settings }).open()
    for (let i = 0; i < 7; i++) h.write([i, i + 1])
    for (let round = 0; round < 6; round++) for (let i = 1; i < 7; i++) h.write([i, 50 + round])
    h.commit()
    let plan = h.log.compactionWork(8)
    for (let i = 0; i < 50 && plan === undefined; i++) {
      h.scheduler.run()
      plan = h.log.compactionWork(8)
    }
    expect(plan?.runs).toEqual([{ logicalBlock: 0, blockCount: 1, oldLsn: 1 }])
    h.write([0, 123])
    const batch = h.log.newBatch(1)
    const at = batch.addRelocate(0, 1, lsn(1))
    batch.buffer.fill(1, at, at + BLOCK)
    h.room()
    h.log.seal(batch, epoch(1))
    let written = h.log.append(batch, () => {
      written = true
    })
    h.scheduler.run(() => written)
    h.commit()
    expect(h.fill(0)).toBe(123)
  })

  it('frees nothing while pinned', () => {
    const h = new Harness({ segmentBlocks: 16 }).open()
    for (let i = 0; i < 40; i++) h.write([0, i])
    h.commit()
    const pin = h.log.pin()
    checkpoint(h)
    expect(h.log.streamableFrom()).toBe(0)
    pin.release()
    expect(h.log.streamableFrom()).toBeGreaterThan(0)
    expect(h.fill(0)).toBe(39)
    // Stale contents of recycled files are never taken for log.
    for (let i = 0; i < 40; i++) h.write([1, i])
    h.crash(100)
    h.open()
    expect(h.report?.damage).toEqual([])
    h.commit()
    expect(h.fill(1)).toBe(39)
  })
})

describe('disk full', () => {
  it('shows at the creation of a segment only, is clean and goes away', () => {
    const h = new Harness({ segmentBlocks: 16, capacityBytes: 40 * BLOCK }).open()
    let count = 0
    let state = 'yes'
    for (; count < 100; count++) {
      state = h.log.canAppend(1)
      while (state === 'opening') {
        h.wait<[]>((done) => h.log.onRoom(done))
        state = h.log.canAppend(1)
      }
      if (state === 'no-space') break
      h.write([count, count + 1])
    }
    expect(state).toBe('no-space')
    expect(count).toBe(16)
    expect(h.events.filter((event) => event.startsWith('no segment')).length).toBe(1)
    h.commit()
    expect(h.fill(15)).toBe(16)
    h.disk.capacityBytes = 400 * BLOCK
    h.scheduler.run()
    h.write([99, 99])
    h.commit()
    expect(h.fill(99)).toBe(99)
  })

  it('costs a checkpoint nothing as long as room is held that was made ready ahead', () => {
    const h = new Harness({ segmentBlocks: 16 }).open()
    writeQuickly(h)
    const { freeBytes } = h.disk.space()
    h.disk.capacityBytes -= freeBytes
    expect(checkpoint(h).lsn).toBe(h.log.appendedLsn)
    expect(h.disk.space().freeBytes).toBeGreaterThan(0)
  })

  it('keeps a reserve that only compaction and zeroes may use', () => {
    const settings = { reserveBytes: 20 * 16 * BLOCK }
    const h = new Harness({ segmentBlocks: 16, capacityBytes: 21 * 16 * BLOCK, settings }).open()
    expect(h.log.canAppend(1)).toBe('no-space')
    expect(h.log.canAppend(0, true)).toBe('opening')
  })

  it('is as good as a log as long as map entries can name: nothing is written that they would confuse', () => {
    const h = new Harness({ segmentBlocks: 16, sizeBlocks: 1024, settings: { segmentsMax: 8, compactionSlackSegments: 1 } }).open()
    let count = 0
    expect(() => {
      for (; count < 200; count++) h.write([count, count + 1])
    }).toThrow('no-space')
    h.commit()
    expect(h.log.segmentCount).toBeLessThanOrEqual(8)
    for (let i = 0; i < count; i++) expect(h.fill(i)).toBe(i + 1)
    // Trims may still be written, and make room.
    const batch = h.log.newBatch(0)
    expect(h.log.canAppend(0, true)).not.toBe('no-space')
    batch.release()
  })

  it('a secondary without room is as before and can go on later', () => {
    const a = new Harness({ segmentBlocks: 16 }).open()
    const b = new Harness({ segmentBlocks: 16, capacityBytes: 20 * BLOCK, seed: 2 }).open()
    for (let i = 0; i < 20; i++) a.write([i, i + 1])
    a.commit()
    const [, first] = a.wait<[unknown, Uint8Array, Lsn]>((done) => a.log.readLog(lsn(0), 1 << 20, done))
    expect(b.wait<[unknown]>((done) => b.log.appendRaw([first], lsn(0), done))[0]).toBeUndefined()
    const [, second] = a.wait<[unknown, Uint8Array, Lsn]>((done) => {
      a.log.readLog(lsn(16), 1 << 20, done)
    })
    const [full] = b.wait<[unknown]>((done) => b.log.appendRaw([second], lsn(16), done))
    expect(full).toMatchObject({ kind: 'no-space' })
    expect(b.log.appendedLsn).toBe(16)
    b.disk.capacityBytes = 1 << 30
    b.scheduler.run()
    b.catchUpFrom(a)
    expect(b.fill(19)).toBe(20)
    expect(b.log.lastHeaderCrc).toBe(a.log.lastHeaderCrc)
  })
})

describe('rebuild', () => {
  const prepare = (): { a: Harness; b: Harness; info: CheckpointInfo } => {
    const settings = { spareFilesMax: 0, spareBytesMax: 0 }
    const a = new Harness({ segmentBlocks: 16, settings }).open()
    const b = new Harness({ segmentBlocks: 16, seed: 2, settings }).open()
    for (let i = 0; i < 24; i++) a.write([i, i + 1])
    a.commit()
    b.catchUpFrom(a)
    for (let i = 0; i < 90; i++) a.write([12 + (i % 12), 100 + i])
    a.commit()
    const info = checkpoint(a)
    expect(a.log.streamableFrom()).toBeGreaterThan(b.log.appendedLsn)
    return { a, b, info }
  }
  const transfer = (a: Harness, b: Harness, info: CheckpointInfo, count = 1000): readonly Uint8Array[] => {
    const fork = b.log.forkPoint(a.log.epochTable, a.log.appendedLsn)
    const target = b.log.beginRebuild(fork, info.segments)
    for (const segment of target.missing().slice(0, count)) {
      const bytes = Math.min(16, info.lsn - segment * 16) * BLOCK
      for (let at = 0; at < bytes; at += 3 * BLOCK) {
        const length = Math.min(3 * BLOCK, bytes - at)
        const [, piece] = a.wait<[unknown, Uint8Array]>((done) => {
          a.log.readSegment(segment, at, length, done)
        })
        const [error] = b.wait<[unknown]>((done) => target.writeSegment(segment, at, piece, done))
        expect(error).toBeUndefined()
      }
    }
    const pinned = a.log.pinCheckpoint()
    if (pinned === undefined) throw new Error('there is no checkpoint')
    const file = pinned.read()
    if ('kind' in file) throw new Error(file.message)
    pinned.release()
    if (count === 1000) {
      const [error] = b.wait<[unknown]>((done) => target.install(file, done))
      expect(error).toBeUndefined()
    } else {
      const [error] = b.wait<[unknown]>((done) => target.install(file, done))
      expect(error).toMatchObject({ kind: 'io' })
    }
    return file
  }

  it('takes the missing segments and goes on from the checkpoint', () => {
    const { a, b, info } = prepare()
    transfer(a, b, info)
    expect(b.log.appendedLsn).toBe(info.lsn)
    // What a peer had acknowledged behind its checkpoint is not here.
    expect(b.log.suspect).toBe(true)
    b.crash(100)
    expect(b.open().log.suspect).toBe(true)
    a.write([3, 33])
    a.commit()
    b.catchUpFrom(a)
    for (let i = 0; i < 24; i++) expect(b.fill(i)).toBe(a.fill(i))
    b.flush()
    b.crash(0)
    b.open()
    b.log.commitTo(b.log.appendedLsn)
    for (let i = 0; i < 24; i++) expect(b.fill(i)).toBe(a.fill(i))
    expect(b.log.lastHeaderCrc).toBe(a.log.lastHeaderCrc)
  })

  it('resumes after a crash with what was whole', () => {
    const { a, b, info } = prepare()
    transfer(a, b, info, 1)
    b.crash(0)
    b.open()
    expect(b.report?.rebuilding).toBe(true)
    expect(b.log.appendedLsn).toBe(0)
    const target = b.log.beginRebuild(lsn(0), info.segments)
    expect(target.missing().length).toBeLessThan(info.segments.length)
    target.abort()
    b.scheduler.run()
    transfer(a, b, info)
    for (let i = 0; i < 24; i++) expect(b.fill(i)).toBe(a.fill(i))
  })

  it('is not begun where what is kept can not be made durable, and shows in the open log as before', () => {
    const { b, info } = prepare()
    const end = b.log.appendedLsn
    b.write([3, 3])
    b.disk.failNext = 'datasync'
    const begun = b.wait<[]>((done) => void b.log.beginRebuild(b.log.appendedLsn, [0, ...info.segments], done))
    expect(begun).toEqual([])
    expect(b.log.state).toBe('failed')
    b.close(false)
    b.open()
    expect(b.report?.rebuilding).toBe(false)
    expect(b.log.appendedLsn).toBeGreaterThan(end)
  })

  it('leaves the log as it was when it is given up before it began, or has no room to begin', () => {
    const { b, info } = prepare()
    const end = b.log.appendedLsn
    let begun = false
    b.log.flush(() => {})
    const target = b.log.beginRebuild(lsn(0), info.segments, () => {
      begun = true
    })
    target.abort()
    b.scheduler.run(() => begun)
    expect(b.log.state).toBe('ok')
    const save = b.disk.writeAtomic.bind(b.disk)
    b.disk.writeAtomic = (_path, _chunks, done) => b.scheduler.soon(() => done({ kind: 'no-space', message: 'full' }))
    b.wait<[]>((done) => void b.log.beginRebuild(lsn(0), info.segments, done))
    b.disk.writeAtomic = save
    expect(b.log.state).toBe('ok')
    b.write([3, 3])
    b.reopen()
    expect(b.log.appendedLsn).toBe(end + 2)
  })

  it('ends the log where it can not be noted on the disk, at its beginning or at its end', () => {
    const { a, b, info } = prepare()
    b.disk.failNext = 'save'
    b.wait<[]>((done) => void b.log.beginRebuild(lsn(0), info.segments, done))
    expect(b.log.state).toBe('failed')
    b.close(false)
    b.open()
    expect(b.report?.rebuilding).toBe(false)
    const save = b.disk.writeAtomic.bind(b.disk)
    b.disk.writeAtomic = (path, chunks, done) => {
      if (path.includes('/checkpoint-')) b.disk.writeAtomic = failing
      save(path, chunks, done)
    }
    const failing: typeof save = (_path, _chunks, done) => b.scheduler.soon(() => done({ kind: 'io', message: 'broken' }))
    expect(() => transfer(a, b, info)).toThrow()
    expect(b.log.state).toBe('failed')
    b.disk.writeAtomic = save
    b.close(false)
    b.open()
    expect(b.report?.rebuilding).toBe(true)
    transfer(a, b, info)
    expect(b.log.appendedLsn).toBe(info.lsn)
  })

  it('and a cut are waited for when the log is closed', () => {
    const { b, info } = prepare()
    const begin = b.log.appendedLsn
    b.write([3, 3])
    let cut = false
    b.log.truncateTo(begin, () => {
      cut = true
    })
    b.wait<[unknown]>((done) => b.log.close(false, done))
    expect(cut).toBe(true)
    b.open()
    let begun = false
    b.log.beginRebuild(lsn(0), info.segments, () => {
      begun = true
    })
    b.wait<[unknown]>((done) => b.log.close(false, done))
    expect(begun).toBe(true)
  })
})

describe('new segments', () => {
  it('are filled for a volume that flushes little at a time, and only for such a one', () => {
    const h = new Harness({ segmentBlocks: 64 }).open()
    for (let i = 0; i < 200; i++) h.write([i % 8, i])
    expect(h.disk.filled).toEqual([])
    for (let i = 0; i < 200; i++) {
      h.write([i % 8, i])
      h.commit()
      h.flush()
    }
    const segments = h.disk.filled.length
    expect(segments).toBeGreaterThan(2)
    for (let i = 0; i < 400; i++) h.write([i % 8, i])
    // The one that is made ready while the flushes are in memory still is the last.
    expect(h.disk.filled.length).toBeLessThanOrEqual(segments + 1)
  })

  it('get their pages in large pieces where small batches fill one after the other', () => {
    const filled = (blocksOfBatch: number, batchesOfRound: number): number => {
      const h = new Harness({ segmentBlocks: 256, sizeBlocks: 64 }).open()
      for (let i = 0; i < 1024 / (blocksOfBatch + 1); i++) {
        h.write([0, ...Array.from({ length: blocksOfBatch }, () => i % 100)])
        h.commit()
        if (i % batchesOfRound === 0) h.log.maintenance(() => true)
      }
      return h.disk.filledInCache.length
    }
    expect(filled(1, 1000)).toBeGreaterThan(0)
    expect(filled(30, 1000)).toBe(0)
    // One segment in many rounds: a volume that little is written to takes no page before its time.
    expect(filled(1, 20)).toBe(0)
  })
})
