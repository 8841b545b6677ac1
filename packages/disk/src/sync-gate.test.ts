import { describe, expect, it } from 'vitest'
import { SyncGate } from './sync-gate.ts'

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
