/**
 * Headers of the messages that every write sends, written and read without the generality of `encodeMessage` and
 * `decodeMessage`: the same bytes. A header is a protobuf message: varint fields, and the volume's id as a string.
 */
import { epoch, lsn, type VolumeId, volumeId } from '@holdfast/base'
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

/** What a hot header may carry besides kind and volume; used again by each. */
const numbers = { epoch: 0, lsn: 0, committedLsn: 0, durableLsn: 0, appendedLsn: 0 }

/**
 * The message with this header, or undefined where `decodeMessage` has to look: another kind, an unknown field, or
 * nothing of ours. `type` is that of the header's kind.
 */
export function readHotHeader(
  type: PeerMessage['type'] | undefined,
  header: Uint8Array,
  payload: readonly Uint8Array[],
): HotMessage | undefined {
  if (type !== 'append' && type !== 'ack' && type !== 'commit' && type !== 'flush') return undefined
  const volumeEnd = 4 + (header[3] ?? 0)
  if (header[2] !== VOLUME_TAG || volumeEnd > header.length) return undefined
  const volume = volumeAt(header, volumeEnd)
  if (volume === undefined || !readNumbers(header, volumeEnd)) return undefined
  const reign = epoch(numbers.epoch)
  const committedLsn = lsn(numbers.committedLsn)
  switch (type) {
    case 'append':
      return { type, volume, epoch: reign, lsn: lsn(numbers.lsn), committedLsn, payload }
    case 'commit':
      return { type, volume, epoch: reign, committedLsn }
    case 'flush':
      return { type, volume, epoch: reign, lsn: lsn(numbers.lsn) }
    case 'ack': {
      const { appendedLsn, durableLsn } = numbers
      return { type, volume, epoch: reign, appendedLsn: lsn(appendedLsn), durableLsn: lsn(durableLsn) }
    }
  }
}

/** Fills `numbers`; false for what is not a list of known varints that fit. */
function readNumbers(header: Uint8Array, start: number): boolean {
  numbers.epoch = numbers.lsn = numbers.committedLsn = numbers.durableLsn = numbers.appendedLsn = 0
  let at = start
  while (at < header.length) {
    const tag = header[at++]
    let value = 0
    let factor = 1
    let byte = VARINT_BYTE
    while (byte >= VARINT_BYTE) {
      if (at >= header.length || factor > 2 ** 49) return false
      byte = header[at++] ?? 0
      value += (byte & 0x7f) * factor
      factor *= VARINT_BYTE
    }
    if (!Number.isSafeInteger(value)) return false
    if (tag === TAG.epoch) numbers.epoch = value
    else if (tag === TAG.lsn) numbers.lsn = value
    else if (tag === TAG.committedLsn) numbers.committedLsn = value
    else if (tag === TAG.durableLsn) numbers.durableLsn = value
    else if (tag === TAG.appendedLsn) numbers.appendedLsn = value
    else return false
  }
  return true
}

/** The ids seen last, by their last byte: a string made anew would be hashed anew wherever it is looked up. */
const recent: (VolumeId | undefined)[] = Array.from({ length: 256 }, () => undefined)

/** The volume's id, which begins at byte 4; undefined for one that is not plain ASCII. */
function volumeAt(header: Uint8Array, end: number): VolumeId | undefined {
  const last = header[end - 1] ?? 0
  const known = recent[last]
  if (known !== undefined && known.length === end - 4) {
    let at = 4
    while (at < end && known.charCodeAt(at - 4) === header[at]) at++
    if (at === end) return known
  }
  let text = ''
  for (let at = 4; at < end; at++) {
    const byte = header[at] ?? 0
    if (byte >= VARINT_BYTE) return undefined
    text += String.fromCharCode(byte)
  }
  const volume = volumeId(text)
  recent[last] = volume
  return volume
}
