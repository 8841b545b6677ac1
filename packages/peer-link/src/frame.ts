/**
 * A frame on a WebSocket: one binary message in two fragments. The first is
 * `[u8 flags][u32 length of the protobuf header][header][u32 raw length, if compressed]`, the second the payload.
 *
 * Two fragments, so that each is one piece of memory where it is read: the payload is never joined with its header.
 */
import { decodeHotMessage, encodeHotHeader, encodeMessage, HOT_HEADER_BYTES_MAX, type PeerMessage, WireError } from '@holdfast/wire'
import { compress, decompress } from './compression.ts'

export const FRAME_BYTES_MAX = 40 * 1024 * 1024
const FLAG_LZ4 = 1

export interface Frame {
  readonly header: Uint8Array
  readonly payload: readonly Uint8Array[]
}

/** Bytes a WebSocket's own header may have: two, eight of length, four of mask. */
const WEB_SOCKET_HEAD_BYTES_MAX = 14
/** RFC 6455 section 5.2. Control frames have 8 and above. */
export const OPCODE = { continuation: 0, binary: 2, close: 8, ping: 9, pong: 10 } as const
const FIN = 0x80
const MASKED = 0x80

/** Flags and the length of the protobuf header. */
const FRAME_HEAD_BYTES = 5
/** Before the payload's: its length before it was compressed. */
const RAW_LENGTH_BYTES = 4
/** Where the protobuf header is put, so that everything before it has room; and what may come behind it. */
const HEADER_AT = WEB_SOCKET_HEAD_BYTES_MAX + FRAME_HEAD_BYTES
const TRAILER_BYTES_MAX = RAW_LENGTH_BYTES + WEB_SOCKET_HEAD_BYTES_MAX

/** Room that `encodeHotFrame` needs. */
export const HOT_FRAME_BYTES_MAX = HEADER_AT + HOT_HEADER_BYTES_MAX + TRAILER_BYTES_MAX
/** Where hot heads are put together; each is copied out of it. */
const scratch = Buffer.allocUnsafe(HOT_FRAME_BYTES_MAX)

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
  const { header } = encodeMessage(message)
  const whole = Buffer.allocUnsafe(HEADER_AT + header.length + TRAILER_BYTES_MAX)
  whole.set(header, HEADER_AT)
  const end = assemble(whole, header.length, payloadBytes, rawBytes, isClient)
  return whole.subarray(assembledAt, end)
}

/**
 * The same into `into` from `at` on, without an object; needs `HOT_FRAME_BYTES_MAX` of room. Returns where it ends, or -1
 * for a message that `encodeFrame` has to encode.
 */
export function encodeHotFrame(
  message: PeerMessage,
  payloadBytes: number,
  rawBytes: number | undefined,
  isClient: boolean,
  into: Buffer,
  at: number,
): number {
  const hotEnd = encodeHotHeader(message, scratch, HEADER_AT)
  if (hotEnd < 0) return -1
  const end = assemble(scratch, hotEnd - HEADER_AT, payloadBytes, rawBytes, isClient)
  // Some seventy bytes: a call into the engine that copies them costs more.
  let to = at
  for (let from = assembledAt; from < end; from++) into[to++] = scratch[from] as number
  return to
}

/** Where what was assembled last begins. */
let assembledAt = 0

/** Puts everything around a header that is at its place in `bytes`. Returns where it ends. */
function assemble(
  bytes: Buffer,
  headerBytes: number,
  payloadBytes: number,
  rawBytes: number | undefined,
  isClient: boolean,
): number {
  const frameAt = HEADER_AT - FRAME_HEAD_BYTES
  let end = HEADER_AT + headerBytes
  bytes[frameAt] = rawBytes === undefined ? 0 : FLAG_LZ4
  bytes.writeUInt32LE(headerBytes, frameAt + 1)
  if (rawBytes !== undefined) end = bytes.writeUInt32LE(rawBytes, end)
  const firstBytes = end - frameAt
  const start = frameAt - webSocketHeadBytes(firstBytes, isClient)
  writeWebSocketHead(bytes, start, payloadBytes === 0 ? OPCODE.binary | FIN : OPCODE.binary, firstBytes, isClient)
  if (payloadBytes > 0) end = writeWebSocketHead(bytes, end, OPCODE.continuation | FIN, payloadBytes, isClient)
  assembledAt = start
  return end
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

/** A frame that is a whole message, or a control frame of 125 bytes at most (RFC 6455 section 5.5). */
export function wholeFrame(opcode: number, payload: Uint8Array, isClient: boolean): Buffer {
  const headBytes = webSocketHeadBytes(payload.length, isClient)
  const frame = Buffer.allocUnsafe(headBytes + payload.length)
  writeWebSocketHead(frame, 0, opcode | FIN, payload.length, isClient)
  frame.set(payload, headBytes)
  return frame
}

/** The payload compressed, or undefined where that does not pay. */
export function compressed(payload: Uint8Array): Buffer | undefined {
  const smaller = compress(payload)
  return smaller.length < payload.length * 0.8 ? smaller : undefined
}

/**
 * The message that a first fragment at `[start, end)` begins, or undefined where `decodeFrame` has to look once all of it is
 * there. The fragments of the payload are to be added to `payload`. Of `bytes` nothing is kept. Throws WireError.
 */
export function decodeHotFrame(
  bytes: Uint8Array,
  start: number,
  end: number,
  payload: readonly Uint8Array[],
): PeerMessage | undefined {
  const headerStart = start + FRAME_HEAD_BYTES
  // A header of 256 bytes and more is none of these.
  if (headerStart > end || bytes[start] !== 0 || headerStart + (bytes[start + 1] as number) !== end) return undefined
  if (bytes[start + 2] !== 0 || bytes[start + 3] !== 0 || bytes[start + 4] !== 0) return undefined
  return decodeHotMessage(bytes, headerStart, end, payload)
}

/** Takes the list over: what is left of it is the payload. Throws WireError for what is no frame. */
export function decodeFrame(fragments: Buffer[]): Frame {
  const head = fragments.shift()
  if (head === undefined || head.length < FRAME_HEAD_BYTES) throw new WireError('a frame is too short')
  const headerEnd = FRAME_HEAD_BYTES + head.readUInt32LE(1)
  if (headerEnd > head.length) throw new WireError('a header is longer than its frame')
  const header = head.subarray(FRAME_HEAD_BYTES, headerEnd)
  if ((head[0] ?? 0) !== FLAG_LZ4) return { header, payload: fragments }
  if (head.length < headerEnd + RAW_LENGTH_BYTES) throw new WireError('a frame lacks its raw length')
  const rawBytes = head.readUInt32LE(headerEnd)
  if (rawBytes > FRAME_BYTES_MAX) throw new WireError('a frame is too large')
  return { header, payload: [decompress(Buffer.concat(fragments), rawBytes)] }
}
