import { epoch, instant, lsn, type NodeId, nodeId, type VolumeRecord, volumeId } from '@holdfast/base'
import { describe, expect, it } from 'vitest'
import { type Answer, decideElection, type ElectionInput, type LogStatus } from './election.ts'

const [a, b, c] = ['a', 'b', 'c'].map(nodeId) as [NodeId, NodeId, NodeId]
const settings = { collectMs: 200, yieldMs: 1000 }
const status = (lastEpoch: number, appended: number, suspect = false): LogStatus => ({
  lastEpoch: epoch(lastEpoch),
  appendedLsn: lsn(appended),
  suspect,
})
const record = (change: Partial<VolumeRecord> = {}): VolumeRecord => ({
  id: volumeId('0123456789abcdef'),
  name: 'v',
  namespace: 'default',
  sizeBytes: 1 << 20,
  replicaCount: 3,
  failureMode: { kind: 'alwayson' },
  labels: {},
  createdAt: '',
  segmentBlocks: 64,
  epoch: epoch(4),
  primary: a,
  inSync: [a, b, c],
  replicas: [a, b, c],
  ...change,
})
const decide = (change: Partial<ElectionInput>) =>
  decideElection(
    {
      self: b,
      now: instant(10_000),
      record: record(),
      own: status(4, 100),
      lost: false,
      answers: new Map(),
      absentSince: instant(0),
      promisedUntil: instant(0),
      ...change,
    },
    settings,
  )

it('[I5] leaves the volume to others where its data are gone, and to nobody where there are none', () => {
  expect(decide({ lost: true })).toMatchObject({ kind: 'wait', why: expect.stringContaining('gone') as string })
  expect(decide({ lost: true, record: record({ inSync: [b], replicas: [b] }) })).toMatchObject({ kind: 'wait' })
  // One that holds nothing can bring nothing back: who may lack a tail does not wait for it, as for one that may be readable again.
  const answers = (of: Answer) => new Map<NodeId, Answer>([[a, of], [c, status(4, 90, true)]])
  const own = status(4, 100, true)
  expect(decide({ own, answers: answers('lost') })).toEqual({ kind: 'stand', inSync: [b, c] })
  expect(decide({ own, answers: answers('unreadable') })).toMatchObject({ kind: 'wait' })
})

describe('[I5] election', () => {
  it('is only for members in sync', () => {
    expect(decide({ record: record({ inSync: [a, c] }) })).toMatchObject({ kind: 'wait' })
  })

  it('[I8] waits for the end of its own promise', () => {
    expect(decide({ promisedUntil: instant(10_001) }).kind).toBe('wait')
    expect(decide({ promisedUntil: instant(10_000) }).kind).toBe('stand')
  })

  it('collects answers for a while, then drops those that are silent', () => {
    const answers = new Map([[c, status(4, 100)]])
    expect(decide({ answers, now: instant(199) }).kind).toBe('wait')
    expect(decide({ answers, now: instant(200) })).toEqual({ kind: 'stand', inSync: [b, c] })
  })

  it('drops a member that answers without a usable copy', () => {
    const answers = new Map<NodeId, Answer>([
      [a, 'unreadable'],
      [c, status(4, 100)],
    ])
    expect(decide({ answers })).toEqual({ kind: 'stand', inSync: [b, c] })
  })

  it('leaves the field to a longer log, but not for ever', () => {
    const answers = new Map([
      [a, status(4, 101)],
      [c, status(4, 100)],
    ])
    expect(decide({ answers, now: instant(999) }).kind).toBe('wait')
    expect(decide({ answers, now: instant(1000) }).kind).toBe('stand')
  })

  it('counts a later epoch as longer', () => {
    const answers = new Map([
      [a, status(5, 90)],
      [c, status(3, 500)],
    ])
    expect(decide({ answers, now: instant(500) }).kind).toBe('wait')
  })

  it('lets the successor go first', () => {
    const answers = new Map([
      [a, status(4, 100)],
      [c, status(4, 100)],
    ])
    const now = instant(300)
    expect(decide({ answers, now, record: record({ successor: b }) }).kind).toBe('stand')
    expect(decide({ answers, now, record: record({ successor: c }) }).kind).toBe('wait')
  })

  it('never lets a suspect copy stand while a member is silent', () => {
    const answers = new Map([[c, status(4, 50)]])
    expect(decide({ own: status(4, 100, true), answers }).kind).toBe('wait')
  })

  it('[I9] never lets a suspect copy stand while a member has one that it can not read', () => {
    const answers = new Map<NodeId, Answer>([
      [a, 'unreadable'],
      [c, status(4, 50, true)],
    ])
    expect(decide({ own: status(4, 100, true), answers }).kind).toBe('wait')
    expect(decide({ own: status(4, 100), answers }).kind).toBe('stand')
  })

  it('never lets a suspect copy stand before a sound one that holds as much', () => {
    const answers = new Map([
      [a, status(4, 100, true)],
      [c, status(4, 100)],
    ])
    expect(decide({ own: status(4, 100, true), answers }).kind).toBe('wait')
  })

  it('lets the longest stand when every host rebooted', () => {
    const answers = new Map([
      [a, status(4, 90, true)],
      [c, status(4, 100, true)],
    ])
    expect(decide({ own: status(4, 100, true), answers }).kind).toBe('stand')
    expect(decide({ own: status(4, 80, true), answers }).kind).toBe('wait')
  })
})
