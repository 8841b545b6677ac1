import { describe, expect, it } from 'vitest'
import { SyncGate, syncShare } from './sync-gate.ts'

describe('the share of a shard', () => {
  it('leaves a thread of the pool free as long as there are more threads than shards', () => {
    expect([syncShare(1, 4), syncShare(1, 16), syncShare(2, 4), syncShare(2, 8), syncShare(8, 32)]).toEqual([3, 3, 1, 3, 3])
    expect([syncShare(3, 4), syncShare(9, 4), syncShare(1, Number.NaN)]).toEqual([1, 1, 3])
  })
})

describe('SyncGate', () => {
  it('runs three at a time, the others in their order, each once', () => {
    const gate = new SyncGate()
    const ends: (() => void)[] = []
    const begun: number[] = []
    for (let i = 0; i < 8; i++) {
      gate.run((ended) => {
        begun.push(i)
        ends.push(ended)
      })
    }
    expect(begun).toEqual([0, 1, 2])
    ends.shift()?.()
    expect(begun).toEqual([0, 1, 2, 3])
    while (ends.length > 0) ends.pop()?.()
    expect(begun).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
    gate.run((ended) => {
      begun.push(8)
      ended()
    })
    expect(begun.at(-1)).toBe(8)
  })
})
