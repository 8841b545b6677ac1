/** What recovery makes of blocks that the disk does not give, after it has asked for them often enough, and what peers get of them. */
import { type Lsn, lsn } from '@holdfast/base'
import { describe, expect, it } from 'vitest'
import type { CheckpointInfo } from './log-core.ts'
import { BLOCK, Harness } from './testing/harness.ts'

const SEGMENT = 16
/** From so many openings that failed on, what can't be read is damage. */
const ENOUGH = 3

/** Twelve batches of one block each, flushed, and one more: batch i lies at 2i, the log ends at 26. */
const written = (seed = 1): Harness => {
  const h = new Harness({ segmentBlocks: SEGMENT, seed }).open()
  for (let i = 0; i < 12; i++) h.write([i, i + 1])
  h.commit()
  h.flush()
  h.write([40, 41])
  h.commit()
  return h
}

const segmentFile = (h: Harness, at: number): string => h.segmentFile(Math.floor(at / SEGMENT))
/** Log positions that can't be read any more; the returned function has the disk give them after all. */
const spoil = (h: Harness, ...positions: readonly number[]): (() => void) => {
  const heals = positions.map((at) => h.spoil(at))
  return () => heals.forEach((heal) => heal())
}
const bytesAt = (h: Harness, at: number): Uint8Array | undefined => {
  return h.disk.bytesOf(segmentFile(h, at))?.slice((at % SEGMENT) * BLOCK, (at % SEGMENT + 1) * BLOCK)
}
/** The process ends between the mark of the cut and what it is to wipe. */
const killWithinCut = (h: Harness, fork: Lsn): void => {
  const save = h.disk.writeAtomic.bind(h.disk)
  h.disk.writeAtomic = (path, chunks, done) => save(path, chunks, path.endsWith('/meta') ? () => undefined : done)
  h.log.truncateTo(fork, () => undefined)
  h.scheduler.run()
  h.disk.writeAtomic = save
  h.crash(100)
}
const open = (h: Harness, unreadableBefore = ENOUGH): Harness => {
  h.unreadableBefore = unreadableBefore
  return h.open()
}
const read = (h: Harness, block: number): unknown => {
  const target = new Uint8Array(BLOCK)
  return h.wait<[unknown]>((done) => h.log.read(block * BLOCK, BLOCK, target, 0, done))[0] ?? target[0]
}

