import { describe, expect, it } from 'vitest'
import { FlushPattern } from './flush-pattern.ts'

/** Writes so many batches, then flushes; which of them a flush was expected behind. */
function interval(pattern: FlushPattern, batches: number): number[] {
  const expected = Array.from({ length: batches }, (_, i) => i + 1).filter(() => pattern.batchSealed())
  pattern.flushed()
  return expected
}

describe('a flush is foretold', () => {
  it('when two intervals agree, behind the last batch of the next', () => {
    const pattern = new FlushPattern()
    expect([interval(pattern, 2), interval(pattern, 2), interval(pattern, 2)]).toEqual([[], [], [2]])
  })

  it('once only, when the client stops flushing', () => {
    const pattern = new FlushPattern()
    for (let i = 0; i < 3; i++) interval(pattern, 1)
    expect([pattern.batchSealed(), pattern.batchSealed(), pattern.batchSealed()]).toEqual([true, false, false])
  })

  it('not after an interval of another length, nor for long ones', () => {
    const pattern = new FlushPattern()
    for (let i = 0; i < 3; i++) interval(pattern, 1)
    interval(pattern, 3)
    expect(interval(pattern, 1)).toEqual([])
    for (let i = 0; i < 2; i++) interval(pattern, 9)
    expect(interval(pattern, 9)).toEqual([])
  })

  it('not by several flushes in a row', () => {
    const pattern = new FlushPattern()
    for (let i = 0; i < 2; i++) interval(pattern, 1)
    for (let i = 0; i < 4; i++) pattern.flushed()
    expect(interval(pattern, 1)).toEqual([1])
  })
})
