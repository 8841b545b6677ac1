import {
  type AliveRecord,
  epoch,
  incarnation,
  instant,
  type NodeId,
  nodeId,
  volumeId,
} from '@holdfast/base'
import { describe, expect, it } from 'vitest'
import type {
  ControllerAction,
  ControllerInput,
  ControllerNode,
  ControllerTombstone,
  ControllerVolume,
} from './actions.ts'
import { Controller } from './controller.ts'

const GIB = 1024 ** 3
const ids = (names: string): NodeId[] => (names === '' ? [] : names.split(' ').map(nodeId))

/** `a` live, `-a` away, `~a` draining; `a/x` in zone x; `a!` without space. */
function nodes(text: string): ControllerNode[] {
  return text.split(' ').map((word) => {
    const name = nodeId(word.replace(/^[-~]+/, '').replace(/[/!].*$/, ''))
    const zone = /\/(\w+)/.exec(word)?.[1]
    const alive: AliveRecord = {
      name,
      incarnation: incarnation('i'),
      freeBytes: word.endsWith('!') ? 0 : 100 * GIB,
      totalBytes: 200 * GIB,
      since: '2026-01-01T00:00:00Z',
    }
    return {
      record: {
        name,
        host: 'h',
        peerPort: 1,
        apiPort: 2,
        nbdPort: 3,
        labels: zone === undefined ? {} : { zone },
        draining: word.startsWith('~'),
      },
      alive: word.startsWith('-') ? undefined : alive,
    }
  })
}

interface VolumeText {
  readonly name?: string
  readonly wanted?: number
  readonly inSync?: string
  readonly replicas?: string
  readonly primary?: string | undefined
  readonly modRevision?: number
  readonly successor?: string
  readonly labels?: Readonly<Record<string, string>>
  /** By the record. */
  readonly elected?: string
  readonly attached?: string
  readonly reign?: number
}

function volume(text: VolumeText): ControllerVolume {
  const { name = 'v', wanted = 2, inSync = 'a b', replicas = inSync, modRevision = 1 } = text
  const primary = 'primary' in text ? text.primary : ids(inSync)[0]
  return {
    key: `holdfast/v1/volumes/default/${name}`,
    modRevision,
    record: {
      id: volumeId(name),
      name,
      namespace: 'default',
      sizeBytes: GIB,
      replicaCount: wanted,
      failureMode: { kind: 'alwayson' },
      labels: text.labels ?? {},
      createdAt: '2026-01-01T00:00:00Z',
      segmentBlocks: 1024,
      epoch: epoch(1),
      primary: text.elected === undefined ? ids(inSync)[0] : nodeId(text.elected),
      inSync: ids(inSync),
      replicas: ids(replicas),
      ...(text.successor === undefined ? {} : { successor: nodeId(text.successor) }),
      ...(text.attached === undefined
        ? {}
        : { attachment: { node: nodeId(text.attached), generation: 7, confirmed: true, since: '2026-01-01T00:00:00Z' } }),
    },
    primary:
      primary === undefined
        ? undefined
        : { node: nodeId(primary), incarnation: incarnation('i'), epoch: epoch(text.reign ?? 1) },
  }
}

function input(
  now: number,
  nodeList: ControllerNode[],
  volumes: ControllerVolume[] = [],
  tombstones: ControllerTombstone[] = [],
): ControllerInput {
  return { now: instant(now), nodes: nodeList, volumes, tombstones }
}

/** One line for each action but events. */
function lines(actions: readonly ControllerAction[]): string[] {
  return actions.flatMap((action) => {
    if (action.kind === 'event') return []
    if (action.kind === 'update-volume') return [`replicas ${action.record.replicas.join(' ')}`]
    if (action.kind === 'move-primary') return [`move ${action.from} ${action.to}`]
    if (action.kind === 'retire-member') return [`retire ${action.node} at ${action.primary}`]
    return action.kind === 'update-tombstone'
      ? [`holders ${action.record.holders.join(' ')}`]
      : ['delete']
  })
}

const events = (actions: readonly ControllerAction[]): string[] =>
  actions.flatMap((action) => (action.kind === 'event' ? [action.message] : []))

