import { epoch, lsn, nodeId, type Lsn } from '@holdfast/base'
import type { AppendMessage, PeerMessage } from '@holdfast/wire'
import { expect, it } from 'vitest'
import { Harness } from '../../volume-log/src/testing/harness.ts'
import type { NodeContext } from './context.ts'
import { Follower } from './follower.ts'
import type { Link } from './peer-table.ts'

interface Followed {
  readonly follower: Follower
  readonly troubles: string[]
  readonly sent: PeerMessage[]
  /** Payloads that the link got back, which nobody may use any more. */
  readonly given: Uint8Array[]
}

const follow = (h: Harness, reign: number): Followed => {
  const sent: PeerMessage[] = []
  const given: Uint8Array[] = []
  const troubles: string[] = []
  const context = {
    peers: { nextNumber: () => 1 },
    scheduler: h.scheduler,
    events: { event: () => {} },
  } as unknown as NodeContext
  const link = {
    node: nodeId('p'),
    send: (message: PeerMessage) => sent.push(message),
    giveBack: (payload: readonly Uint8Array[]) => {
      given.push(...payload)
      for (const part of payload) part.fill(0xdb)
    },
    close: () => {},
  } as unknown as Link
  const scope = { volume: h.volume, epoch: epoch(reign) }
  const owner = { troubled: (_kind: string, reason: string) => void troubles.push(reason) }
  return { follower: new Follower(context, h.log, scope, 64, link, owner), troubles, sent, given }
}

/** Everything of `from`'s log between the two positions, as its primary would send it. */
const append = (from: Harness, at: Lsn, committedLsn: Lsn, bytesMax = 1 << 20): AppendMessage => {
  const [error, payload] = from.wait<[unknown, Uint8Array, Lsn]>((done) => from.log.readLog(at, bytesMax, done))
  expect(error).toBeUndefined()
  const scope = { volume: from.volume, epoch: from.epoch }
  return { type: 'append', ...scope, lsn: at, committedLsn, payload: [payload] }
}

/** A primary of epoch 2 whose first batch of that epoch is its last, and a copy that has lost its tail. */
const lostTail = (): { p: Harness; m: Harness; kept: Lsn } => {
  const p = new Harness({ seed: 2 }).open()
  const m = new Harness().open()
  for (let i = 0; i < 2; i++) p.write([i, i + 1])
  p.commit()
  m.catchUpFrom(p)
  m.flush()
  const kept = m.log.appendedLsn
  for (let i = 0; i < 3; i++) p.write([i, i + 100])
  p.epoch = epoch(2)
  p.write([9, 9])
  m.crash(0)
  m.open()
  expect(m.log.suspect).toBe(true)
  return { p, m, kept }
}

it('[I5] a copy that lost its tail stays suspect until the first batch of the reign is committed and here', () => {
  const { p, m, kept } = lostTail()
  const { follower, troubles } = follow(m, 2)
  const scope = follower.scope
  follower.message({ type: 'accepted', ...scope, seq: 1, forkLsn: kept })
  // The primary has just begun: it knows what is in its log, not what was acknowledged.
  follower.message({ type: 'commit', ...scope, committedLsn: kept })
  m.scheduler.run()
  expect(m.log.suspect).toBe(true)
  follower.message(append(p, kept, kept))
  m.scheduler.run()
  expect(m.log.appendedLsn).toBe(p.log.appendedLsn)
  expect(m.log.suspect).toBe(true)
  follower.message({ type: 'commit', ...scope, committedLsn: p.log.appendedLsn })
  m.scheduler.run()
  expect(m.log.suspect).toBe(false)
  expect(troubles).toEqual([])
})

it('[I5] a copy that lost its tail in this very reign stays suspect until it has what was committed meanwhile', () => {
  const { p, m, kept } = lostTail()
  const first = follow(m, 2)
  first.follower.message({ type: 'accepted', ...first.follower.scope, seq: 1, forkLsn: kept })
  first.follower.message(append(p, kept, p.log.appendedLsn))
  m.scheduler.run()
  m.flush()
  const held = m.log.appendedLsn
  first.follower.close()
  for (let i = 0; i < 3; i++) p.write([i, i + 50])
  p.commit()
  m.crash(0)
  m.open()
  const { follower } = follow(m, 2)
  follower.message({ type: 'accepted', ...follower.scope, seq: 1, forkLsn: held })
  follower.message(append(p, held, p.log.committedLsn, 4096 * 2))
  m.scheduler.run()
  expect(m.log.suspect).toBe(true)
  expect(m.log.appendedLsn).toBeGreaterThan(held)
  follower.message(append(p, lsn(m.log.appendedLsn), p.log.committedLsn))
  m.scheduler.run()
  expect(m.log.suspect).toBe(false)
})

it('a flush that is asked for while an append is under way covers it', () => {
  const p = new Harness({ seed: 2 }).open()
  const m = new Harness().open()
  const { follower, sent } = follow(m, 1)
  const { scope } = follower
  follower.message({ type: 'accepted', ...scope, seq: 1, forkLsn: lsn(0) })
  m.scheduler.run()
  p.write([1, 1])
  // The first append to an empty log waits for its segment.
  follower.message(append(p, lsn(0), lsn(0)))
  follower.message({ type: 'flush', ...scope, lsn: p.log.appendedLsn })
  m.scheduler.run()
  const last = sent.filter((message) => message.type === 'ack').at(-1)
  expect(last).toMatchObject({ appendedLsn: p.log.appendedLsn, durableLsn: p.log.appendedLsn })
})

it('gives the memory of a batch back when it is written, and nothing of one that is refused', () => {
  const p = new Harness({ seed: 2 }).open()
  const m = new Harness({ immediatePercent: 0 }).open()
  for (let i = 0; i < 3; i++) p.write([i, i + 1])
  p.commit()
  const { follower, troubles, given } = follow(m, 1)
  follower.message({ type: 'accepted', ...follower.scope, seq: 1, forkLsn: lsn(0) })
  const message = append(p, lsn(0), p.log.appendedLsn)
  follower.message(message)
  expect(given).toEqual([])
  m.scheduler.run()
  expect(given).toEqual(message.payload)
  expect([0, 1, 2].map((block) => m.fill(block))).toEqual([1, 2, 3])
  // The same once more begins where nothing is missing.
  follower.message(append(p, lsn(0), p.log.appendedLsn))
  m.scheduler.run()
  expect(troubles).toHaveLength(1)
  expect(given).toHaveLength(message.payload.length)
})
