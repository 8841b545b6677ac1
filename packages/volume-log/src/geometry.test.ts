import { describe, expect, it } from 'vitest'
import { segmentBlocksFor } from './geometry.ts'

const MIB = 2 ** 20

describe('the size of a segment', () => {
  it.each([
    [1, 4],
    [64, 4],
    [65, 8],
    [128, 8],
    [256, 16],
    [1024, 16],
    [2048, 32],
    [4096, 64],
    [2 ** 26, 64],
  ])('of a volume of %i MiB is %i MiB', (volume, segment) => {
    expect(segmentBlocksFor(volume * MIB) * 4096).toBe(segment * MIB)
  })
})