describe('a bad sector in what recovery reads', () => {
  it.each([8, 9, 24, 25])('is waited for at first: position %d', (at) => {
    const h = written()
    h.crash(100)
    const heal = spoil(h, at)
    for (let failed = 0; failed < ENOUGH; failed++) expect(() => open(h, failed)).toThrow('bad sector')
    heal()
    open(h)
    expect(h.report).toMatchObject({ damage: [], suspect: false, cutAtLsn: undefined })
    expect(h.log.appendedLsn).toBe(26)
  })

  it('is damage where it was a header, and is fed by a peer', () => {
    const h = written()
    const peer = new Harness({ segmentBlocks: SEGMENT, seed: 2 }).open()
    peer.catchUpFrom(h)
    h.crash(100)
    spoil(h, 8)
    open(h)
    expect(h.log).toMatchObject({ state: 'damaged', suspect: true, appendedLsn: 8 })
    expect(h.report?.damage).toEqual([{ kind: 'header', lsn: 8, blockCount: 16, logicalBlock: -1 }])
    h.catchUpFrom(peer)
    expect(h.log.state).toBe('ok')
    h.log.clearSuspect()
    h.crash(0)
    open(h, 0)
    h.commit()
    for (let i = 0; i < 12; i++) expect(h.fill(i)).toBe(i + 1)
    expect(h.fill(40)).toBe(41)
  })

  it('is damage and no torn tail where it was the last header, which nobody had flushed', () => {
    const h = written()
    h.crash(100)
    const heal = spoil(h, 24)
    open(h)
    expect(h.log).toMatchObject({ state: 'damaged', suspect: true, appendedLsn: 24, damagedBelowLsn: 25 })
    expect(h.report?.cutAtLsn).toBeUndefined()
    h.crash(100)
    // Nothing was written where it may lie still.
    heal()
    open(h, 0)
    expect(h.log).toMatchObject({ state: 'ok', appendedLsn: 26 })
    h.commit()
    expect(h.fill(40)).toBe(41)
  })

  it('is the damage of its own block alone where it was payload, and is not cut behind what is proven durable either', () => {
    const h = written()
    h.crash(100)
    const heal = spoil(h, 9, 25)
    open(h)
    expect(h.log).toMatchObject({ state: 'ok', suspect: false, appendedLsn: 26 })
    expect(h.report?.damage).toEqual([
      { kind: 'payload', lsn: 9, blockCount: 1, logicalBlock: 4 },
      { kind: 'payload', lsn: 25, blockCount: 1, logicalBlock: 40 },
    ])
    h.commit()
    expect([read(h, 3), read(h, 5), read(h, 11)]).toEqual([4, 6, 12])
    expect(read(h, 4)).toMatchObject({ kind: 'damaged', lsn: 9 })
    expect(read(h, 40)).toMatchObject({ kind: 'damaged', lsn: 25 })
    heal()
    expect([read(h, 4), read(h, 40)]).toEqual([5, 41])
  })

  it('is not written over with what is written again', () => {
    const h = written()
    const payload = bytesAt(h, 25)
    for (const [block, fill] of [[50, 1], [51, 2]] as const) h.write([block, fill])
    h.commit()
    // The page cache is still there: what is behind the durable position is written again.
    h.crash(100)
    const heal = spoil(h, 25)
    const rewritten: number[] = []
    const original = h.disk.open.bind(h.disk)
    h.disk.open = (path, options, done) => {
      original(path, options, (error, file) => {
        if (file === undefined || path !== segmentFile(h, 16)) return done(error, file)
        const write: typeof file.write = (buffers, position, then) => {
          const blocks = buffers.reduce((sum, { length }) => sum + length / BLOCK, 0)
          for (let i = 0; i < blocks; i++) rewritten.push(16 + position / BLOCK + i)
          return file.write(buffers, position, then)
        }
        done(error, { ...file, write })
      })
    }
    open(h)
    expect(rewritten).toEqual(expect.arrayContaining([24, 26, 27, 28, 29]))
    expect(rewritten).not.toContain(25)
    heal()
    expect(bytesAt(h, 25)).toEqual(payload)
  })

  it('is nothing where the log ended before it, if it was stopped cleanly', () => {
    const h = written()
    h.close()
    spoil(h, 26, 27)
    open(h, 0)
    expect(h.log).toMatchObject({ state: 'ok', suspect: false, appendedLsn: 26 })
    h.write([41, 42])
    h.commit()
    expect(h.fill(41)).toBe(42)
  })

  it('makes a copy suspect where a batch may stand behind the end, and is left as it is', () => {
    const h = written()
    h.write([41, 42])
    h.crash(100)
    const header = bytesAt(h, 26)
    h.disk.bytesOf(segmentFile(h, 24))?.fill(0, 8 * BLOCK, 9 * BLOCK)
    const heal = spoil(h, 26)
    open(h)
    expect(h.log).toMatchObject({ state: 'ok', suspect: true, appendedLsn: 24 })
    heal()
    expect(bytesAt(h, 26)).toEqual(header)
  })

  it('where the log just ends is damage as long as it can not be read, and no longer', () => {
    const h = written()
    h.crash(100)
    const heal = spoil(h, 26)
    open(h)
    expect(h.log).toMatchObject({ state: 'damaged', appendedLsn: 26, damagedBelowLsn: 27 })
    h.close(false)
    heal()
    open(h)
    expect(h.log).toMatchObject({ state: 'ok', appendedLsn: 26 })
  })

  it.each([
    ['in the batch before', 27, 29],
    ['in the same batch, before it', 27, 28],
    ['in the same batch, behind it', 28, 27],
  ] as const)('does not keep what was torn %s from being cut', (_where, torn, bad) => {
    const h = written()
    h.flush()
    if (bad === 29) {
      h.write([3, 99])
      h.write([5, 99])
    } else h.write([3, 99, 98])
    h.crash(100)
    h.bootId = 'after a loss of power'
    h.disk.flipBit(segmentFile(h, torn), (torn % SEGMENT) * BLOCK + 7, 1)
    spoil(h, bad)
    open(h)
    expect(h.report).toMatchObject({ cutAtLsn: 26, suspect: true, damage: [] })
    h.commit()
    expect([3, 4, 5].map((block) => h.fill(block))).toEqual([4, 5, 6])
  })

  it('does not keep a cut from being finished', () => {
    const h = written()
    const { lsn: fork } = h.write([41, 42])
    h.write([42, 43])
    h.flush()
    killWithinCut(h, fork)
    const heal = spoil(h, fork)
    open(h)
    expect(h.log).toMatchObject({ state: 'ok', appendedLsn: fork })
    heal()
    expect(bytesAt(h, fork)?.every((byte) => byte === 0)).toBe(true)
  })

  it('below a cut that was begun does not bring back what was cut', () => {
    const h = written()
    const { lsn: fork } = h.write([41, 42])
    h.flush()
    killWithinCut(h, fork)
    const heal = spoil(h, 24)
    open(h)
    expect(h.log).toMatchObject({ state: 'damaged', appendedLsn: 24 })
    h.crash(100)
    heal()
    open(h)
    expect(h.log).toMatchObject({ state: 'ok', appendedLsn: fork })
  })

  it('is the error of a disk where nothing can be read, however often it is tried', () => {
    const h = written()
    h.crash(100)
    spoil(h, ...Array.from({ length: SEGMENT }, (_, at) => at))
    expect(() => open(h, 100)).toThrow('bad sector')
  })

  it('is waited for longer where it is in a checkpoint', () => {
    const h = written()
    h.wait<unknown[]>((done) => h.log.checkpointNow(done))
    h.close()
    h.disk.failWhole = 'checkpoint-'
    expect(() => open(h, 4)).toThrow('can not be read')
    open(h, 5)
    expect(h.log.appendedLsn).toBe(26)
  })

  describe('of a log that begins at a soft checkpoint', () => {
    const softly = (): Harness => {
      const never = 1000 * SEGMENT * BLOCK
      const settings = { checkpointBytesMin: never, deadSegmentsMax: 1000, softDeadSegmentsMin: 2, softBytesMax: never }
      const h = new Harness({ segmentBlocks: SEGMENT, settings }).open()
      for (let i = 0; i < 12; i++) h.write([i, 1])
      h.commit()
      h.wait<unknown[]>((done) => h.log.checkpointNow(done))
      for (let i = 0; i < 120; i++) {
        h.write([i % 12, 2])
        h.commit()
        h.scheduler.run()
      }
      return h
    }
    /** Of the newest batch that the soft checkpoint covers: the segment's path and the block in it where its header is. */
    const newestBelow = (h: Harness): number => {
      const name = h.disk.paths().find((path) => path.includes('/soft-')) ?? ''
      return Number(name.slice(name.lastIndexOf('-') + 1)) - 2
    }

    it('is not in the way where it is in an older checkpoint', () => {
      const h = softly()
      h.crash(100)
      h.disk.failWhole = 'checkpoint-'
      open(h, 0)
      expect(h.report).toMatchObject({ soft: true, damage: [] })
      h.commit()
      for (let i = 0; i < 12; i++) expect(h.fill(i)).toBe(2)
    })

    it.each([['a header', 0], ['payload', 1]] as const)('is damage where it was %s', (_what, offset) => {
      const h = softly()
      const at = newestBelow(h)
      h.crash(100)
      const heal = spoil(h, at + offset)
      expect(() => open(h, 0)).toThrow('bad sector')
      open(h)
      expect(h.report).toMatchObject({ soft: true })
      expect(h.report?.damage).toMatchObject([{ kind: offset === 0 ? 'header' : 'payload', blockCount: 1 }])
      heal()
      h.commit()
      for (let i = 0; i < 12; i++) expect(h.fill(i)).toBe(2)
    })
  })
})

