/**
 * Messages to bytes and back: a small protobuf header, the payload raw beside it.
 *
 * One protobuf message carries the fields of every kind; a kind uses those it needs. Field numbers are never
 * reused. Unknown fields are skipped, an unknown kind is an error that the link answers by closing.
 *
 * | number | field | type |
 * | --- | --- | --- |
 * | 1 | kind | uint32, index in KINDS |
 * | 2 | volume | string |
 * | 3 | epoch | uint64 |
 * | 4 to 9 | lsn, committedLsn, durableLsn, appendedLsn, forkLsn, checkpointLsn | uint64 |
 * | 10, 11 | seq, version | uint64 |
 * | 12, 13 | session, offset | uint64 |
 * | 14, 15 | length, flags | uint64, bit set |
 * | 16 | reason | string |
 * | 17 to 20 | numbers, moreNumbers, epochs, strings | packed sint64, packed sint64, packed uint64, string |
 * | 21 | lastEpoch | uint64 |
 */
import {
  epoch,
  incarnation,
  type LogPosition,
  lsn,
  nodeId,
  sessionId,
  type VolumeId,
  volumeId,
} from '@holdfast/base'
import protobuf from 'protobufjs/minimal.js'
import { decodeHotMessage } from './hot-header.ts'
import { KIND_NUMBERS, KINDS } from './kinds.ts'
import type { Hello, PeerMessage, RefusedMessage, RequestOperation } from './messages.ts'
import { readVarint } from './varint.ts'
import { WireError } from './wire-error.ts'

/** Raised when an older end could not understand a newer one any more. */
export const PROTOCOL_VERSION = 1
/** Entries a repeated field may have. */
const LIST_MAX = 1_000_000

const OPERATIONS = ['read', 'write', 'zero', 'flush', 'block-status'] as const
const REASONS = [
  'not-primary',
  'stale-epoch',
  'no-space',
  'would-lose-committed',
  'not-a-replica',
  'unknown-volume',
  'damaged',
] as const satisfies readonly RefusedMessage['reason'][]

/** Every field a header may carry; a decoded one has its zero value where absent. */
interface Fields {
  kind: number
  volume: string
  epoch: number
  lsn: number
  committedLsn: number
  durableLsn: number
  appendedLsn: number
  forkLsn: number
  checkpointLsn: number
  seq: number
  version: number
  session: number
  offset: number
  length: number
  flags: number
  reason: string
  numbers: number[]
  moreNumbers: number[]
  epochs: number[]
  strings: string[]
  lastEpoch: number
}

type NumberField = { [K in keyof Fields]: Fields[K] extends number ? K : never }[keyof Fields]

const UINT_FIELDS = new Map<number, NumberField>([
  [1, 'kind'],
  [3, 'epoch'],
  [4, 'lsn'],
  [5, 'committedLsn'],
  [6, 'durableLsn'],
  [7, 'appendedLsn'],
  [8, 'forkLsn'],
  [9, 'checkpointLsn'],
  [10, 'seq'],
  [11, 'version'],
  [12, 'session'],
  [13, 'offset'],
  [14, 'length'],
  [15, 'flags'],
  [21, 'lastEpoch'],
])

const NONE: readonly Uint8Array[] = []

export interface EncodedMessage {
  readonly header: Uint8Array
  readonly payload: readonly Uint8Array[]
}

/** The header's bytes, and the payload as it is. */
export function encodeMessage(message: PeerMessage): EncodedMessage {
  const writer = protobuf.Writer.create()
  writer.uint32(1 << 3).uint32(KIND_NUMBERS.get(message.type) ?? 0)
  writeFields(writer, fieldsOf(message))
  return { header: writer.finish(), payload: 'payload' in message ? message.payload : NONE }
}

function writeFields(writer: protobuf.Writer, fields: Partial<Fields>): void {
  if (fields.volume !== undefined) writer.uint32((2 << 3) | 2).string(fields.volume)
  for (const [number, name] of UINT_FIELDS) {
    const value = fields[name]
    if (value !== undefined && value !== 0) writer.uint32(number << 3).uint64(value)
  }
  if (fields.reason !== undefined) writer.uint32((16 << 3) | 2).string(fields.reason)
  writePacked(writer, 17, fields.numbers)
  writePacked(writer, 18, fields.moreNumbers)
  writePacked(writer, 19, fields.epochs)
  for (const text of fields.strings ?? []) writer.uint32((20 << 3) | 2).string(text)
}

