import { readFileSync } from 'node:fs'
import { epoch, incarnation, lsn, nodeId, sessionId, volumeId } from '@holdfast/base'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeHello, decodeMessage, encodeHello, encodeMessage } from './codec.ts'
import { encodeHotHeader, HOT_HEADER_BYTES_MAX } from './hot-header.ts'
import type { PeerMessage } from './messages.ts'
import { WireError } from './wire-error.ts'

const position = fc.nat({ max: Number.MAX_SAFE_INTEGER }).map(lsn)
const count = fc.nat({ max: Number.MAX_SAFE_INTEGER })
const scope = {
  volume: fc.stringMatching(/^[0-9a-f]{16}$/).map(volumeId),
  epoch: count.map(epoch),
}
const payload = fc.array(fc.uint8Array({ maxLength: 64 }), { maxLength: 2 })
const session = count.map(sessionId)
const numbers = fc.array(count, { maxLength: 8 })

const subscription = {
  type: fc.constant('subscribe' as const),
  ...scope,
  seq: count,
  appendedLsn: position,
  committedLsn: position,
  durableLsn: position,
  epochTable: fc.array(fc.record({ epoch: scope.epoch, firstLsn: position }), { maxLength: 5 }),
  segments: numbers,
  lastHeaderCrc: fc.nat({ max: 2 ** 32 - 1 }),
}

const message: fc.Arbitrary<PeerMessage> = fc.oneof(
  fc.record({ type: fc.constant('grant-scope' as const), version: count, volumes: fc.array(fc.record(scope), { maxLength: 4 }) }),
  fc.record({ type: fc.constant('grant-request' as const), seq: count, scopeVersion: count }),
  fc.record({ type: fc.constant('grant' as const), seq: count, scopeVersion: count, durationMs: count, refused: fc.array(scope.volume, { maxLength: 4 }) }),
  fc.record({ type: fc.constant('status-request' as const), ...scope }),
  fc.record({ type: fc.constant('status' as const), ...scope, present: fc.boolean(), lastEpoch: scope.epoch, appendedLsn: position, suspect: fc.boolean() }),
  fc.record({ type: fc.constant('status' as const), ...scope, present: fc.constant(false), lastEpoch: scope.epoch, appendedLsn: position, suspect: fc.boolean(), lost: fc.constant(true) }),
  fc.record(subscription),
  fc.record({ ...subscription, rebuilding: fc.constant(true) }),
  fc.record({ type: fc.constant('accepted' as const), ...scope, seq: count, forkLsn: position }),
  fc.record({ type: fc.constant('refused' as const), ...scope, reason: fc.constantFrom('not-primary' as const, 'no-space' as const) }),
  fc.record({ type: fc.constant('rebuild' as const), ...scope, seq: count, checkpointLsn: position, segments: numbers, needed: numbers, totalBytes: count }),
  fc.record({ type: fc.constant('segment-data' as const), ...scope, segment: count, offsetBytes: count, payload }),
  fc.record({ type: fc.constant('checkpoint-data' as const), ...scope, last: fc.boolean(), payload }),
  fc.record({ type: fc.constant('rebuild-progress' as const), ...scope, receivedBytes: count, installed: fc.boolean() }),
  fc.record({ type: fc.constant('append' as const), ...scope, lsn: position, committedLsn: position, payload }),
  fc.record({ type: fc.constant('commit' as const), ...scope, committedLsn: position }),
  fc.record({ type: fc.constant('ack' as const), ...scope, appendedLsn: position, durableLsn: position }),
  fc.record({ type: fc.constant('flush' as const), ...scope, lsn: position }),
  fc.record({ type: fc.constant('block-fetch' as const), volume: scope.volume, seq: count, lsn: position, blockCount: count }),
  fc.record({ type: fc.constant('block-data' as const), volume: scope.volume, seq: count, ok: fc.boolean(), payload }),
  fc.record({
    type: fc.constant('request' as const),
    ...scope,
    session,
    seq: count,
    operation: fc.constantFrom('read' as const, 'write' as const, 'zero' as const, 'flush' as const, 'block-status' as const),
    offset: count,
    length: count,
    fua: fc.boolean(),
    keepAllocated: fc.boolean(),
    payload,
    acknowledged: fc.option(fc.array(fc.record({ epoch: scope.epoch, lsn: position }), { minLength: 1, maxLength: 3 }), { nil: undefined }),
  }),
  fc
    .array(fc.tuple(count, fc.integer({ min: -1, max: 200 })), { maxLength: 6 })
    .chain((pairs) =>
      fc.record({
        type: fc.constant('replies' as const),
        session,
        epoch: scope.epoch,
        committedLsn: position,
        seqs: fc.constant(pairs.map(([seq]) => seq)),
        errors: fc.constant(pairs.map(([, error]) => error)),
      }),
    ),
  fc.record({ type: fc.constant('read-reply' as const), session, seq: count, error: fc.integer({ min: -1, max: 200 }), payload }),
  fc.record({ type: fc.constant('session-close' as const), session }),
)