describe('a bad sector in what a peer is to get', () => {
  it('is damage of the log, to be mended before it goes out', () => {
    const h = written()
    const heal = spoil(h, 5)
    const readLog = (from: number): [unknown, Uint8Array, number] => {
      return h.wait((done) => h.log.readLog(lsn(from), 1 << 20, done))
    }
    const [error, bytes, end] = readLog(0)
    expect([error, bytes.length, end]).toEqual([undefined, 4 * BLOCK, 4])
    expect(readLog(4)[0]).toMatchObject({ kind: 'damaged', lsn: 5 })
    heal()
    expect(readLog(4)).toMatchObject([undefined, { length: 12 * BLOCK }, 16])
  })

  it('travels as damage in a rebuild, with all that is whole around it', () => {
    const a = written()
    const b = new Harness({ segmentBlocks: SEGMENT, seed: 2 }).open()
    const [, info] = a.wait<[unknown, CheckpointInfo | undefined]>((done) => a.log.checkpointNow(done))
    if (info === undefined) throw new Error('there is no checkpoint')
    spoil(a, 3, 6)
    const target = b.log.beginRebuild(lsn(0), info.segments)
    for (const segment of target.missing()) {
      const length = Math.min(SEGMENT, info.lsn - segment * SEGMENT) * BLOCK
      const [failure, bytes, unreadable] = a.wait<[unknown, Uint8Array, readonly number[]]>((done) => {
        a.log.readSegment(segment, 0, length, done)
      })
      expect(failure).toBeUndefined()
      expect(unreadable).toEqual(segment === 0 ? [3, 6] : [])
      b.wait<[unknown]>((done) => target.writeSegment(segment, 0, bytes, done))
    }
    const file = a.log.pinCheckpoint()?.read()
    if (file === undefined || 'kind' in file) throw new Error('there is no checkpoint')
    expect(b.wait<[unknown]>((done) => target.install(file, done))).toEqual([undefined])
    expect([0, 2, 4, 11, 40].map((block) => read(b, block))).toEqual([1, 3, 5, 12, 41])
    expect([read(a, 1), read(b, 1)]).toMatchObject([{ kind: 'damaged', lsn: 3 }, { kind: 'damaged', lsn: 3 }])
    // What only its header could say is right: here memory says it, there nothing does.
    expect([read(a, 3), read(b, 3)]).toMatchObject([4, { kind: 'damaged', lsn: 7 }])
  })

  it('is the error of a disk that gives nothing', () => {
    const h = written()
    spoil(h, ...Array.from({ length: SEGMENT }, (_, at) => at))
    const [error] = h.wait<[unknown, Uint8Array]>((done) => h.log.readSegment(0, 0, SEGMENT * BLOCK, done))
    expect(error).toMatchObject({ kind: 'io' })
  })
})