function writePacked(
  writer: protobuf.Writer,
  number: number,
  values: readonly number[] | undefined,
): void {
  if (values === undefined || values.length === 0) return
  writer.uint32((number << 3) | 2).fork()
  for (const value of values) writer.sint64(value)
  writer.ldelim()
}

/** What a message puts into its header. */
function fieldsOf(message: PeerMessage): Partial<Fields> {
  switch (message.type) {
    case 'grant-scope':
      return {
        version: message.version,
        strings: message.volumes.map(({ volume }) => volume),
        epochs: message.volumes.map((volume) => volume.epoch),
      }
    case 'grant-request':
      return { seq: message.seq, version: message.scopeVersion }
    case 'grant': {
      const { seq, scopeVersion: version, durationMs: length, refused } = message
      return { seq, version, length, strings: [...refused] }
    }
    case 'status':
      return { ...message, flags: bits(message.present, message.suspect, message.lost) }
    case 'subscribe':
      return {
        ...message,
        version: message.lastHeaderCrc,
        numbers: message.epochTable.map(({ firstLsn }) => firstLsn),
        epochs: message.epochTable.map((start) => start.epoch),
        moreNumbers: [...message.segments],
        flags: bits(message.rebuilding === true),
      }
    case 'refused':
      return message
    case 'rebuild': {
      const { volume, epoch: reign, seq, checkpointLsn, totalBytes: length } = message
      const numbers = [...message.segments]
      return { volume, epoch: reign, seq, checkpointLsn, length, numbers, moreNumbers: [...message.needed] }
    }
    case 'segment-data': {
      const { volume, epoch: reign, segment: seq, offsetBytes: offset } = message
      return { volume, epoch: reign, seq, offset }
    }
    case 'checkpoint-data':
      return { volume: message.volume, epoch: message.epoch, flags: bits(message.last) }
    case 'rebuild-progress': {
      const { volume, epoch: reign, receivedBytes: length } = message
      return { volume, epoch: reign, length, flags: bits(message.installed) }
    }
    case 'block-fetch':
      return { volume: message.volume, seq: message.seq, lsn: message.lsn, length: message.blockCount }
    case 'block-data':
      return { volume: message.volume, seq: message.seq, flags: bits(message.ok) }
    case 'request':
      return {
        ...message,
        version: OPERATIONS.indexOf(message.operation),
        flags: bits(message.fua, message.keepAllocated),
        ...(message.acknowledged === undefined ? {} : positionsOf(message.acknowledged)),
      }
    case 'replies': {
      const { session, epoch: reign, committedLsn, seqs, errors } = message
      return { session, epoch: reign, committedLsn, numbers: [...seqs], moreNumbers: [...errors] }
    }
    case 'read-reply':
      // Errors are small; -1 is "ask again". Shifted so that none of them is negative.
      return { session: message.session, seq: message.seq, length: message.error + 1 }
    case 'status-request':
    case 'accepted':
    case 'append':
    case 'commit':
    case 'ack':
    case 'flush':
    case 'session-close':
      return message
  }
}

function positionsOf(positions: readonly LogPosition[]): Partial<Fields> {
  return { epochs: positions.map((position) => position.epoch), numbers: positions.map((position) => position.lsn) }
}

function bits(first: boolean, second = false, third = false): number {
  return (first ? 1 : 0) | (second ? 2 : 0) | (third ? 4 : 0)
}

function emptyFields(): Fields {
  return {
    kind: -1,
    volume: '',
    epoch: 0,
    lsn: 0,
    committedLsn: 0,
    durableLsn: 0,
    appendedLsn: 0,
    forkLsn: 0,
    checkpointLsn: 0,
    seq: 0,
    version: 0,
    session: 0,
    offset: 0,
    length: 0,
    flags: 0,
    reason: '',
    numbers: [],
    moreNumbers: [],
    epochs: [],
    strings: [],
    lastEpoch: 0,
  }
}

