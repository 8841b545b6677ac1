import { bootInstant, epoch, instant, lsn, type NodeId, nodeId, type VolumeRecord, volumeId } from '@holdfast/base'
import { beforeEach, describe, expect, it } from 'vitest'
import { Primary } from './primary.ts'
import { ServingPermission } from './serving-permission.ts'

const [a, b, c] = ['a', 'b', 'c'].map(nodeId) as [NodeId, NodeId, NodeId]
const base: VolumeRecord = {
  id: volumeId('0123456789abcdef'),
  name: 'v',
  namespace: 'default',
  sizeBytes: 1 << 20,
  replicaCount: 3,
  failureMode: { kind: 'alwayson' },
  labels: {},
  createdAt: '',
  segmentBlocks: 64,
  epoch: epoch(1),
  primary: a,
  inSync: [a, b, c],
  replicas: [a, b, c],
}
const settings = {
  reconnectGraceMs: 100,
  memberTimeoutMs: 1000,
  acknowledgeTimeoutMs: 5000,
  flushTimeoutMs: 8000,
  stuckMs: 4000,
}

let committed: number[]
let durable: number[]
let changes: VolumeRecord[]
let flushes: NodeId[]
let ended: string[]

function start(record: VolumeRecord = base): Primary {
  const zero = lsn(0)
  const positions = { appendedLsn: zero, durableLsn: zero, committedLsn: zero }
  return new Primary({ self: a, record, modRevision: 10, ...positions, now: instant(0) }, settings, {
    committed: (position) => committed.push(position),
    durable: (position) => durable.push(position),
    changeRecord: (changed) => changes.push(changed),
    flushMember: (node) => flushes.push(node),
    stepDown: (reason) => ended.push(reason),
    diskHangs: (reason) => ended.push(reason),
    event: () => {},
  })
}

function follow(primary: Primary, node: NodeId, now = 0): void {
  primary.subscribed(node, lsn(0), lsn(0), instant(now))
  primary.live(node)
}

beforeEach(() => {
  committed = []
  durable = []
  changes = []
  flushes = []
  ended = []
})

describe('a member that was dropped for its silence', () => {
  it('is not added again before something is heard of it, however little it owes', () => {
    const primary = start()
    follow(primary, b)
    follow(primary, c)
    primary.heardFrom(b, instant(2_000))
    primary.tick(instant(2_000))
    expect(changes.map(({ inSync }) => inSync)).toEqual([[a, b]])
    primary.recordChanged({ ...base, inSync: [a, b] }, 11, instant(2_001))
    primary.tick(instant(2_050))
    expect(changes).toHaveLength(1)
    primary.heardFrom(c, instant(2_100))
    primary.tick(instant(2_100))
    expect(changes.at(-1)?.inSync).toEqual([a, b, c])
  })
})

describe('[I3] a new primary', () => {
  const begin = (inSync: readonly NodeId[]): Primary => {
    const nine = lsn(9)
    const positions = { appendedLsn: nine, durableLsn: nine, committedLsn: nine }
    const record = { ...base, inSync }
    return new Primary({ self: a, record, modRevision: 10, ...positions, now: instant(0) }, settings, {
      committed: () => {},
      durable: (position) => durable.push(position),
      changeRecord: (changed) => changes.push(changed),
      flushMember: (node) => flushes.push(node),
      stepDown: () => {},
      diskHangs: () => {},
      event: () => {},
    })
  }

  it('does not take what it has made durable itself for durable on the others', () => {
    const primary = begin([a, b])
    expect(primary.durableLsn).toBe(0)
    primary.subscribed(b, lsn(9), lsn(4), instant(1))
    primary.live(b)
    primary.acknowledged(b, lsn(9), lsn(4), instant(1))
    expect(primary.durableLsn).toBe(4)
    primary.acknowledged(b, lsn(9), lsn(9), instant(2))
    expect(durable).toEqual([4, 9])
    expect(begin([a]).durableLsn).toBe(9)
  })

  it('adds nobody who lacks what the primaries before may have promised to be durable', () => {
    const primary = begin([a, b])
    primary.subscribed(c, lsn(9), lsn(4), instant(1))
    primary.live(c)
    primary.acknowledged(c, lsn(9), lsn(4), instant(1))
    expect([changes, flushes]).toEqual([[], [c]])
    primary.acknowledged(c, lsn(9), lsn(9), instant(2))
    expect(changes.at(-1)?.inSync).toEqual([a, b, c])
  })
})

