import { describe, expect, it } from 'vitest'
import { HeldUpWrites } from './held-up-writes.ts'

const MIB = 2 ** 20

describe('large writes', () => {
  it('go to a thread once one was held up, until many in a row were not', () => {
    const writes = new HeldUpWrites()
    for (let i = 0; i < 100; i++) writes.took(1, MIB)
    expect(writes.heldUp).toBe(false)
    writes.took(80, MIB)
    expect(writes.heldUp).toBe(true)
    for (let i = 0; i < 31; i++) writes.took(1, MIB)
    expect(writes.heldUp).toBe(true)
    writes.took(30, MIB)
    for (let i = 0; i < 31; i++) writes.took(1, MIB)
    expect(writes.heldUp).toBe(true)
    writes.took(1, MIB)
    expect(writes.heldUp).toBe(false)
  })
  it('are judged by their size', () => {
    const writes = new HeldUpWrites()
    writes.took(12, 16 * MIB)
    writes.took(100, 8192)
    expect(writes.heldUp).toBe(false)
    writes.took(5, MIB)
    expect(writes.heldUp).toBe(true)
    for (let i = 0; i < 100; i++) writes.took(0.1, 8192)
    expect(writes.heldUp).toBe(true)
    writes.took(21, 16 * MIB)
    for (let i = 0; i < 32; i++) writes.took(4, MIB)
    expect(writes.heldUp).toBe(false)
  })
})