function readFields(header: Uint8Array): Fields {
  const reader = protobuf.Reader.create(header)
  const fields = emptyFields()
  fields.kind = 0
  while (reader.pos < reader.len) {
    const tag = reader.uint32()
    const number = tag >>> 3
    const wireType = tag & 7
    const name = UINT_FIELDS.get(number)
    if (name !== undefined && wireType === 0) {
      fields[name] = readVarint(reader, false)
    } else if (wireType === 2 && number === 2) fields.volume = reader.string()
    else if (wireType === 2 && number === 16) fields.reason = reader.string()
    else if (wireType === 2 && number === 17) readPacked(reader, fields.numbers)
    else if (wireType === 2 && number === 18) readPacked(reader, fields.moreNumbers)
    else if (wireType === 2 && number === 19) readPacked(reader, fields.epochs)
    else if (wireType === 2 && number === 20) fields.strings.push(reader.string())
    else reader.skipType(wireType)
  }
  return fields
}

function readPacked(reader: protobuf.Reader, into: number[]): void {
  const end = reader.uint32() + reader.pos
  if (end > reader.len) throw new WireError('a list is longer than its message')
  while (reader.pos < end) {
    if (into.length >= LIST_MAX) throw new WireError('a list is too long')
    into.push(readVarint(reader, true))
  }
}

/** Throws WireError for whatever is not a message of ours. */
export function decodeMessage(header: Uint8Array, payload: readonly Uint8Array[]): PeerMessage {
  try {
    const hot = decodeHotMessage(header, 0, header.length, payload)
    if (hot !== undefined) return hot
    return messageOf(readFields(header), payload)
  } catch (error) {
    if (error instanceof WireError) throw error
    throw new WireError(`malformed header: ${error instanceof Error ? error.message : 'unknown'}`)
  }
}

function messageOf(fields: Fields, payload: readonly Uint8Array[]): PeerMessage {
  const type: PeerMessage['type'] | undefined = KINDS[fields.kind]
  const volume = volumeId(fields.volume)
  const reign = epoch(fields.epoch)
  const { seq, numbers, moreNumbers } = fields
  const scope = { volume, epoch: reign }
  const session = sessionId(fields.session)
  const committedLsn = lsn(fields.committedLsn)
  const appendedLsn = lsn(fields.appendedLsn)
  const durableLsn = lsn(fields.durableLsn)
  const low = (fields.flags & 1) !== 0
  const high = (fields.flags & 2) !== 0
  switch (type) {
    case 'grant-scope':
      return { type, version: fields.version, volumes: zipScopes(fields) }
    case 'grant-request':
      return { type, seq, scopeVersion: fields.version }
    case 'grant': {
      const refused = fields.strings.map((id): VolumeId => volumeId(id))
      return { type, seq, scopeVersion: fields.version, durationMs: fields.length, refused }
    }
    case 'status-request':
      return { type, ...scope }
    case 'status': {
      const lastEpoch = epoch(fields.lastEpoch)
      const lost = (fields.flags & 4) !== 0
      return { type, ...scope, present: low, lastEpoch, appendedLsn, suspect: high, ...(lost ? { lost } : {}) }
    }
    case 'subscribe': {
      const epochTable = zip(fields.epochs, numbers, (e, l) => ({ epoch: epoch(e), firstLsn: lsn(l) }))
      const positions = { appendedLsn, committedLsn, durableLsn }
      const lastHeaderCrc = fields.version
      const rebuilding = low ? { rebuilding: low } : {}
      return { type, ...scope, seq, ...positions, epochTable, segments: moreNumbers, lastHeaderCrc, ...rebuilding }
    }
    case 'accepted':
      return { type, ...scope, seq, forkLsn: lsn(fields.forkLsn) }
    case 'refused':
      return { type, ...scope, reason: oneOf(REASONS, fields.reason) }
    case 'rebuild': {
      const checkpointLsn = lsn(fields.checkpointLsn)
      const totalBytes = fields.length
      return { type, ...scope, seq, checkpointLsn, segments: numbers, needed: moreNumbers, totalBytes }
    }
    case 'segment-data':
      return { type, ...scope, segment: seq, offsetBytes: fields.offset, payload }
    case 'checkpoint-data':
      return { type, ...scope, last: low, payload }
    case 'rebuild-progress':
      return { type, ...scope, receivedBytes: fields.length, installed: low }
    case 'append':
      return { type, ...scope, lsn: lsn(fields.lsn), committedLsn, payload }
    case 'commit':
      return { type, ...scope, committedLsn }
    case 'ack':
      return { type, ...scope, appendedLsn, durableLsn }
    case 'flush':
      return { type, ...scope, lsn: lsn(fields.lsn) }
    case 'block-fetch':
      return { type, volume, seq, lsn: lsn(fields.lsn), blockCount: fields.length }
    case 'block-data':
      return { type, volume, seq, ok: low, payload }
    case 'request':
      return {
        type,
        ...scope,
        session,
        seq,
        operation: operationOf(fields.version),
        offset: fields.offset,
        length: fields.length,
        fua: low,
        keepAllocated: high,
        payload,
        acknowledged: numbers.length === 0 ? undefined : zip(numbers, fields.epochs, logPosition),
      }
    case 'replies':
      if (numbers.length !== moreNumbers.length) throw new WireError('replies of unequal length')
      return { type, session, epoch: reign, committedLsn, seqs: numbers, errors: moreNumbers }
    case 'read-reply':
      return { type, session, seq, error: fields.length - 1, payload }
    case 'session-close':
      return { type, session }
    case undefined:
      throw new WireError(`unknown kind ${fields.kind} of message`)
  }
}

