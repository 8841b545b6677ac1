import { expect, it } from 'vitest'
import { crc32c } from './crc32c.ts'

it('gives the check values of RFC 3720, in one piece and in two', () => {
  const digits = Uint8Array.from('123456789', (digit) => digit.charCodeAt(0))
  expect(crc32c(digits, 0, 9, 0)).toBe(0xe3069283)
  expect(crc32c(digits, 4, 9, crc32c(digits, 0, 4, 0))).toBe(0xe3069283)
  expect(crc32c(new Uint8Array(32), 0, 32, 0)).toBe(0x8a9136aa)
  expect(crc32c(new Uint8Array(32).fill(255), 0, 32, 0)).toBe(0x62a8ab43)
})
