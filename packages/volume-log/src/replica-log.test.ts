import { epoch, lsn, sessionId } from '@holdfast/base'
import type { Lsn } from '@holdfast/base'
import { describe, expect, it } from 'vitest'
import { BLOCK, Harness } from './testing/harness.ts'
import { setLogAside } from './truncation.ts'

describe('a log set aside', () => {
  const filled = (): Harness => {
    const h = new Harness().open()
    h.write([5, 1, 2, 3])
    h.commit()
    h.wait((done) => h.log.close(true, done))
    return h
  }

  it('leaves an empty one in its place and is kept whole', () => {
    const h = filled()
    const names = h.disk.list(h.path)
    const directory = setLogAside(h.disk, h.path, 5_000_000)
    h.open()
    expect(h.report?.created).toBe(true)
    expect(h.fill(5)).toBe(0)
    expect(h.disk.list(directory)).toEqual(names)
  })

  it('is so too when a crash came between the two steps', () => {
    const h = filled()
    h.disk.rename(h.path, `${h.path}.aside`)
    h.open()
    expect(h.report?.created).toBe(true)
    expect(h.disk.list(`${h.path}.aside`)).toEqual([])
    expect(h.disk.list(h.path).filter((name) => name.startsWith('cut-'))).toHaveLength(1)
  })
})

describe('append and read', () => {
  it('reads zeroes where nothing was written and allocates no segment before the first append', () => {
    const h = new Harness().open()
    expect(h.fill(3)).toBe(0)
    expect(h.log.segmentCount).toBe(0)
    expect(h.report?.created).toBe(true)
    expect(h.disk.openFiles).toBe(0)
  })

  it('[I2] shows a write to reads only when it is committed', () => {
    const h = new Harness().open()
    h.write([5, 1, 2, 3])
    expect(h.fill(5)).toBe(0)
    const latest = new Uint8Array(BLOCK)
    expect(h.log.readLatest(6, latest, 0)).toBe(true)
    expect(latest[0]).toBe(2)
    h.commit()
    expect([5, 6, 7, 8].map((block) => h.fill(block))).toEqual([1, 2, 3, 0])
  })

  it('reads any alignment', () => {
    const h = new Harness().open()
    h.write([0, 1, 2, 3])
    h.commit()
    const bytes = h.read(BLOCK - 3, BLOCK + 7)
    expect(bytes.slice(0, 4)).toEqual(Uint8Array.of(1, 1, 1, 2))
    expect(bytes.slice(-5)).toEqual(Uint8Array.of(2, 3, 3, 3, 3))
  })

  it('gives read-modify-write the sealed batch that is not written yet', () => {
    const h = new Harness({ immediatePercent: 0 }).open()
    h.room()
    const batch = h.log.newBatch(4)
    const at = batch.addWrite(sessionId(1), 1, 9, 1)
    batch.buffer.fill(77, at, at + BLOCK)
    expect(batch.find(9)).toBe(at)
    h.log.seal(batch, epoch(1))
    batch.release()
    const target = new Uint8Array(BLOCK)
    expect(h.log.readLatest(9, target, 0)).toBe(true)
    expect(target[5]).toBe(77)
  })

  it('seals with the checksums that were made while the payload came', () => {
    const sealed = (ahead: readonly number[], spoilt = -1): { header: Uint8Array; check: () => number } => {
      const h = new Harness({ segmentBlocks: 16 }).open()
      h.room()
      const batch = h.log.newBatch(4)
      for (let block = 0; block < 4; block++) {
        batch.buffer.fill(block + 1, batch.payloadOffset + block * BLOCK, batch.payloadOffset + (block + 1) * BLOCK)
        if (ahead.includes(block + 1)) h.log.checksumAhead(batch, block + 1)
      }
      // What comes twice or goes back is nothing new.
      if (ahead.length > 0) h.log.checksumAhead(batch, 1)
      if (spoilt >= 0) batch.buffer[batch.payloadOffset + spoilt * BLOCK] = 99
      batch.addWrite(sessionId(1), 1, 0, 4)
      h.log.seal(batch, epoch(1))
      const header = batch.body.slice(0, BLOCK)
      h.wait((done) => (h.log.append(batch, done) ? done(undefined) : undefined))
      batch.release()
      h.commit()
      return { header, check: () => h.fill(3) }
    }
    const whole = sealed([])
    for (const ahead of [[1], [1, 3], [2, 4], [1, 2, 3, 4]]) {
      const { header, check } = sealed(ahead)
      expect(header).toEqual(whole.header)
      expect(check()).toBe(4)
    }
    // They are the ones that the header holds: nobody has made them again.
    expect(sealed([2], 1).header).toEqual(whole.header)
    expect(sealed([2], 2).header).not.toEqual(whole.header)
  })

  it('leaves nothing of a payload that never came whole in the next batch', () => {
    const h = new Harness().open()
    h.room()
    const given = h.log.newBatch(4)
    given.buffer.fill(7, given.payloadOffset)
    h.log.checksumAhead(given, 3)
    given.release()
    const batch = h.log.newBatch(4)
    expect(batch).toBe(given)
    batch.addWrite(sessionId(1), 1, 0, 1)
    h.log.seal(batch, epoch(1))
    const fields = 64 + 24 + 4
    expect(batch.body.subarray(fields, BLOCK).every((byte) => byte === 0)).toBe(true)
    batch.release()
  })

  it('pads at the end of a segment and goes on in the next', () => {
    const h = new Harness({ segmentBlocks: 16 }).open()
    for (let i = 0; i < 20; i++) h.write([i, i + 1, i + 101, i + 1])
    h.commit()
    expect(h.log.segmentCount).toBeGreaterThan(4)
    expect([0, 10, 19, 20, 21].map((block) => h.fill(block))).toEqual([1, 11, 20, 120, 20])
    h.crash(100)
    h.open()
    h.commit()
    expect([0, 10, 19, 20, 21].map((block) => h.fill(block))).toEqual([1, 11, 20, 120, 20])
  })

  it('[I3] is durable up to what was written when flush was called', () => {
    const h = new Harness().open()
    h.write([1, 1])
    const end = h.log.appendedLsn
    expect(h.flush()).toBe(end)
    h.write([2, 2])
    expect(h.log.durableLsn).toBe(end)
    h.crash(0)
    h.open()
    h.log.commitTo(h.log.appendedLsn)
    expect(h.fill(1)).toBe(1)
    expect(h.fill(2)).toBe(0)
    expect(h.log.suspect).toBe(true)
  })
})

