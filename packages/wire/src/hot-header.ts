/**
 * Headers of the messages that every write sends, written without the generality of `encodeMessage`: the same
 * bytes. A header is a protobuf message: varint fields, and the volume's id as a string.
 */
import type { AckMessage, AppendMessage, CommitMessage, FlushMessage, PeerMessage } from './messages.ts'

type HotMessage = AppendMessage | CommitMessage | AckMessage | FlushMessage

/** Tag, kind, tag, length; and at most five numbers of a tag and eight bytes. */
const FIXED_BYTES_MAX = 4 + 5 * 9
const VOLUME_BYTES_MAX = 100
/** Room that a caller of `writeHotHeader` must have. */
export const HOT_HEADER_BYTES_MAX = FIXED_BYTES_MAX + VOLUME_BYTES_MAX

const VARINT_BYTE = 0x80

/** Field number and wire type 0, for fields below 16. */
const TAG = { kind: 0x08, epoch: 0x18, lsn: 0x20, committedLsn: 0x28, durableLsn: 0x30, appendedLsn: 0x38 }
const VOLUME_TAG = 0x12

/**
 * Writes the header of a message into `into` from `at` on; returns where it ends, or -1 for a message that
 * `encodeMessage` has to encode. `kinds` are the numbers of the kinds on the wire.
 */
export function writeHotHeader(
  message: PeerMessage,
  kinds: ReadonlyMap<string, number>,
  into: Uint8Array,
  at: number,
): number {
  if (!isHot(message) || message.volume.length > VOLUME_BYTES_MAX) return -1
  let end = at
  into[end++] = TAG.kind
  into[end++] = kinds.get(message.type) ?? 0
  into[end++] = VOLUME_TAG
  into[end++] = message.volume.length
  for (let i = 0; i < message.volume.length; i++) {
    const code = message.volume.charCodeAt(i)
    if (code >= VARINT_BYTE) return -1
    into[end++] = code
  }
  end = writeNumber(TAG.epoch, message.epoch, into, end)
  switch (message.type) {
    case 'append':
      end = writeNumber(TAG.lsn, message.lsn, into, end)
      return writeNumber(TAG.committedLsn, message.committedLsn, into, end)
    case 'commit':
      return writeNumber(TAG.committedLsn, message.committedLsn, into, end)
    case 'flush':
      return writeNumber(TAG.lsn, message.lsn, into, end)
    case 'ack':
      end = writeNumber(TAG.durableLsn, message.durableLsn, into, end)
      return writeNumber(TAG.appendedLsn, message.appendedLsn, into, end)
  }
}

function isHot(message: PeerMessage): message is HotMessage {
  const { type } = message
  return type === 'append' || type === 'ack' || type === 'commit' || type === 'flush'
}

/** A field that is 0 is left out. */
function writeNumber(tag: number, value: number, into: Uint8Array, at: number): number {
  if (value === 0) return at
  let end = at
  into[end++] = tag
  let left = value
  while (left >= VARINT_BYTE) {
    into[end++] = (left % VARINT_BYTE) | VARINT_BYTE
    left = Math.floor(left / VARINT_BYTE)
  }
  into[end++] = left
  return end
}
