import { native } from '@holdfast/addon'
import type { Checksum } from '@holdfast/base'

export { openDisk } from './native-disk.ts'

/** CRC32C by the addon. */
export const nativeChecksum: Checksum = {
  crc32c: native.crc32c,
  crc32cBlocks: native.crc32cBlocks,
}
/** Which implementation of CRC32C runs: `vpclmulqdq`, `sse4.2`, `armv8` or `table`. */
export const checksumKind = native.crc32cKinds[0]
