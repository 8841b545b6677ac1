/** CRC32C in plain code, table-driven (slicing by 4 would be faster; tests do not need it). */
import type { Checksum } from '@holdfast/base'

const TABLE = new Uint32Array(256)
for (let i = 0; i < 256; i++) {
  let value = i
  for (let bit = 0; bit < 8; bit++) value = (value & 1) === 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1
  TABLE[i] = value
}

export function crc32c(bytes: Uint8Array, start: number, end: number, seed: number): number {
  let crc = ~seed
  for (let i = start; i < end; i++) {
    crc = (TABLE[(crc ^ (bytes[i] ?? 0)) & 0xff] ?? 0) ^ (crc >>> 8)
  }
  return ~crc >>> 0
}

export const tableChecksum: Checksum = {
  crc32c,
  crc32cBlocks(bytes, offset, blockCount, out, outIndex) {
    for (let i = 0; i < blockCount; i++) {
      const start = offset + i * 4096
      out[outIndex + i] = crc32c(bytes, start, start + 4096, 0)
    }
  },
}
