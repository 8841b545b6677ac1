/**
 * A frame on a WebSocket: one binary message in two fragments. The first is
 * `[u8 flags][u32 length of the protobuf header][header][u32 raw length, if compressed]`, the second the payload.
 *
 * Two fragments, because ws hands each over as one piece of memory: the payload is never joined with its header.
 */
import { encodeHotHeader, encodeMessage, type PeerMessage, WireError } from '@holdfast/wire'
import { compress, decompress } from './compression.ts'

export const FRAME_BYTES_MAX = 40 * 1024 * 1024
const FLAG_LZ4 = 1

export interface Frame {
  readonly header: Uint8Array
  readonly payload: readonly Uint8Array[]
}

/** Bytes a WebSocket's own header may have: two, eight of length, four of mask. */
const WEB_SOCKET_HEAD_BYTES_MAX = 14
const OPCODE_CONTINUATION = 0
const OPCODE_BINARY = 2
const FIN = 0x80
const MASKED = 0x80

/** Where heads are put together; each is copied out of it. */
const scratch = Buffer.allocUnsafe(64 * 1024)

/**
 * All of a message's frame but its payload, ready for the socket: the first fragment whole, and the WebSocket header of
 * the second one, if there is a payload. `rawBytes`: its length before it was compressed, if it was. A client's
 * frames are masked with zero (RFC 6455 section 5.3; decision 3).
 */
export function encodeFrame(
  message: PeerMessage,
  payloadBytes: number,
  rawBytes: number | undefined,
  isClient: boolean,
): Buffer {
  const rawLengthBytes = rawBytes === undefined ? 0 : 4
  const hotEnd = encodeHotHeader(message, scratch, HEADER_AT)
  if (hotEnd >= 0) return assemble(scratch, hotEnd - HEADER_AT, payloadBytes, rawBytes, isClient)
  const { header } = encodeMessage(message)
  const whole = Buffer.allocUnsafe(HEADER_AT + header.length + rawLengthBytes + WEB_SOCKET_HEAD_BYTES_MAX)
  whole.set(header, HEADER_AT)
  return assemble(whole, header.length, payloadBytes, rawBytes, isClient)
}

/** Where the protobuf header is put, so that everything before it has room. */
const HEADER_AT = WEB_SOCKET_HEAD_BYTES_MAX + 5

/** Puts everything around a header that is at its place in `bytes`. */
function assemble(
  bytes: Buffer,
  headerBytes: number,
  payloadBytes: number,
  rawBytes: number | undefined,
  isClient: boolean,
): Buffer {
  let end = HEADER_AT + headerBytes
  bytes[HEADER_AT - 5] = rawBytes === undefined ? 0 : FLAG_LZ4
  bytes.writeUInt32LE(headerBytes, HEADER_AT - 4)
  if (rawBytes !== undefined) end = bytes.writeUInt32LE(rawBytes, end)
  const firstBytes = end - (HEADER_AT - 5)
  const start = HEADER_AT - 5 - webSocketHeadBytes(firstBytes, isClient)
  writeWebSocketHead(bytes, start, payloadBytes === 0 ? OPCODE_BINARY | FIN : OPCODE_BINARY, firstBytes, isClient)
  if (payloadBytes > 0) end = writeWebSocketHead(bytes, end, OPCODE_CONTINUATION | FIN, payloadBytes, isClient)
  return bytes === scratch ? Buffer.from(bytes.subarray(start, end)) : bytes.subarray(start, end)
}

function webSocketHeadBytes(length: number, isClient: boolean): number {
  const lengthBytes = length < 126 ? 2 : length < 65_536 ? 4 : 10
  return lengthBytes + (isClient ? 4 : 0)
}

/** RFC 6455 section 5.2. Returns where it ends. */
function writeWebSocketHead(bytes: Buffer, start: number, first: number, length: number, isClient: boolean): number {
  const mask = isClient ? MASKED : 0
  bytes[start] = first
  let end = start + 2
  if (length < 126) bytes[start + 1] = mask | length
  else if (length < 65_536) {
    bytes[start + 1] = mask | 126
    end = bytes.writeUInt16BE(length, end)
  } else {
    bytes[start + 1] = mask | 127
    end = bytes.writeUInt32BE(0, end)
    end = bytes.writeUInt32BE(length, end)
  }
  return isClient ? bytes.writeUInt32BE(0, end) : end
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
