import { epoch, lsn, sessionId } from '@holdfast/base'
import type { Lsn } from '@holdfast/base'
import { describe, expect, it } from 'vitest'
import { Dedupe } from './dedupe.ts'
import { BLOCK, Harness } from './testing/harness.ts'

/** Twelve batches of one block each, all flushed; batch i lies at 2i in segments of 16 blocks. */
const flushed = (seed = 1): Harness => {
  const h = new Harness({ segmentBlocks: 16, seed }).open()
  for (let i = 0; i < 12; i++) h.write([i, i + 1])
  h.commit()
  h.flush()
  h.write([40, 41])
  return h
}
const segmentFile = (h: Harness, segment: number): string => h.segmentFile(segment)

describe('damage', () => {
  it('is reported by a read with its place, and repaired from a peer', () => {
    const h = flushed()
    h.disk.flipBit(segmentFile(h, 0), 3 * BLOCK + 100, 2)
    const target = new Uint8Array(2 * BLOCK)
    expect(h.log.tryRead(BLOCK, BLOCK, target, 0)).toBe(false)
    const read = (): unknown =>
      h.wait<[unknown]>((done) => h.log.read(0, 2 * BLOCK, target, 0, done))[0]
    expect(read()).toEqual({ kind: 'damaged', lsn: 3, logicalBlock: 1, blockCount: 1 })
    const repair = (fill: number): unknown =>
      h.wait<[unknown]>((done) => {
        h.log.repairBlocks(lsn(3), new Uint8Array(BLOCK).fill(fill), done)
      })[0]
    expect(repair(9)).toMatchObject({ kind: 'wrong' })
    expect(repair(2)).toBeUndefined()
    expect(read()).toBeUndefined()
    expect(target[BLOCK]).toBe(2)
  })

  it('is also what the disk gives an error for, but not the blocks around it', () => {
    const h = flushed()
    h.write([60, 7, 8, 9])
    h.commit()
    const target = new Uint8Array(3 * BLOCK)
    const read = (): unknown => h.wait<[unknown]>((done) => h.log.read(60 * BLOCK, 3 * BLOCK, target, 0, done))[0]
    h.disk.failNext = 'read'
    expect(read()).toBeUndefined()
    expect([0, 1, 2].map((at) => target[at * BLOCK])).toEqual([7, 8, 9])
    h.disk.failNext = 'read'
    const one = h.wait<[unknown]>((done) => h.log.read(61 * BLOCK, BLOCK, target, 0, done))[0]
    expect(one).toMatchObject({ kind: 'damaged', logicalBlock: 61, blockCount: 1 })
  })

  describe('of a sector that can not be read, in a segment whose checksums are not in memory', () => {
    /** Segment 0 holds batches 0 to 7; nothing of it is read when the log is opened. */
    const spoilt = (...blocks: readonly number[]): { readonly h: Harness; readonly bytes: Uint8Array } => {
      const h = flushed()
      h.wait<unknown[]>((done) => h.log.checkpointNow(done))
      const bytes = h.disk.bytesOf(segmentFile(h, 0))?.slice() ?? new Uint8Array()
      h.close()
      for (const block of blocks) h.disk.spoil(segmentFile(h, 0), block * BLOCK)
      return { h: h.open(), bytes }
    }
    const target = new Uint8Array(BLOCK)
    const read = (h: Harness, block: number): unknown => {
      return h.wait<[unknown]>((done) => h.log.read(block * BLOCK, BLOCK, target, 0, done))[0] ?? target[0]
    }
    const repair = (h: Harness, at: number, bytes: Uint8Array): unknown => {
      return h.wait<[unknown]>((done) => h.log.repairBlocks(lsn(at), bytes.slice(at * BLOCK, (at + 1) * BLOCK), done))[0]
    }

    it('is that of its own block alone, and is repaired', () => {
      const { h, bytes } = spoilt(7)
      expect([0, 2, 4, 5, 6].map((block) => read(h, block))).toEqual([1, 3, 5, 6, 7])
      expect(read(h, 3)).toEqual({ kind: 'damaged', lsn: 7, logicalBlock: 3, blockCount: 1 })
      expect(repair(h, 7, bytes)).toBeUndefined()
      expect(read(h, 3)).toBe(4)
    })

    it('is that of its batch alone where it was a header, which is named and repaired', () => {
      const { h, bytes } = spoilt(2)
      expect([0, 2, 3, 6].map((block) => read(h, block))).toEqual([1, 3, 4, 7])
      expect(read(h, 1)).toEqual({ kind: 'damaged', lsn: 3, logicalBlock: 1, blockCount: 1 })
      expect(repair(h, 3, bytes)).toMatchObject({ kind: 'wrong' })
      expect(h.wait<[unknown]>((done) => h.log.damagedHeaderBefore(lsn(3), done))).toEqual([2])
      expect(repair(h, 2, bytes)).toBeUndefined()
      expect(repair(h, 3, bytes)).toBeUndefined()
      expect(read(h, 1)).toBe(2)
    })

    it('is found in any place, the first blocks of the segment too', () => {
      const { h } = spoilt(0, 1, 2, 3)
      expect([2, 3, 7].map((block) => read(h, block))).toEqual([3, 4, 8])
      expect(read(h, 0)).toMatchObject({ kind: 'damaged', lsn: 1 })
    })

    it('hides nothing any more once the disk gives the header after all', () => {
      const { h } = spoilt()
      const heal = h.disk.spoil(segmentFile(h, 0), 2 * BLOCK)
      expect(read(h, 1)).toMatchObject({ kind: 'damaged', lsn: 3 })
      heal()
      expect(read(h, 1)).toBe(2)
    })

    it('does not keep the segment from being appended to, and what is appended stays readable', () => {
      const { h } = spoilt()
      const heal = h.disk.spoil(segmentFile(h, 1), 0)
      h.write([50, 51])
      h.commit()
      expect(read(h, 8)).toMatchObject({ kind: 'damaged', lsn: 17 })
      expect([read(h, 9), read(h, 50)]).toEqual([10, 51])
      heal()
      h.write([51, 52])
      h.commit()
      expect([8, 9, 50, 51].map((block) => read(h, block))).toEqual([9, 10, 51, 52])
    })

    it('has a block sent by a member compared with checksums that the disk gives by then', () => {
      const { h, bytes } = spoilt()
      const heal = h.disk.spoil(segmentFile(h, 0), 2 * BLOCK)
      expect(read(h, 1)).toMatchObject({ kind: 'damaged', lsn: 3 })
      heal()
      expect(repair(h, 3, bytes)).toBeUndefined()
      expect(repair(h, 3, bytes.fill(0))).toMatchObject({ kind: 'wrong' })
    })

    it('is asked for again only where something is missing', () => {
      const { h } = spoilt(2)
      expect(read(h, 1)).toMatchObject({ kind: 'damaged' })
      for (const block of [0, 2, 3, 6]) expect(h.log.tryRead(block * BLOCK, BLOCK, target, 0), `block ${block}`).toBe(true)
    })

    it('is the error of a disk where no block can be read', () => {
      const { h, bytes } = spoilt(...Array.from({ length: 16 }, (_, block) => block))
      expect(repair(h, 7, bytes)).toMatchObject({ kind: 'io' })
    })
  })

  it('of a header where the log ends is repaired with the checksums that it holds', () => {
    const h = flushed()
    const header = h.disk.bytesOf(segmentFile(h, 1))?.slice(4 * BLOCK, 5 * BLOCK)
    const payload = h.disk.bytesOf(segmentFile(h, 1))?.slice(5 * BLOCK, 6 * BLOCK)
    h.close()
    h.disk.flipBit(segmentFile(h, 1), 4 * BLOCK + 40, 1)
    h.disk.flipBit(segmentFile(h, 1), 5 * BLOCK + 9, 1)
    h.open()
    h.write([41, 42])
    const repair = (at: number, bytes: Uint8Array | undefined): unknown =>
      h.wait<[unknown]>((done) => h.log.repairBlocks(lsn(at), bytes ?? new Uint8Array(), done))[0]
    expect(repair(21, payload), 'nothing says yet that it is right').toMatchObject({ kind: 'wrong' })
    expect(repair(20, header)).toBeUndefined()
    expect(repair(21, payload)).toBeUndefined()
    const target = new Uint8Array(BLOCK)
    expect(h.wait<[unknown]>((done) => h.log.readBlockAt(lsn(21), 1, target, done))[0]).toBeUndefined()
    expect(target).toEqual(payload)
  })

  it('serves a peer the right bytes of a log position, or says that they are damaged', () => {
    const h = flushed()
    const target = new Uint8Array(BLOCK)
    const readAt = (at: number): unknown =>
      h.wait<[unknown]>((done) => h.log.readBlockAt(lsn(at), 1, target, done))[0]
    expect(readAt(5)).toBeUndefined()
    expect(target[7]).toBe(3)
    h.disk.flipBit(segmentFile(h, 0), 5 * BLOCK, 0)
    expect(readAt(5)).toMatchObject({ kind: 'damaged', lsn: 5 })
    expect(readAt(6), 'a header').toBeUndefined()
    h.disk.flipBit(segmentFile(h, 0), 6 * BLOCK + 40, 0)
    expect(readAt(6)).toMatchObject({ kind: 'damaged', lsn: 6 })
    expect(readAt(500)).toMatchObject({ kind: 'io' })
  })

  it('of payload below the durable LSN never cuts the log', () => {
    const h = flushed()
    h.crash(100)
    h.disk.flipBit(segmentFile(h, 0), 9 * BLOCK + 1, 1)
    h.open()
    expect(h.log.appendedLsn).toBe(26)
    expect(h.report?.damage).toEqual([{ kind: 'payload', lsn: 9, blockCount: 1, logicalBlock: 4 }])
    expect(h.log.state).toBe('ok')
    h.commit()
    expect(h.fill(5)).toBe(6)
    const target = new Uint8Array(BLOCK)
    const [error] = h.wait<[unknown]>((done) => h.log.read(4 * BLOCK, BLOCK, target, 0, done))
    expect(error).toMatchObject({ kind: 'damaged', logicalBlock: 4 })
  })

  it('of the last batch behind the durable LSN is a torn tail and is cut', () => {
    const h = flushed()
    h.crash(100)
    h.disk.flipBit(segmentFile(h, 1), 9 * BLOCK + 1, 1)
    h.open()
    // Not to be told from damage: it may have been whole, and acknowledged.
    expect(h.report).toMatchObject({ cutAtLsn: 24, damage: [], suspect: true })
    expect(h.log.appendedLsn).toBe(24)
  })

  it.each([0, 17, 40, 64, 4000])('of the last header, at byte %d, leaves no complete copy', (at) => {
    const h = flushed()
    h.crash(100)
    h.disk.flipBit(segmentFile(h, 1), 8 * BLOCK + at, 1)
    h.open()
    expect(h.report).toMatchObject({ cutAtLsn: 24, suspect: true })
    h.crash(100)
    h.open()
    expect(h.log.suspect).toBe(true)
  })

  it('is not suspected where the log just ends, in a recycled file either', () => {
    const h = flushed()
    const old = h.disk.bytesOf(segmentFile(h, 0))?.slice(10 * BLOCK, 11 * BLOCK)
    h.crash(100)
    // What an earlier use of the file left where the next batch would lie.
    h.disk.bytesOf(segmentFile(h, 1))?.set(old ?? [], 10 * BLOCK)
    h.open()
    expect(h.log.appendedLsn).toBe(26)
    expect(h.report).toMatchObject({ cutAtLsn: undefined, suspect: false })
  })

  it.each(['save', 'datasync', 'write'] as const)('is not forgotten when a %s of recovery fails', (operation) => {
    const h = flushed()
    h.crash(100)
    h.disk.flipBit(segmentFile(h, 1), 9 * BLOCK + 1, 1)
    h.disk.failNext = operation
    expect(() => h.open()).toThrow()
    h.open()
    expect(h.log.suspect).toBe(true)
    expect(h.log.appendedLsn).toBe(24)
  })

  it('below what a wiped header proved to be durable is still no torn tail after a recovery that failed', () => {
    const h = flushed()
    h.crash(100)
    h.disk.flipBit(segmentFile(h, 1), 7 * BLOCK + 1, 1)
    h.disk.flipBit(segmentFile(h, 1), 9 * BLOCK + 1, 1)
    h.disk.failNext = 'datasync'
    expect(() => h.open()).toThrow()
    h.open()
    expect(h.log.appendedLsn).toBe(24)
    expect(h.log.suspect).toBe(true)
    // Its checksum is looked at no more below there: a read finds it.
    h.commit()
    const target = new Uint8Array(BLOCK)
    const [error] = h.wait<[unknown]>((done) => h.log.read(11 * BLOCK, BLOCK, target, 0, done))
    expect(error).toMatchObject({ kind: 'damaged', lsn: 23 })
  })

  it('of a header below the durable LSN opens as damaged, keeps the rest and heals from a peer', () => {
    const h = flushed()
    const peer = new Harness({ segmentBlocks: 16, seed: 2 }).open()
    peer.catchUpFrom(h)
    h.crash(100)
    h.disk.flipBit(segmentFile(h, 0), 8 * BLOCK + 17, 1)
    h.open()
    expect(h.log.state).toBe('damaged')
    expect(h.log.appendedLsn).toBe(8)
    expect(h.log.damagedBelowLsn).toBe(24)
    expect(h.report?.damage).toEqual([{ kind: 'header', lsn: 8, blockCount: 16, logicalBlock: -1 }])
    expect(h.log.canAppend()).toBe('opening')
    // Still so after another start, and nothing of the tail was wiped.
    h.crash(100)
    h.open()
    expect(h.log.state).toBe('damaged')
    h.catchUpFrom(peer)
    expect(h.log.state).toBe('ok')
    // Where it had really ended nobody here knows: only who feeds it can say that it is complete.
    expect(h.log.suspect).toBe(true)
    h.log.clearSuspect()
    h.commit()
    for (let i = 0; i < 12; i++) expect(h.fill(i)).toBe(i + 1)
    expect(h.log.lastHeaderCrc).toBe(peer.log.lastHeaderCrc)
    h.crash(100)
    h.open()
    expect(h.log.state).toBe('ok')
    expect(h.log.appendedLsn).toBe(26)
  })

  it('of a header keeps all that lies behind it, however long it waits to be healed', () => {
    const h = flushed()
    for (let i = 0; i < 40; i++) h.write([i % 20, i])
    h.commit()
    h.flush()
    const files = h.disk.paths().filter((path) => path.includes('/segment-'))
    h.crash(100)
    h.disk.flipBit(segmentFile(h, 0), 8 * BLOCK + 17, 1)
    h.open()
    expect(h.log.state).toBe('damaged')
    h.upkeep(60)
    h.disk.capacityBytes = 0
    h.upkeep(60)
    expect(h.disk.paths().filter((path) => path.includes('/segment-'))).toEqual(files)
  })

  it('of a checkpoint that the disk does not give is as good as one that is wrong', () => {
    const h = flushed()
    h.wait<unknown[]>((done) => h.log.checkpointNow(done))
    h.write([3, 77])
    h.commit()
    h.wait<unknown[]>((done) => h.log.checkpointNow(done))
    h.close()
    // The first thing that is read whole is what says which log it is: without it nothing is opened.
    h.disk.failNext = 'read-whole'
    expect(() => h.open()).toThrow('read-whole failed')
    h.open()
    expect(h.fill(3)).toBe(77)
    h.close()
    h.disk.failWhole = 'checkpoint-'
    h.unreadableBefore = 5
    h.open()
    expect(h.events).toContain('checkpoint can not be read')
    h.commit()
    expect(h.fill(3)).toBe(77)
  })

  it('is not what a segment looks like that was still being made', () => {
    for (const bytes of [0, 5 * BLOCK]) {
      const h = flushed()
      h.crash(100)
      for (const segment of [2, 3, 4]) {
        h.disk.remove(segmentFile(h, segment))
        h.wait<unknown[]>((done) => h.disk.open(segmentFile(h, segment), { createBytes: bytes }, done))
      }
      h.open()
      expect(h.log.state).toBe('ok')
      for (let i = 0; i < 12; i++) expect(h.fill(i)).toBe(i + 1)
      for (let i = 0; i < 40; i++) h.write([i % 20, i])
      h.commit()
      expect(h.fill(19)).toBe(39)
      h.crash(100)
      h.open()
      expect(h.log.state).toBe('ok')
      h.commit()
      expect(h.fill(19)).toBe(39)
    }
  })

  it('of a missing segment is named', () => {
    const h = flushed()
    h.wait<unknown[]>((done) => h.log.checkpointNow(done))
    h.close()
    h.disk.remove(segmentFile(h, 0))
    h.open()
    expect(h.report?.damage).toEqual([
      { kind: 'segment-missing', lsn: 0, blockCount: 8, logicalBlock: -1 },
    ])
    const target = new Uint8Array(BLOCK)
    const [error] = h.wait<[unknown]>((done) => h.log.read(0, BLOCK, target, 0, done))
    expect(error).toMatchObject({ kind: 'damaged' })
    expect(h.fill(11)).toBe(12)
  })

  it('is not sent to a peer that catches up', () => {
    const h = flushed()
    h.disk.flipBit(segmentFile(h, 0), 5 * BLOCK, 0)
    const readLog = (from: number): [unknown, Uint8Array, Lsn] =>
      h.wait((done) => h.log.readLog(lsn(from), 1 << 20, done))
    const [error, bytes, end] = readLog(0)
    expect([error, bytes.length, end]).toEqual([undefined, 4 * BLOCK, 4])
    expect(readLog(4)[0]).toMatchObject({ kind: 'damaged', lsn: 5 })
  })
})