/** What a controller does that has watched the same cluster for `watchedMs`. */
function after(watchedMs: number, nodeText: string, text: VolumeText): string[] {
  const controller = new Controller()
  controller.step(input(0, nodes(nodeText)))
  return lines(controller.step(input(watchedMs, nodes(nodeText), [volume(text)])))
}

describe('a volume that is attached', () => {
  /** What is done once the controller has seen the attachment for `ms`. */
  function following(ms: number, nodeText: string, text: VolumeText): string[] {
    const controller = new Controller()
    controller.step(input(0, nodes(nodeText), [volume(text)]))
    return lines(controller.step(input(ms, nodes(nodeText), [volume(text)])))
  }
  const cases: readonly [string, number, string, VolumeText, string[]][] = [
    ['stays where it is for a short job', 9_000, 'a b c', { attached: 'c' }, []],
    ['gets a copy at its host', 10_000, 'a b c', { attached: 'c' }, ['replicas a b c']],
    ['waits until that copy is in sync', 10_000, 'a b c', { attached: 'c', replicas: 'a b c' }, []],
    ['gets its primary there', 10_000, 'a b c', { attached: 'c', inSync: 'a b c' }, ['move a c']],
    ['gives up the copy too many, not the one of its host', 10_000, 'a b c', { attached: 'c', inSync: 'a b c', primary: 'c', elected: 'c' }, ['retire b at c']],
    ['is left alone at home', 10_000, 'a b c', { attached: 'a' }, []],
    ['stays when its host drains', 10_000, 'a b ~c', { attached: 'c' }, []],
    ['stays when its host has no space', 10_000, 'a b c!', { attached: 'c' }, []],
    ['is made whole first', 10_000, 'a b c d', { attached: 'd', inSync: 'a' }, ['replicas a b']],
    ['stays where it is told to', 10_000, 'a b c', { attached: 'c', labels: { 'holdfast.locality': 'off' } }, []],
  ]
  it.each(cases)('%s', (_, ms, nodeText, text, expected) => {
    expect(following(ms, nodeText, text)).toEqual(expected)
  })
})

