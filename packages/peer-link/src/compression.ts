/** lz4 blocks; the only file that knows which library makes them. */
import { createRequire } from 'node:module'
import { WireError } from '@holdfast/wire'

interface Lz4 {
  encodeBound(size: number): number
  encodeBlock(input: Buffer, output: Buffer): number
  decodeBlock(input: Buffer, output: Buffer): number
}

const lz4 = createRequire(import.meta.url)('lz4') as Lz4

export function compress(bytes: Uint8Array): Buffer {
  const output = Buffer.allocUnsafe(lz4.encodeBound(bytes.length))
  const input = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  const size = lz4.encodeBlock(input, output)
  return size > 0 ? output.subarray(0, size) : Buffer.from(bytes)
}

export function decompress(bytes: Buffer, rawBytes: number): Buffer {
  const output = Buffer.allocUnsafe(rawBytes)
  if (lz4.decodeBlock(bytes, output) !== rawBytes) throw new WireError('a payload does not decompress')
  return output
}