describe('stale batches', () => {
  it('of another history at their right place are no continuation, and are wiped', () => {
    const h = new Harness({ segmentBlocks: 16 }).open()
    const other = new Harness({ segmentBlocks: 16, seed: 2 }).open()
    h.write([1, 1])
    other.write([1, 9])
    const stale = other.write([2, 9])
    h.flush()
    h.crash(100)
    h.disk.bytesOf(segmentFile(h, 0))?.set(stale.bytes, stale.lsn * BLOCK)
    h.open()
    expect(h.log.appendedLsn).toBe(2)
    expect(h.report?.cutAtLsn).toBe(2)
    const wiped = h.disk.bytesOf(segmentFile(h, 0))?.subarray(2 * BLOCK, 3 * BLOCK)
    expect(wiped?.every((byte) => byte === 0)).toBe(true)
  })
})

describe('failure of the disk', () => {
  it('ends the log at a failed flush and never claims durability after it', () => {
    const h = flushed()
    const durable = h.log.durableLsn
    h.disk.failNext = 'datasync'
    const flush = (): unknown => h.wait<[unknown, Lsn]>((done) => h.log.flush(done))[0]
    expect(flush()).toMatchObject({ kind: 'io' })
    expect(h.log.state).toBe('failed')
    expect(flush()).toMatchObject({ kind: 'io' })
    expect(h.log.durableLsn).toBe(durable)
  })

  it('reports a failed write to it and to all behind it', () => {
    const h = new Harness({ immediatePercent: 0 }).open()
    h.room()
    const errors: unknown[] = []
    for (let i = 0; i < 3; i++) {
      const batch = h.log.newBatch(1)
      batch.buffer.fill(i, batch.addWrite(sessionId(1), i + 1, i, 1))
      h.log.seal(batch, epoch(1))
      if (i === 1) h.disk.failNext = 'write'
      h.log.append(batch, (error) => errors.push(error?.kind))
      batch.release()
    }
    h.scheduler.run()
    expect(errors).toEqual([undefined, 'io', 'io'])
    expect(h.log.state).toBe('failed')
    h.log.commitTo(h.log.appendedLsn)
    expect(h.log.committedLsn).toBe(2)
  })
})