describe('[I1] commit', () => {
  it('waits for every in-sync member, whoever is last', () => {
    const primary = start()
    follow(primary, b)
    follow(primary, c)
    primary.appended(lsn(5))
    primary.acknowledged(b, lsn(5), lsn(0), instant(1))
    expect(committed).toEqual([])
    primary.acknowledged(c, lsn(3), lsn(0), instant(1))
    primary.acknowledged(c, lsn(5), lsn(0), instant(1))
    expect(committed).toEqual([3, 5])
  })

  it('waits for our own log too', () => {
    const primary = start({ ...base, inSync: [a, b], replicas: [a, b] })
    follow(primary, b)
    primary.acknowledged(b, lsn(5), lsn(0), instant(1))
    expect(committed).toEqual([])
    primary.appended(lsn(5))
    expect(committed).toEqual([5])
  })

  it('stops below the number of copies that the failure mode asks for', () => {
    const threshold = { kind: 'threshold', inSyncMin: 2 } as const
    const primary = start({ ...base, failureMode: threshold, inSync: [a] })
    primary.appended(lsn(5))
    expect(committed).toEqual([])
    primary.recordChanged({ ...base, failureMode: threshold, inSync: [a, b] }, 11, instant(0))
    follow(primary, b)
    primary.acknowledged(b, lsn(5), lsn(0), instant(1))
    expect(committed).toEqual([5])
  })
})

describe('[I3] flush', () => {
  it('is the least durable position of all in-sync members', () => {
    const primary = start()
    follow(primary, b)
    follow(primary, c)
    primary.appended(lsn(5))
    primary.acknowledged(b, lsn(5), lsn(5), instant(1))
    primary.acknowledged(c, lsn(5), lsn(2), instant(1))
    primary.flushed(lsn(5))
    expect(durable).toEqual([2])
    primary.acknowledged(c, lsn(5), lsn(5), instant(1))
    expect(durable).toEqual([2, 5])
  })
})

