import { describe, expect, it } from 'vitest'
import { HeldUpWrites } from './held-up-writes.ts'

describe('large writes', () => {
  it('go to a thread once one was held up, until many in a row were not', () => {
    const writes = new HeldUpWrites()
    for (let i = 0; i < 100; i++) writes.took(1)
    expect(writes.heldUp).toBe(false)
    writes.took(80)
    expect(writes.heldUp).toBe(true)
    for (let i = 0; i < 31; i++) writes.took(1)
    expect(writes.heldUp).toBe(true)
    writes.took(30)
    for (let i = 0; i < 31; i++) writes.took(1)
    expect(writes.heldUp).toBe(true)
    writes.took(1)
    expect(writes.heldUp).toBe(false)
  })
})
