import { describe, expect, it } from 'vitest'
import type { Disk, DiskDone, Lsn } from '@holdfast/base'
import { Harness } from './testing/harness.ts'

/** Four batches of one block, the first two committed; the third begins at the fork. */
const forked = (): { h: Harness; fork: Lsn } => {
  const h = new Harness({ segmentBlocks: 16 }).open()
  h.write([1, 1])
  h.write([2, 2])
  h.commit()
  const { lsn: fork } = h.write([3, 3])
  h.write([4, 4])
  return { h, fork }
}

/** Runs until the file of that name is about to be replaced for the `count`th time from now on. */
const untilSaved = (h: Harness, count: number, then: () => void): void => {
  const { disk } = h
  const original = disk.writeAtomic.bind(disk)
  let left = count
  disk.writeAtomic = (path, chunks, done) => {
    if (path.endsWith('/meta') && --left === 0) then()
    original(path, chunks, done)
  }
}

describe('a disk that fails', () => {
  it('at a flush loses nothing that is acknowledged as durable later, in the same boot', () => {
    const h = new Harness({ segmentBlocks: 16 }).open()
    for (let i = 0; i < 12; i++) h.write([i, i + 1])
    h.commit()
    h.disk.failNext = 'datasync'
    expect(h.wait<[unknown]>((done) => h.log.flush(done))[0]).toMatchObject({ kind: 'io' })
    h.close(false)
    // The kernel has said it once; what it could not write is in its page cache still, and clean.
    h.open()
    const end = h.log.appendedLsn
    expect(h.flush()).toBe(end)
    h.crash(0)
    h.open()
    expect(h.log.appendedLsn).toBe(end)
    h.commit()
    for (let i = 0; i < 12; i++) expect(h.fill(i)).toBe(i + 1)
  })

  it('while a tail is wiped does not bring it back', () => {
    const { h, fork } = forked()
    h.flush()
    untilSaved(h, 1, () => {
      h.disk.failNext = 'datasync'
    })
    const keepsAside = h.disk.open.bind(h.disk)
    h.disk.open = (path, options, done) =>
      path.includes('/cut-') ? done({ kind: 'no-space', message: 'full' }, undefined) : keepsAside(path, options, done)
    const [error] = h.wait<[unknown]>((done) => h.log.truncateTo(fork, done))
    expect(error).toMatchObject({ kind: 'io' })
    h.close(false)
    h.open()
    expect(h.log.appendedLsn).toBe(fork)
    h.crash(0)
    h.open()
    expect(h.log.appendedLsn).toBe(fork)
  })

  it('at the end of a cut ends the log: what follows would be cut by the next start', () => {
    const { h, fork } = forked()
    untilSaved(h, 2, () => {
      h.disk.failNext = 'save'
    })
    const [error] = h.wait<[unknown]>((done) => h.log.truncateTo(fork, done))
    expect(error).toMatchObject({ kind: 'io' })
    expect(h.log.state).toBe('failed')
    h.close(false)
    h.open()
    expect(h.log.appendedLsn).toBe(fork)
    h.write([5, 5])
    h.commit()
    h.crash(100)
    h.open()
    h.commit()
    expect([1, 2, 3, 4, 5].map((block) => h.fill(block))).toEqual([1, 2, 0, 0, 5])
  })
})

/** From `hold` on, the next `fdatasync` of a file opened after this call waits for `release`. */
const slowDatasync = (h: Harness): { hold(): void; release(): void; held(): boolean } => {
  const { disk } = h
  let armed = false
  let waiting: (() => void) | undefined
  const original: Disk['open'] = disk.open.bind(disk)
  disk.open = (path, options, done) => {
    original(path, options, (error, file) => {
      if (file === undefined) return done(error, file)
      const datasync = (then: DiskDone): void => {
        if (!armed) return file.datasync(then)
        armed = false
        waiting = () => file.datasync(then)
      }
      done(error, { ...file, datasync })
    })
  }
  return {
    hold: () => {
      armed = true
    },
    release: () => waiting?.(),
    held: () => waiting !== undefined,
  }
}

describe('a flush', () => {
  it('has the disk begin at once, and calls back later also where there is nothing to do', () => {
    const h = new Harness({ segmentBlocks: 16 })
    const slow = slowDatasync(h)
    h.open()
    h.flush()
    h.write([1, 1])
    let flushed = 0
    slow.hold()
    h.log.flush(() => flushed++)
    expect(slow.held()).toBe(true)
    slow.release()
    h.scheduler.run(() => flushed === 1)
    expect(h.log.durableLsn).toBe(h.log.appendedLsn)
    h.log.flush(() => flushed++)
    expect(flushed).toBe(1)
    h.scheduler.run(() => flushed === 2)
    expect(flushed).toBe(2)
  })
})

describe('a flush under way', () => {
  it('is waited for by a cut', () => {
    const h = new Harness({ segmentBlocks: 16 })
    const slow = slowDatasync(h)
    h.open()
    const { lsn: fork } = h.write([3, 3])
    slow.hold()
    h.log.flush(() => {})
    h.scheduler.run()
    expect(slow.held()).toBe(true)
    let cut = false
    h.log.truncateTo(fork, () => {
      cut = true
    })
    h.scheduler.run()
    expect(cut).toBe(false)
    slow.release()
    h.scheduler.run(() => cut)
    expect(cut).toBe(true)
    expect(h.log.state).toBe('ok')
  })

  it('proves nothing about what is written after a cut', () => {
    const h = new Harness({ segmentBlocks: 16 })
    const slow = slowDatasync(h)
    h.open()
    h.write([1, 1])
    h.commit()
    const { lsn: fork } = h.write([2, 2])
    h.write([3, 3])
    let flushed = false
    untilSaved(h, 1, () => {
      slow.hold()
      h.log.flush(() => {
        flushed = true
      })
    })
    h.wait<[unknown]>((done) => h.log.truncateTo(fork, done))
    expect(slow.held()).toBe(true)
    h.write([4, 4])
    h.write([5, 5])
    slow.release()
    h.scheduler.run(() => flushed)
    expect(h.log.durableLsn).toBe(fork)
    expect(h.flush()).toBe(h.log.appendedLsn)
  })
})