describe('peer messages', () => {
  it('come back as they were, every kind', () => {
    const kinds = new Set<string>()
    fc.assert(
      fc.property(message, (sent) => {
        kinds.add(sent.type)
        const { header, payload: raw } = encodeMessage(sent)
        expect(decodeMessage(header, raw)).toEqual(sent)
      }),
      { numRuns: 2000 },
    )
    expect(kinds.size).toBe(22)
  })

  it('have the same header from the hot path', () => {
    const kinds = new Set<string>()
    const into = new Uint8Array(HOT_HEADER_BYTES_MAX + 7)
    fc.assert(
      fc.property(message, (sent) => {
        const end = encodeHotHeader(sent, into, 7)
        if (end === -1) return
        kinds.add(sent.type)
        expect(into.slice(7, end)).toEqual(Uint8Array.from(encodeMessage(sent).header))
      }),
      { numRuns: 2000 },
    )
    expect([...kinds].sort()).toEqual(['ack', 'append', 'commit', 'flush'])
  })

  it('leave odd names to the general encoder', () => {
    const ack = { type: 'ack', epoch: epoch(3), appendedLsn: lsn(3), durableLsn: lsn(2) } as const
    const into = new Uint8Array(HOT_HEADER_BYTES_MAX)
    for (const name of ['é', 'v'.repeat(200)]) {
      expect(encodeHotHeader({ ...ack, volume: volumeId(name) }, into, 0)).toBe(-1)
    }
  })

  it('skip fields they do not know', () => {
    const { header } = encodeMessage({ type: 'grant-request', seq: 7, scopeVersion: 1 })
    const unknown = Uint8Array.from([(100 << 3) & 0x7f, 0x06, 42])
    unknown[0] = 0xa0
    const longer = new Uint8Array([...header, ...unknown])
    expect(decodeMessage(longer, [])).toEqual({ type: 'grant-request', seq: 7, scopeVersion: 1 })
  })

  it('are refused by one kind of error when they are not ours', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        for (const decode of [() => decodeMessage(bytes, []), () => decodeHello(bytes)]) {
          try {
            decode()
          } catch (error) {
            expect(error).toBeInstanceOf(WireError)
          }
        }
      }),
      { numRuns: 3000 },
    )
    expect(() => decodeMessage(Uint8Array.from([8, 99]), [])).toThrow(WireError)
  })

  it('keep the bytes of version 1', () => {
    const sent: PeerMessage = {
      type: 'ack',
      volume: volumeId('00112233aabbccdd'),
      epoch: epoch(3),
      appendedLsn: lsn(300),
      durableLsn: lsn(200),
    }
    const hex = [...encodeMessage(sent).header].map((byte) => byte.toString(16).padStart(2, '0')).join('')
    expect(hex).toBe('080e12103030313132323333616162626363646418033' + '0c80138ac02')
  })
})

/** What nodes of the first version send, byte for byte. */
const VERSION_1 = JSON.parse(readFileSync(new URL('../../../test/golden/wire-v1.json', import.meta.url), 'utf8')) as {
  readonly messages: readonly { readonly message: Record<string, unknown>; readonly header: string }[]
}

describe('messages of version 1', () => {
  it.each(VERSION_1.messages)('are understood: $message.type $header', ({ message: { payload, ...fields }, header }) => {
    const parts = ((payload ?? []) as string[]).map((hex) => Uint8Array.from(Buffer.from(hex, 'hex')))
    const decoded = decodeMessage(Uint8Array.from(Buffer.from(header, 'hex')), parts)
    expect(decoded).toMatchObject(payload === undefined ? fields : { ...fields, payload: parts })
  })
})

describe('hello', () => {
  it('comes back as it was', () => {
    const hello = {
      protocolVersion: 1,
      cluster: 'c',
      from: nodeId('a'),
      incarnation: incarnation('i'),
      to: nodeId('b'),
      channel: 'data',
      fromShard: 0,
      toShard: 0,
    } as const
    expect(decodeHello(encodeHello(hello))).toEqual(hello)
    const sharded = { ...hello, fromShard: 3, toShard: 300 }
    expect(decodeHello(encodeHello(sharded))).toEqual(sharded)
    // Who knows of no shards sends the same bytes as ever.
    expect(encodeHello(hello).length).toBe(encodeHello(sharded).length - 5)
  })
})