describe('a volume', () => {
  const LONG = 600_000
  const cases: readonly [string, number, string, VolumeText, string[]][] = [
    ['healthy is left alone', LONG, 'a b c', {}, []],
    ['too few copies: one is added', 0, 'a b c', { inSync: 'a' }, ['replicas a b']],
    ['two too few: one at a time', 0, 'a b c', { wanted: 3, inSync: 'a' }, ['replicas a b']],
    ['waits for the copy that fills', 0, 'a b c', { wanted: 3, inSync: 'a', replicas: 'a b' }, []],
    ['no place for a copy', 0, 'a', { inSync: 'a' }, []],
    ['no space for a copy', 0, 'a b!', { inSync: 'a' }, []],
    ['a new copy goes to another zone', 0, 'a/x b/x c/y', { inSync: 'a' }, ['replicas a c']],
    ['a node just away is waited for', LONG - 1, 'a -b c', { inSync: 'a', replicas: 'a b' }, []],
    [
      'stays away: added first',
      LONG,
      'a -b c',
      { inSync: 'a', replicas: 'a b' },
      ['replicas a b c'],
    ],
    ['still in sync: added all the same', LONG, 'a -b c', {}, ['replicas a b c']],
    ['added and filling: wait', LONG, 'a -b c', { inSync: 'a', replicas: 'a b c' }, []],
    ['removed when filled', LONG, 'a -b c', { inSync: 'a c', replicas: 'a b c' }, ['replicas a c']],
    [
      'the dead one still in sync is dropped by the primary',
      LONG,
      'a -b c',
      { inSync: 'a b c' },
      ['retire b at a'],
    ],
    [
      'a removed node is replaced at once',
      0,
      'a c',
      { inSync: 'a', replicas: 'a b' },
      ['replicas a b c'],
    ],
    [
      'no primary: nothing',
      LONG,
      'a -b c',
      { inSync: 'a', replicas: 'a b', primary: undefined },
      [],
    ],
    ['a primary of another epoch: nothing', 0, 'a b c', { inSync: 'a', reign: 2 }, []],
    ['a primary that is not alive: nothing', LONG, '-a b c', {}, []],
    ['surplus out of sync goes', 0, 'a b c', { replicas: 'a b c' }, ['replicas a b']],
    [
      'surplus in sync is retired, not the primary',
      0,
      'a b c',
      { inSync: 'a b c' },
      ['retire c at a'],
    ],
    ['surplus shares a zone', 0, 'a/x b/x c/y', { inSync: 'a b c' }, ['retire b at a']],
    ['no surplus while too few are in sync', 0, 'a b c', { inSync: 'a', replicas: 'a b c' }, []],
    ['drain: added first', 0, 'a ~b c', {}, ['replicas a b c']],
    ['drain: waits', 0, 'a ~b c', { replicas: 'a b c' }, []],
    [
      'drain: retired when the other is in sync',
      0,
      'a ~b c',
      { inSync: 'a b c' },
      ['retire b at a'],
    ],
    ['drain: removed', 0, 'a ~b c', { inSync: 'a c', replicas: 'a b c' }, ['replicas a c']],
    ['drain of the primary: added first', 0, '~a b c', {}, ['replicas a b c']],
    ['drain of the primary: moved', 0, '~a b c', { inSync: 'a b c' }, ['move a b']],
    [
      'drain of the primary: the chosen successor stays',
      0,
      '~a b c',
      { inSync: 'a b c', successor: 'c' },
      ['move a c'],
    ],
    ['drain of the only copy', 0, '~a b', { wanted: 1, inSync: 'a' }, ['replicas a b']],
    ['drain without another node waits', 0, 'a ~b', {}, []],
    [
      'drain and dead: dead one goes first',
      LONG,
      'a ~b -c d',
      { inSync: 'a b d', replicas: 'a b c d' },
      ['replicas a b d'],
    ],
  ]
  it.each(cases)('%s', (_title, watchedMs, nodeText, text, expected) => {
    expect(after(watchedMs, nodeText, text)).toEqual(expected)
  })

  it('keeps everything of the record but replicas, and a successor that loses its copy', () => {
    const before = volume({ inSync: 'a b', replicas: 'a b c', successor: 'c', modRevision: 7 })
    const [action] = new Controller().step(input(0, nodes('a b c'), [before]))
    const { successor: _gone, ...rest } = before.record
    expect(action).toMatchObject({ kind: 'update-volume', key: before.key, modRevision: 7 })
    expect(action?.kind === 'update-volume' && action.record).toEqual({
      ...rest,
      replicas: ['a', 'b'],
    })
  })
})

describe('time and bounds', () => {
  it('counts absence anew after a return', () => {
    const controller = new Controller()
    const lost = [volume({ inSync: 'a', replicas: 'a b' })]
    controller.step(input(0, nodes('a -b c'), lost))
    controller.step(input(599_000, nodes('a b c'), lost))
    expect(lines(controller.step(input(600_000, nodes('a -b c'), lost)))).toEqual([])
    expect(lines(controller.step(input(1_199_999, nodes('a -b c'), lost)))).toEqual([])
    expect(lines(controller.step(input(1_200_000, nodes('a -b c'), lost)))).toEqual([
      'replicas a b c',
    ])
  })

  it('repeats a request only after a while, and at once when the record changed', () => {
    const controller = new Controller()
    const at = (now: number, modRevision: number): string[] =>
      lines(controller.step(input(now, nodes('a b'), [volume({ inSync: 'a', modRevision })])))
    expect(
      [at(0, 1), at(9_999, 1), at(10_000, 1), at(10_001, 2)].map((list) => list.length),
    ).toEqual([1, 0, 1, 1])
  })

  it('does not ask for a move again because the record got its successor', () => {
    const controller = new Controller()
    const list = nodes('~a b c')
    const at = (now: number, text: VolumeText): string[] =>
      lines(controller.step(input(now, list, [volume({ inSync: 'a b c', ...text })])))
    expect(at(0, {})).toEqual(['move a b'])
    expect(at(1_000, { successor: 'b', modRevision: 2 })).toEqual([])
    expect(at(10_000, { successor: 'b', modRevision: 2 })).toEqual(['move a b'])
  })

  it('fills at most the set number of copies on a node, requests not yet seen included', () => {
    const controller = new Controller({ rebuildsPerNodeMax: 3 })
    const many = Array.from({ length: 10 }, (_, n) => volume({ name: `v${n}`, inSync: 'a' }))
    expect(lines(controller.step(input(0, nodes('a b'), many)))).toHaveLength(3)
    expect(lines(controller.step(input(1, nodes('a b'), many)))).toHaveLength(0)
    expect(lines(controller.step(input(2, nodes('a b c'), many)))).toEqual(
      Array.from({ length: 3 }, () => 'replicas a c'),
    )
  })

  it('waits for the other zone rather than share one for good', () => {
    const controller = new Controller({ rebuildsPerNodeMax: 1 })
    const many = Array.from({ length: 3 }, (_, n) => volume({ name: `v${n}`, inSync: 'a' }))
    expect(lines(controller.step(input(0, nodes('a/x b/x c/y'), many)))).toEqual(['replicas a c'])
  })

  it('bounds the actions of a step and serves the most endangered volume first', () => {
    const controller = new Controller({ actionsPerStepMax: 1 })
    const list = [
      volume({ name: 'm', wanted: 3, inSync: 'a b' }),
      volume({ name: 'n', wanted: 3, inSync: 'c' }),
    ]
    expect(lines(controller.step(input(0, nodes('a b c'), list)))).toEqual(['replicas c a'])
    expect(lines(controller.step(input(1, nodes('a b c'), list)))).toEqual(['replicas a b c'])
  })

  it('spreads the moves of a drained node', () => {
    const list = ['p', 'q'].map((name) => volume({ name, inSync: 'a b c' }))
    expect(lines(new Controller().step(input(0, nodes('~a b c'), list)))).toEqual([
      'move a b',
      'move a c',
    ])
  })
})

