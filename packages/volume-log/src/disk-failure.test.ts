import { describe, expect, it } from 'vitest'
import type { Lsn } from '@holdfast/base'
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