describe('duplicates', () => {
  it('are known from the append on, over restarts and checkpoints, and forgotten with a cut tail', () => {
    const h = new Harness({ segmentBlocks: 16 }).open()
    const add = (seq: number): void => {
      h.room()
      const batch = h.log.newBatch(1)
      batch.buffer.fill(1, batch.addWrite(sessionId(2 ** 40 + 5), seq, 0, 1))
      h.log.seal(batch, epoch(1))
      let written = h.log.append(batch, () => {
        written = true
      })
      h.scheduler.run(() => written)
      batch.release()
    }
    const applied = (seq: number): number | undefined => h.log.isApplied(sessionId(2 ** 40 + 5), seq)
    add(1)
    add(2)
    expect([applied(1), applied(2), applied(3)]).toEqual([2, 4, undefined])
    h.log.commitTo(lsn(2))
    expect([applied(1), applied(2)]).toEqual([0, 4])
    h.wait<unknown[]>((done) => h.log.checkpointNow(done))
    h.crash(100)
    h.open()
    expect([applied(1), applied(2)]).toEqual([0, 4])
    h.wait<unknown[]>((done) => h.log.truncateTo(lsn(2), done))
    expect([applied(1), applied(2)]).toEqual([0, undefined])
    // The ring holds the last 1,024 numbers.
    add(1025)
    expect([applied(1), applied(1025)]).toEqual([undefined, 4])
  })

  it('are none where a number only looks like another: whatever was asked long ago, no write is taken for done', () => {
    const dedupe = new Dedupe()
    for (const noted of [1, 700, 2 ** 31 + 5, 2 ** 32 - 1]) {
      dedupe.note(5, noted, 10)
      expect(dedupe.find(5, noted)).toBe(10)
      for (const later of [noted + 1024, noted + 2 ** 31, noted + 2 ** 31 + 1024, noted + 2 ** 32, noted + 2 ** 33]) {
        expect(dedupe.find(5, later)).toBe(-1)
      }
    }
  })
})

describe('upkeep of cut tails', () => {
  it('removes them a day later', () => {
    const h = new Harness().open()
    h.write([1, 1])
    h.wait<unknown[]>((done) => h.log.truncateTo(lsn(0), done))
    const cuts = (): number => h.disk.paths().filter((path) => path.includes('/cut-0-')).length
    expect(cuts()).toBe(2)
    h.crash(100)
    h.open()
    expect(cuts()).toBe(2)
    h.wall += 25 * 3600 * 1000
    h.crash(100)
    h.open()
    expect(cuts()).toBe(0)
  })
})
