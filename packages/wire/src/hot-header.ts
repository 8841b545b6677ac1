/**
 * Headers of the messages that every write sends, written and read without the generality of `encodeMessage` and
 * `decodeMessage`: the same bytes. A header is a protobuf message: varint fields, and the volume's id as a string.
 */
import { epoch, lsn, type VolumeId, volumeId } from '@holdfast/base'
import { KIND_NUMBERS, KINDS } from './kinds.ts'
import type { AckMessage, AppendMessage, CommitMessage, FlushMessage, PeerMessage } from './messages.ts'
import { readVarint } from './varint.ts'

type HotMessage = AppendMessage | CommitMessage | AckMessage | FlushMessage

/** Tag, kind, tag, length; and at most five numbers of a tag and eight bytes. */
const FIXED_BYTES_MAX = 4 + 5 * 9
const VOLUME_BYTES_MAX = 100
/** Room that `encodeHotHeader` needs. */
export const HOT_HEADER_BYTES_MAX = FIXED_BYTES_MAX + VOLUME_BYTES_MAX

const VARINT_BYTE = 0x80

/** Field number and wire type 0, for fields below 16. */
const TAG = { kind: 0x08, epoch: 0x18, lsn: 0x20, committedLsn: 0x28, durableLsn: 0x30, appendedLsn: 0x38 }
const VOLUME_TAG = 0x12
/** Behind the kind, the tag of the volume's id and its length. */
const VOLUME_AT = 4

/**
 * As `encodeMessage`, into `into` from `at` on; needs `HOT_HEADER_BYTES_MAX` of room. Returns where the header ends, or -1
 * for a message that `encodeMessage` has to encode.
 */
export function encodeHotHeader(message: PeerMessage, into: Uint8Array, at: number): number {
  if (!isHot(message) || message.volume.length > VOLUME_BYTES_MAX) return -1
  let end = at
  into[end++] = TAG.kind
  into[end++] = KIND_NUMBERS.get(message.type) ?? 0
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

const isHotType = (type: PeerMessage['type'] | undefined): type is HotMessage['type'] =>
  type === 'append' || type === 'ack' || type === 'commit' || type === 'flush'

const isHot = (message: PeerMessage): message is HotMessage => isHotType(message.type)

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
const NAMES = new Map<number, keyof typeof numbers>([
  [TAG.epoch, 'epoch'],
  [TAG.lsn, 'lsn'],
  [TAG.committedLsn, 'committedLsn'],
  [TAG.durableLsn, 'durableLsn'],
  [TAG.appendedLsn, 'appendedLsn'],
])

/** What is being read; used again by each. */
const source: { buf: Uint8Array; pos: number; len: number } = { buf: new Uint8Array(0), pos: 0, len: 0 }

/**
 * The message whose header is at `[start, end)`, or undefined where `decodeMessage` has to look: another kind, an unknown
 * field, or nothing of ours. Of `bytes` nothing is kept. Throws WireError for a number that does not fit.
 */
export function decodeHotMessage(
  bytes: Uint8Array,
  start: number,
  end: number,
  payload: readonly Uint8Array[],
): HotMessage | undefined {
  // The kind comes first; all kinds have one byte.
  const type = end - start >= VOLUME_AT && bytes[start] === TAG.kind ? KINDS[bytes[start + 1] ?? -1] : undefined
  if (!isHotType(type)) return undefined
  const volumeStart = start + VOLUME_AT
  const volumeEnd = volumeStart + (bytes[volumeStart - 1] ?? 0)
  if (bytes[start + 2] !== VOLUME_TAG || volumeEnd > end) return undefined
  const volume = volumeAt(bytes, volumeStart, volumeEnd)
  if (volume === undefined || !readNumbers(bytes, volumeEnd, end)) return undefined
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

/** Fills `numbers`; false where there is a field that it does not know. */
function readNumbers(bytes: Uint8Array, start: number, end: number): boolean {
  numbers.epoch = numbers.lsn = numbers.committedLsn = numbers.durableLsn = numbers.appendedLsn = 0
  source.buf = bytes
  source.pos = start
  source.len = end
  while (source.pos < source.len) {
    const name = NAMES.get(bytes[source.pos++] ?? -1)
    if (name === undefined) return false
    numbers[name] = readVarint(source, false)
  }
  return true
}

/** The ids seen last, by their last byte: a string made anew would be hashed anew wherever it is looked up. */
const recent: (VolumeId | undefined)[] = Array.from({ length: 256 }, () => undefined)

/** The volume's id; undefined for one that is not plain ASCII. */
function volumeAt(bytes: Uint8Array, start: number, end: number): VolumeId | undefined {
  const last = bytes[end - 1] ?? 0
  const known = recent[last]
  if (known !== undefined && known.length === end - start) {
    let at = start
    while (at < end && known.charCodeAt(at - start) === bytes[at]) at++
    if (at === end) return known
  }
  let text = ''
  for (let at = start; at < end; at++) {
    const byte = bytes[at] ?? 0
    if (byte >= VARINT_BYTE) return undefined
    text += String.fromCharCode(byte)
  }
  const volume = volumeId(text)
  recent[last] = volume
  return volume
}