const logPosition = (end: number, reign: number): LogPosition => ({ epoch: epoch(reign), lsn: lsn(end) })

function zip<T>(
  first: readonly number[],
  second: readonly number[],
  make: (a: number, b: number) => T,
): T[] {
  if (first.length !== second.length) throw new WireError('lists of unequal length')
  return first.map((value, index) => make(value, second[index] ?? 0))
}

function zipScopes({ strings, epochs }: Fields): { volume: VolumeId; epoch: ReturnType<typeof epoch> }[] {
  if (strings.length !== epochs.length) throw new WireError('lists of unequal length')
  return strings.map((id, index) => ({ volume: volumeId(id), epoch: epoch(epochs[index] ?? 0) }))
}

function oneOf<T extends string>(known: readonly T[], text: string): T {
  const found = known.find((value) => value === text)
  if (found === undefined) throw new WireError(`unknown reason ${text}`)
  return found
}

function operationOf(number: number): RequestOperation {
  const operation = OPERATIONS[number]
  if (operation === undefined) throw new WireError(`unknown operation ${number}`)
  return operation
}

/** First frame of a link, both ways. */
export function encodeHello(hello: Hello): Uint8Array {
  const writer = protobuf.Writer.create()
  writer.uint32(1 << 3).uint32(hello.protocolVersion)
  writer.uint32((2 << 3) | 2).string(hello.cluster)
  writer.uint32((3 << 3) | 2).string(hello.from)
  writer.uint32((4 << 3) | 2).string(hello.incarnation)
  writer.uint32((5 << 3) | 2).string(hello.to)
  writer.uint32((6 << 3) | 2).string(hello.channel)
  if (hello.fromShard !== 0) writer.uint32(7 << 3).uint32(hello.fromShard)
  if (hello.toShard !== 0) writer.uint32(8 << 3).uint32(hello.toShard)
  return writer.finish()
}

/** Throws WireError for whatever is not a hello. */
export function decodeHello(bytes: Uint8Array): Hello {
  const texts = new Map<number, string>()
  let protocolVersion = 0
  let fromShard = 0
  let toShard = 0
  try {
    const reader = protobuf.Reader.create(bytes)
    while (reader.pos < reader.len) {
      const tag = reader.uint32()
      if (tag === 1 << 3) protocolVersion = reader.uint32()
      else if (tag === 7 << 3) fromShard = reader.uint32()
      else if (tag === 8 << 3) toShard = reader.uint32()
      else if ((tag & 7) === 2) texts.set(tag >>> 3, reader.string())
      else reader.skipType(tag & 7)
    }
  } catch (error) {
    throw new WireError(`malformed hello: ${error instanceof Error ? error.message : 'unknown'}`)
  }
  const text = (number: number): string => texts.get(number) ?? ''
  const channel = text(6)
  if (channel !== 'control' && channel !== 'data') throw new WireError(`unknown channel ${channel}`)
  return {
    protocolVersion,
    cluster: text(2),
    from: nodeId(text(3)),
    incarnation: incarnation(text(4)),
    to: nodeId(text(5)),
    channel,
    fromShard,
    toShard,
  }
}