describe('[I7] membership', () => {
  it('acknowledges without a lost member only after the coordinator has dropped it', () => {
    const primary = start()
    follow(primary, b)
    follow(primary, c)
    primary.appended(lsn(5))
    primary.acknowledged(b, lsn(5), lsn(0), instant(1))
    primary.gone(c, instant(10))
    primary.tick(instant(100))
    expect(changes).toEqual([])
    primary.tick(instant(111))
    expect(changes.map((record) => record.inSync)).toEqual([[a, b]])
    expect(committed).toEqual([])
    primary.tick(instant(500))
    expect(changes).toHaveLength(1)
    primary.recordChanged({ ...base, inSync: [a, b] }, 11, instant(501))
    expect(committed).toEqual([5])
  })

  it('drops a member from whose node nothing is heard', () => {
    const primary = start()
    follow(primary, b)
    follow(primary, c)
    primary.heardFrom(b, instant(1000))
    primary.tick(instant(1001))
    expect(changes.map((record) => record.inSync)).toEqual([[a, b]])
  })

  it('drops a member whose disk takes writes and ends no flush', () => {
    const primary = start()
    follow(primary, b)
    follow(primary, c)
    primary.appended(lsn(5))
    primary.acknowledged(b, lsn(5), lsn(0), instant(1))
    primary.acknowledged(c, lsn(5), lsn(0), instant(1))
    primary.flushAsked(lsn(5))
    primary.flushed(lsn(5))
    primary.acknowledged(b, lsn(5), lsn(5), instant(2))
    for (let now = 10; now <= 8010; now += 100) {
      for (const node of [b, c]) primary.heardFrom(node, instant(now))
      primary.tick(instant(now))
    }
    expect(changes).toEqual([])
    for (const node of [b, c]) primary.heardFrom(node, instant(8011))
    primary.tick(instant(8011))
    expect(changes.map((record) => record.inSync)).toEqual([[a, b]])
    expect(durable).toEqual([])
    primary.recordChanged({ ...base, inSync: [a, b] }, 11, instant(8012))
    expect(durable).toEqual([5])
    expect(ended).toEqual([])
  })

  it('leaves the volume to the others when its own disk ends no flush, unless all disks stand still', () => {
    for (const others of [true, false]) {
      const primary = start()
      ended = []
      follow(primary, b)
      follow(primary, c)
      primary.appended(lsn(5))
      for (const node of [b, c]) primary.acknowledged(node, lsn(5), lsn(others && node === b ? 5 : 0), instant(1))
      primary.flushAsked(lsn(5))
      for (let now = 10; now <= 20_000; now += 500) {
        for (const node of [b, c]) primary.heardFrom(node, instant(now))
        primary.tick(instant(now))
        if (now < 8000) expect(ended).toEqual([])
      }
      expect(ended).toHaveLength(others ? 1 : 0)
      expect(changes).toEqual([])
    }
  })

  it('gives a slower disk its time, however long the flush took all of them', () => {
    const primary = start()
    follow(primary, b)
    follow(primary, c)
    primary.appended(lsn(5))
    for (const node of [b, c]) primary.acknowledged(node, lsn(5), lsn(0), instant(1))
    primary.flushAsked(lsn(5))
    for (let now = 10; now <= 107_000; now += 500) {
      for (const node of [b, c]) primary.heardFrom(node, instant(now))
      if (now > 100_000) primary.flushed(lsn(5))
      if (now > 100_000) primary.acknowledged(b, lsn(5), lsn(5), instant(now))
      primary.tick(instant(now))
    }
    expect([changes, ended]).toEqual([[], []])
    primary.acknowledged(c, lsn(5), lsn(5), instant(107_100))
    expect(durable).toEqual([5])
  })

  it('drops a member that comes back again and again and never gets on', () => {
    const primary = start()
    follow(primary, b)
    follow(primary, c)
    primary.appended(lsn(5))
    primary.acknowledged(b, lsn(5), lsn(0), instant(1))
    for (let now = 10; now < 5100; now += 60) {
      primary.heardFrom(b, instant(now))
      primary.gone(c, instant(now))
      primary.tick(instant(now + 20))
      primary.subscribed(c, lsn(0), lsn(0), instant(now + 40))
      primary.tick(instant(now + 50))
    }
    expect(changes.map((record) => record.inSync)).toEqual([[a, b]])
  })

  it('keeps a member that gets on, however often its link breaks', () => {
    const primary = start()
    follow(primary, b)
    follow(primary, c)
    for (let now = 10, at = 1; now < 20_000; now += 60, at++) {
      primary.appended(lsn(at + 5))
      for (const node of [b, c]) primary.heardFrom(node, instant(now))
      primary.acknowledged(b, lsn(at + 5), lsn(0), instant(now))
      primary.gone(c, instant(now))
      primary.tick(instant(now + 20))
      primary.subscribed(c, lsn(at), lsn(0), instant(now + 40))
      primary.live(c)
      primary.acknowledged(c, lsn(at + 1), lsn(0), instant(now + 45))
    }
    expect(changes).toEqual([])
  })

  it('drops a member that the record wants gone, and adds it when it gets a copy again', () => {
    const two = { ...base, replicaCount: 2 }
    const primary = start(two)
    follow(primary, b)
    follow(primary, c)
    const wish = { ...two, retiring: c }
    primary.recordChanged(wish, 11, instant(1))
    primary.tick(instant(2))
    const left = { ...two, inSync: [a, b], replicas: [a, b] }
    expect(changes).toEqual([left])
    // The view still shows the wish while its end is on the way.
    primary.recordChanged(wish, 11, instant(3))
    primary.recordChanged(left, 12, instant(4))
    primary.recordChanged({ ...left, replicas: [a, b, c] }, 13, instant(5))
    follow(primary, c, 6)
    primary.acknowledged(c, lsn(0), lsn(0), instant(7))
    expect(changes.at(-1)?.inSync).toEqual([a, b, c])
  })

  it('requires a newcomer before it is added', () => {
    const primary = start({ ...base, inSync: [a, b] })
    follow(primary, b)
    primary.appended(lsn(5))
    primary.acknowledged(b, lsn(5), lsn(0), instant(1))
    follow(primary, c)
    primary.acknowledged(c, lsn(4), lsn(0), instant(2))
    expect(changes).toEqual([])
    primary.acknowledged(c, lsn(5), lsn(0), instant(3))
    expect(changes.map((record) => record.inSync)).toEqual([[a, b, c]])
    primary.appended(lsn(6))
    primary.acknowledged(b, lsn(6), lsn(0), instant(4))
    expect(committed).toEqual([5])
    primary.gone(c, instant(5))
    primary.tick(instant(2000))
    expect(committed).toEqual([5])
  })

  it('asks a newcomer to flush what is said to be durable everywhere', () => {
    const primary = start({ ...base, inSync: [a], replicas: [a, b] })
    primary.appended(lsn(5))
    primary.flushed(lsn(5))
    expect(durable).toEqual([5])
    follow(primary, b)
    primary.acknowledged(b, lsn(5), lsn(0), instant(1))
    expect(flushes).toEqual([b])
    expect(changes).toEqual([])
    primary.acknowledged(b, lsn(5), lsn(5), instant(2))
    expect(changes).toHaveLength(1)
  })

  it('lets the copy of a member be made anew only after that member has left the set', () => {
    const primary = start({ ...base, inSync: [a, b], replicas: [a, b] })
    primary.subscribed(b, lsn(0), lsn(0), instant(0))
    expect(primary.mayRebuild(b, instant(1))).toBe(false)
    expect(primary.mayRebuild(b, instant(2))).toBe(false)
    expect(changes.map(({ inSync }) => inSync)).toEqual([[a]])
    primary.recordChanged(changes[0] as VolumeRecord, 11, instant(3))
    expect(primary.mayRebuild(b, instant(4))).toBe(true)
    expect(changes).toHaveLength(1)
    // Made anew, it is added again and stays.
    primary.live(b)
    primary.acknowledged(b, lsn(0), lsn(0), instant(5))
    expect(changes.map(({ inSync }) => inSync)).toEqual([[a], [a, b]])
    primary.recordChanged(changes[1] as VolumeRecord, 12, instant(6))
    primary.tick(instant(7))
    expect(changes).toHaveLength(2)
  })

  it('has a member go first whose adding is under way, if its copy must be made anew', () => {
    const primary = start({ ...base, inSync: [a], replicas: [a, b] })
    follow(primary, b)
    primary.acknowledged(b, lsn(0), lsn(0), instant(1))
    expect(changes.map(({ inSync }) => inSync)).toEqual([[a, b]])
    primary.subscribed(b, lsn(0), lsn(0), instant(2))
    expect(primary.mayRebuild(b, instant(2))).toBe(false)
    expect(changes).toHaveLength(1)
    primary.recordChanged(changes[0] as VolumeRecord, 11, instant(3))
    expect(primary.mayRebuild(b, instant(4))).toBe(false)
    expect(changes.at(-1)?.inSync).toEqual([a])
  })

  it('ends when another epoch is in the record', () => {
    const primary = start()
    primary.recordChanged({ ...base, epoch: epoch(2), primary: b }, 11, instant(1))
    expect(ended).toHaveLength(1)
  })

  it('ends when a dead member blocks writes and the coordinator does not answer', () => {
    const primary = start({ ...base, inSync: [a, b], replicas: [a, b] })
    follow(primary, b)
    primary.appended(lsn(5))
    primary.gone(b, instant(0))
    primary.tick(instant(200))
    primary.tick(instant(4201))
    expect(ended).toHaveLength(1)
  })
})

describe('[I8] serving permission', () => {
  it('is the lease or the promises of all others, whichever lasts longer', () => {
    const permission = new ServingPermission()
    expect(permission.until([b])).toBe(Number.NEGATIVE_INFINITY)
    expect(permission.until([])).toBe(Number.POSITIVE_INFINITY)
    permission.granted(b, bootInstant(50))
    expect(permission.until([b])).toBe(50)
    expect(permission.until([b, c])).toBe(Number.NEGATIVE_INFINITY)
    permission.leaseValid(bootInstant(70))
    expect(permission.until([b, c])).toBe(70)
    permission.granted(c, bootInstant(90))
    permission.granted(b, bootInstant(80))
    expect(permission.until([b, c])).toBe(80)
  })
})
