import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { PayloadPool } from './payload-pool.ts'

const KIB = 1024

describe('memory for payloads', () => {
  it('is used again after it was given back, and not before', () => {
    const pool = new PayloadPool()
    const first = pool.take(100 * KIB)
    const second = pool.take(100 * KIB)
    expect(second.buffer).not.toBe(first.buffer)
    pool.give(first)
    expect(pool.take(100 * KIB).buffer).toBe(first.buffer)
    expect(pool.take(100 * KIB).buffer).not.toBe(second.buffer)
  })

  it('is never with two receivers, whatever is given back however often', () => {
    const length = fc.oneof(fc.integer({ min: 0, max: 40 * KIB }), fc.integer({ min: 0, max: 6 * KIB * KIB }))
    const step = fc.oneof(fc.record({ take: length }), fc.record({ give: fc.nat(20) }))
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.nat(4 * KIB * KIB), (steps, keptBytesMax) => {
        const pool = new PayloadPool(keptBytesMax)
        const out: Buffer[] = []
        const back: Buffer[] = []
        for (const one of steps) {
          if ('take' in one) {
            const bytes = pool.take(one.take)
            expect(bytes).toHaveLength(one.take)
            if (bytes.length >= 4 * KIB) expect(out.some(({ buffer }) => buffer === bytes.buffer)).toBe(false)
            out.push(bytes)
          } else {
            // Also what is out no more: the second time says nothing.
            const all = [...out, ...back]
            const bytes = all[one.give % Math.max(1, all.length)]
            if (bytes === undefined) continue
            const at = out.indexOf(bytes)
            if (at >= 0) back.push(...out.splice(at, 1))
            pool.give(bytes)
          }
          expect(pool.keptBytes).toBeLessThanOrEqual(keptBytesMax)
        }
      }),
    )
  })

  it('holds at most a quarter and a cache line more than was asked for', () => {
    fc.assert(
      fc.property(fc.integer({ min: 4 * KIB, max: 4 * KIB * KIB }), (length) => {
        expect(new PayloadPool().take(length).buffer.byteLength).toBeLessThanOrEqual(length * 1.25 + 64)
      }),
    )
  })

  it('of somebody else is left alone, and what is too large to keep goes', () => {
    const pool = new PayloadPool(150 * KIB)
    pool.give(Buffer.alloc(64 * KIB))
    pool.give(Buffer.from('small'))
    expect(pool.keptBytes).toBe(0)
    const large = [pool.take(96 * KIB), pool.take(96 * KIB)] as const
    for (const bytes of large) pool.give(bytes)
    expect(pool.keptBytes).toBe(96 * KIB)
    pool.give(pool.take(8 * KIB * KIB))
    expect(pool.keptBytes).toBe(96 * KIB)
  })
})
