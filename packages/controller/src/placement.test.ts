import { nodeId } from '@holdfast/base'
import { describe, expect, it } from 'vitest'
import { type PlacementNode, placeReplicas } from './placement.ts'

const GIB = 1024 ** 3

function node(name: string, change: Partial<PlacementNode> = {}): PlacementNode {
  return {
    name: nodeId(name),
    alive: true,
    draining: false,
    freeBytes: 100 * GIB,
    totalBytes: 200 * GIB,
    volumeCount: 0,
    labels: {},
    ...change,
  }
}

const zoned = (name: string, zone: string, change: Partial<PlacementNode> = {}): PlacementNode =>
  node(name, { labels: { zone }, ...change })

function placed(request: Partial<Parameters<typeof placeReplicas>[0]>) {
  const result = placeReplicas({ nodes: [], replicaCount: 2, sizeBytes: GIB, ...request })
  if (result.kind !== 'placed') throw new Error(result.reason)
  return result
}

describe('placeReplicas chooses', () => {
  const cases: readonly [string, Partial<Parameters<typeof placeReplicas>[0]>, string[]][] = [
    ['by name among equals', { nodes: [node('c'), node('a'), node('b')] }, ['a', 'b']],
    [
      'the node with the most free space',
      { nodes: [node('a'), node('b'), node('c', { freeBytes: 150 * GIB })] },
      ['c', 'a'],
    ],
    [
      'room per volume, not bare free space',
      { nodes: [node('a', { volumeCount: 9 }), node('b', { freeBytes: 60 * GIB }), node('c')] },
      ['c', 'b'],
    ],
    [
      'a node that fits the whole volume before one with more room per volume',
      {
        nodes: [node('a', { freeBytes: 30 * GIB }), node('b', { volumeCount: 20 }), node('c')],
        sizeBytes: 50 * GIB,
      },
      ['c', 'b'],
    ],
    [
      'a node too small for the whole volume when there is no other: thin provisioning',
      { nodes: [node('a', { freeBytes: GIB }), node('b')], sizeBytes: 500 * GIB },
      ['b', 'a'],
    ],
    [
      'distinct zones before space',
      { nodes: [zoned('a', 'x'), zoned('b', 'x'), zoned('c', 'y', { freeBytes: 5 * GIB })] },
      ['a', 'c'],
    ],
    [
      'the preferred node first',
      { nodes: [node('a'), node('b'), node('c')], prefer: nodeId('c') },
      ['c', 'a'],
    ],
    [
      'another zone than the preferred node',
      { nodes: [zoned('a', 'x'), zoned('b', 'y'), zoned('c', 'x')], prefer: nodeId('c') },
      ['c', 'b'],
    ],
    [
      'another zone than the kept copy, dead or not',
      {
        nodes: [zoned('a', 'x', { alive: false }), zoned('b', 'x'), zoned('c', 'y')],
        keep: [nodeId('a')],
      },
      ['a', 'c'],
    ],
    [
      'no excluded node',
      { nodes: [node('a'), node('b'), node('c')], exclude: [nodeId('a')] },
      ['b', 'c'],
    ],
    [
      'nodes of unknown size',
      { nodes: [node('a', { freeBytes: 0, totalBytes: 0 })], replicaCount: 1 },
      ['a'],
    ],
  ]
  it.each(cases)('%s', (_title, request, expected) => {
    expect(placed(request).replicas).toEqual(expected)
    const reversed = [...(request.nodes ?? [])].reverse()
    expect(placed({ ...request, nodes: reversed }).replicas).toEqual(expected)
  })

  it('says that a zone is shared only when zones are used and too few', () => {
    expect(placed({ nodes: [node('a'), node('b')] }).note).toBeUndefined()
    expect(placed({ nodes: [zoned('a', 'x'), zoned('b', 'y')] }).note).toBeUndefined()
    const result = placed({ nodes: [zoned('a', 'x'), zoned('b', 'x')] })
    expect(result.replicas).toEqual(['a', 'b'])
    expect(result.note).toContain('a and b share zone x')
  })

  it('says why the preferred node has no copy', () => {
    const nodes = [node('a'), node('b'), node('c', { draining: true })]
    expect(placed({ nodes, prefer: nodeId('c') }).note).toBe(
      "c can't take a copy (draining), so it has none",
    )
  })
})

describe('placeReplicas refuses', () => {
  const few = 'need 3 live nodes and there are 2'
  const cases: readonly [string, PlacementNode[], number, string][] = [
    [
      'too few nodes',
      [node('a'), node('b')],
      3,
      `3 replicas ${few}: start another node or ask for --replicas 2`,
    ],
    [
      'dead nodes',
      [node('a'), node('b'), node('c', { alive: false })],
      3,
      `3 replicas ${few}: start another node or ask for --replicas 2`,
    ],
    [
      'draining nodes',
      [node('a'), node('b'), node('c', { draining: true })],
      3,
      `3 replicas ${few} (c is draining): start another node or ask for --replicas 2`,
    ],
    ['no nodes', [], 1, '1 replica needs 1 live node and there are 0: start a node'],
    [
      'full nodes',
      [node('a'), node('b', { freeBytes: 1 })],
      2,
      '2 replicas need 2 nodes with 256 MiB free and there is 1 (b has too little free space): ' +
        'free space on b, start another node or ask for --replicas 1',
    ],
    ['nonsense', [node('a')], 0, "0 replicas can't be placed: ask for --replicas 1 or more"],
  ]
  it.each(cases)('%s', (_title, nodes, replicaCount, reason) => {
    const result = placeReplicas({ nodes, replicaCount, sizeBytes: GIB })
    expect(result).toEqual({ kind: 'impossible', reason })
  })
})