describe('events', () => {
  it('tells once that a node is away, stays away and is back', () => {
    const controller = new Controller()
    const at = (now: number, text: string): string[] =>
      events(controller.step(input(now, nodes(text))))
    expect(at(0, 'a b')).toEqual([])
    expect(at(1, 'a -b')).toEqual(['node is away'])
    expect(at(2, 'a -b')).toEqual([])
    expect(at(600_001, 'a -b')).toEqual(['node stays away, its copies are made anew'])
    expect(at(600_002, 'a -b')).toEqual([])
    expect(at(600_003, 'a b')).toEqual(['node is back'])
  })

  it('tells once for all volumes why no copy can be placed, and when that ends', () => {
    const controller = new Controller()
    const list = ['p', 'q'].map((name) => volume({ name, inSync: 'a' }))
    const first = controller.step(input(0, nodes('a'), list))
    expect(first).toEqual([
      {
        kind: 'event',
        level: 'warn',
        message:
          '2 replicas need 2 live nodes and there is 1: start another node or ask for --replicas 1',
        fields: { volumes: 2, first: 'holdfast/v1/volumes/default/p' },
      },
    ])
    expect(controller.step(input(1, nodes('a'), list))).toEqual([])
    expect(events(controller.step(input(2, nodes('a b'), list)))).toEqual([
      'no volume lacks a place for a copy any more',
    ])
  })
})

describe('tombstones', () => {
  const cases: readonly [string, string, string, string[]][] = [
    ['holders that are nodes stay, away or not', 'a -b', 'a b', []],
    ['holders without a node record go', 'a', 'a b', ['holders a']],
    ['none left: deleted', 'c', 'a b', ['delete']],
    ['an empty one: deleted', 'a', '', ['delete']],
  ]
  it.each(cases)('%s', (_title, nodeText, holders, expected) => {
    const tombstone: ControllerTombstone = {
      key: 't',
      modRevision: 3,
      record: {
        id: volumeId('v'),
        name: 'v',
        namespace: 'default',
        holders: ids(holders),
        removedAt: '2026-01-01T00:00:00Z',
      },
    }
    const controller = new Controller()
    expect(lines(controller.step(input(0, nodes(nodeText), [], [tombstone])))).toEqual(expected)
    expect(lines(controller.step(input(1, nodes(nodeText), [], [tombstone])))).toEqual([])
  })

  it('does nothing on an empty view', () => {
    const record = {
      id: volumeId('v'),
      name: 'v',
      namespace: 'd',
      holders: ids('a'),
      removedAt: '',
    }
    const tombstone = { key: 't', modRevision: 1, record }
    expect(new Controller().step(input(0, [], [], [tombstone]))).toEqual([])
  })
})
