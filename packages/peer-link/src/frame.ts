/**
 * A frame on a WebSocket: one binary message in two fragments. The first is
 * `[u8 flags][u32 length of the protobuf header][header][u32 raw length, if compressed]`, the second the payload.
 *
 * Two fragments, because ws hands each over as one piece of memory: the payload is never joined with its header.
 */
import { WireError } from '@holdfast/wire'
import { compress, decompress } from './compression.ts'

export const FRAME_BYTES_MAX = 40 * 1024 * 1024
const FLAG_LZ4 = 1

export interface Frame {
  readonly header: Uint8Array
  readonly payload: readonly Uint8Array[]
}

export function encodeFrameHead(header: Uint8Array, rawBytes: number | undefined): Buffer {
  const head = Buffer.allocUnsafe(5 + header.length + (rawBytes === undefined ? 0 : 4))
  head[0] = rawBytes === undefined ? 0 : FLAG_LZ4
  head.writeUInt32LE(header.length, 1)
  head.set(header, 5)
  if (rawBytes !== undefined) head.writeUInt32LE(rawBytes, 5 + header.length)
  return head
}

/** The payload compressed, or undefined where that does not pay. */
export function compressed(payload: Uint8Array): Buffer | undefined {
  const smaller = compress(payload)
  return smaller.length < payload.length * 0.8 ? smaller : undefined
}

/** Throws WireError for what is no frame. */
export function decodeFrame(fragments: readonly Buffer[]): Frame {
  const [head, ...payload] = fragments
  if (head === undefined || head.length < 5) throw new WireError('a frame is too short')
  const headerBytes = head.readUInt32LE(1)
  if (5 + headerBytes > head.length) throw new WireError('a header is longer than its frame')
  const header = head.subarray(5, 5 + headerBytes)
  if ((head[0] ?? 0) !== FLAG_LZ4) return { header, payload: payload.filter((part) => part.length > 0) }
  if (head.length < 9 + headerBytes) throw new WireError('a frame lacks its raw length')
  const rawBytes = head.readUInt32LE(5 + headerBytes)
  if (rawBytes > FRAME_BYTES_MAX) throw new WireError('a frame is too large')
  return { header, payload: [decompress(Buffer.concat(payload), rawBytes)] }
}
