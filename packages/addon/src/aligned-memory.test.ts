import { expect, test } from 'vitest'
import { allocateAligned } from './aligned-memory.ts'
import { native } from './native.ts'

test('memory begins with a cache line, has the size that was asked for and is cleared', () => {
  for (const bytes of [1, 64, 4097, 256 * 1024 + 64, 1024 * 1024 + 64]) {
    const memory = allocateAligned(bytes)
    expect(memory.length).toBe(bytes)
    expect(native.addressRest(memory, 64)).toBe(0)
    if (bytes > 1) expect(native.addressRest(memory.subarray(1), 64)).toBe(1)
    expect(memory.every((byte) => byte === 0)).toBe(true)
  }
})