describe('secondary', () => {
  it('takes raw batches in any pieces and is byte-identical', () => {
    const primary = new Harness({ segmentBlocks: 16, seed: 3 }).open()
    const secondary = new Harness({ segmentBlocks: 16, seed: 4 }).open()
    for (let i = 0; i < 12; i++) {
      const { lsn: start, bytes } = primary.write([i * 2, i + 1, i + 2])
      const pieces: Uint8Array[] = []
      for (let at = 0; at < bytes.length; at += 1500) pieces.push(bytes.subarray(at, at + 1500))
      const [error] = secondary.wait<[unknown]>((done) => {
        secondary.log.appendRaw(pieces, start, done)
      })
      expect(error).toBeUndefined()
    }
    secondary.commit()
    expect(secondary.fill(23)).toBe(13)
    expect(secondary.log.lastHeaderCrc).toBe(primary.log.lastHeaderCrc)
  })

  it('keeps the checksums of all batches that wait for a segment, however many', () => {
    const options = { segmentBlocks: 8192, sizeBlocks: 5000, crcBytes: 1 << 24 }
    const primary = new Harness({ ...options, seed: 3 }).open()
    const secondary = new Harness({ ...options, seed: 4 }).open()
    const answers: unknown[] = []
    const batches = 160
    for (let i = 0; i < batches; i++) {
      const fills = Array.from({ length: 31 }, (_, block) => (i * 31 + block) % 251)
      const { lsn: start, bytes } = primary.write([i * 31, ...fills])
      secondary.log.appendRaw([bytes], start, (error) => answers.push(error))
    }
    expect(answers).toEqual([])
    secondary.scheduler.run(() => answers.length === batches)
    expect(answers.every((error) => error === undefined)).toBe(true)
    secondary.commit()
    // A block whose checksum is not the table's would not be read.
    for (let block = 0; block < batches * 31; block++) expect(secondary.fill(block)).toBe(block % 251)
  })

  it('refuses gaps, flipped bits and other histories before anything is written', () => {
    const primary = new Harness({ seed: 3 }).open()
    const secondary = new Harness({ seed: 4 }).open()
    const first = primary.write([1, 1])
    const second = primary.write([2, 2])
    const refusal = (bytes: Uint8Array, at: Lsn): unknown =>
      secondary.wait<[unknown]>((done) => secondary.log.appendRaw([bytes], at, done))[0]
    expect(refusal(second.bytes, second.lsn)).toMatchObject({ reason: 'gap' })
    const flipped = first.bytes.slice()
    flipped[5000] = 9
    expect(refusal(flipped, first.lsn)).toMatchObject({ reason: 'bad-payload' })
    const header = first.bytes.slice()
    header[20] = 9
    expect(refusal(header, first.lsn)).toMatchObject({ reason: 'bad-header' })
    expect(secondary.log.appendedLsn).toBe(0)
    expect(refusal(first.bytes, first.lsn)).toBeUndefined()
    const other = new Harness({ seed: 5 }).open()
    other.write([7, 7])
    const wrong = other.write([8, 8])
    expect(refusal(wrong.bytes, wrong.lsn)).toMatchObject({ reason: 'bad-chain' })
    expect(refusal(second.bytes, second.lsn)).toBeUndefined()
  })

  it('catches up by readLog, truncates to the fork point and takes the other history', () => {
    const a = new Harness({ segmentBlocks: 16, seed: 6 }).open()
    const b = new Harness({ segmentBlocks: 16, seed: 7 }).open()
    for (let i = 0; i < 9; i++) a.write([i, i + 1])
    a.commit()
    b.catchUpFrom(a)
    const fork = a.log.appendedLsn
    for (let i = 0; i < 7; i++) a.write([i, 200])
    b.epoch = epoch(2)
    for (let i = 0; i < 3; i++) b.write([i, 100])
    b.commit()
    expect(a.log.forkPoint(b.log.epochTable, b.log.appendedLsn)).toBe(fork)
    expect(b.log.forkPoint(a.log.epochTable, a.log.appendedLsn)).toBe(fork)
    const [refused] = a.wait<[unknown]>((done) => a.log.truncateTo(lsn(fork - 2), done))
    expect(refused).toMatchObject({ kind: 'would-lose-committed' })
    const [error] = a.wait<[unknown]>((done) => a.log.truncateTo(fork, done))
    expect(error).toBeUndefined()
    expect(a.disk.paths().some((path) => path.includes(`/cut-${fork}-`))).toBe(true)
    a.catchUpFrom(b)
    expect([0, 2, 3].map((block) => a.fill(block))).toEqual([100, 100, 4])
    a.crash(100)
    a.open()
    expect(a.log.lastHeaderCrc).toBe(b.log.lastHeaderCrc)
  })
})
