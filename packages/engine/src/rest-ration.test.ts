import { describe, expect, it } from 'vitest'
import { RestRation } from './rest-ration.ts'

const taken = (rests: RestRation): number => {
  let count = 0
  while (rests.take()) count++
  return count
}

describe('the ration of steps towards rest', () => {
  it('comes with the ticks, and is not saved up without end', () => {
    const rests = new RestRation()
    const first = taken(rests)
    expect(first).toBeGreaterThan(0)
    rests.refill(1)
    const each = taken(rests)
    expect(each).toBeGreaterThan(0)
    rests.refill(2)
    expect(taken(rests)).toBe(2 * each)
    rests.refill(1_000_000)
    expect(taken(rests)).toBe(first)
  })
})
