import { describe, expect, it } from 'vitest'
import { HeldUpWrites } from './held-up-writes.ts'

const MIB = 2 ** 20

describe('large writes', () => {
  it('go to a thread once one was held up, until many in a row were not', () => {
    const writes = new HeldUpWrites()
    for (let i = 0; i < 100; i++) writes.took(1, MIB, 0)
    expect(writes.heldUp(0)).toBe(false)
    writes.took(80, MIB, 0)
    expect(writes.heldUp(0)).toBe(true)
    for (let i = 0; i < 31; i++) writes.took(1, MIB, 0)
    expect(writes.heldUp(0)).toBe(true)
    writes.took(30, MIB, 0)
    for (let i = 0; i < 31; i++) writes.took(1, MIB, 0)
    expect(writes.heldUp(0)).toBe(true)
    writes.took(1, MIB, 0)
    expect(writes.heldUp(0)).toBe(false)
  })
  it('are judged by their size', () => {
    const writes = new HeldUpWrites()
    writes.took(12, 16 * MIB, 0)
    writes.took(100, 8192, 0)
    expect(writes.heldUp(0)).toBe(false)
    writes.took(5, MIB, 0)
    expect(writes.heldUp(0)).toBe(true)
    for (let i = 0; i < 100; i++) writes.took(0.1, 8192, 0)
    expect(writes.heldUp(0)).toBe(true)
    writes.took(21, 16 * MIB, 0)
    for (let i = 0; i < 32; i++) writes.took(4, MIB, 0)
    expect(writes.heldUp(0)).toBe(false)
  })
  it('are done here again after a while without any', () => {
    const writes = new HeldUpWrites()
    writes.took(80, MIB, 1_000)
    expect(writes.heldUp(11_000)).toBe(true)
    writes.took(1, MIB, 11_000)
    expect(writes.heldUp(21_000)).toBe(true)
    writes.took(0.1, 8192, 21_000)
    expect(writes.heldUp(21_001)).toBe(false)
    writes.took(1, MIB, 21_001)
    expect(writes.heldUp(21_001)).toBe(false)
  })
})
