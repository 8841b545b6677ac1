import { expect, it } from 'vitest'
import { copyBytes } from './bytes.ts'

it('copies a Buffer too, although its own slice does not', () => {
  const source = Buffer.from([1, 2, 3, 4])
  const copy = copyBytes(source, 1, 3)
  source.fill(9)
  expect([...copy]).toEqual([2, 3])
  expect(copy.byteOffset).toBe(0)
  expect(copy.buffer.byteLength).toBe(2)
})
