/** CRC32C in plain code, table-driven, eight bytes at a step. */
import type { Checksum } from '@holdfast/base'

/** Table k at 256 * k: the effect of a byte that lies k bytes before the end of a step. */
const TABLES = new Uint32Array(8 * 256)
for (let i = 0; i < 256; i++) {
  let value = i
  for (let bit = 0; bit < 8; bit++) value = (value & 1) === 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1
  TABLES[i] = value
}
for (let i = 256; i < TABLES.length; i++) {
  const before = TABLES[i - 256] ?? 0
  TABLES[i] = (TABLES[before & 0xff] ?? 0) ^ (before >>> 8)
}
const T = TABLES as { readonly [index: number]: number }

export function crc32c(bytes: Uint8Array, start: number, end: number, seed: number): number {
  const b = bytes as { readonly [index: number]: number }
  const at = (i: number): number => b[i] ?? 0
  const t = (k: number, byte: number): number => T[k * 256 + byte] ?? 0
  let crc = ~seed
  let i = start
  for (; i + 8 <= end; i += 8) {
    const low = crc ^ (at(i) | (at(i + 1) << 8) | (at(i + 2) << 16) | (at(i + 3) << 24))
    crc =
      t(7, low & 0xff) ^
      t(6, (low >>> 8) & 0xff) ^
      t(5, (low >>> 16) & 0xff) ^
      t(4, low >>> 24) ^
      t(3, at(i + 4)) ^
      t(2, at(i + 5)) ^
      t(1, at(i + 6)) ^
      t(0, at(i + 7))
  }
  for (; i < end; i++) crc = t(0, (crc ^ at(i)) & 0xff) ^ (crc >>> 8)
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
