import { laneOf, type NodeId, type NodeRecord, nodeId, shardOf, type VolumeId, type VolumeRecord, volumeId } from '@holdfast/base'
import { describe, expect, it } from 'vitest'
import type { ClusterView } from './cluster-view.ts'
import { idInLane } from './lane-choice.ts'

const [A, B] = [nodeId('a'), nodeId('b')]

/** A cluster in which volumes are made one after the other. */
class Making {
  readonly ids: VolumeId[] = []
  readonly #view: ClusterView
  readonly #volumes = new Map<string, { record: VolumeRecord }>()

  constructor(shards: Readonly<Record<string, number | undefined>>) {
    const nodes = Object.entries(shards).map(([name, count]) => {
      const record = { name, ...(count === undefined ? {} : { shards: count }) } as unknown as NodeRecord
      return [nodeId(name), { record }] as const
    })
    this.#view = { nodes: new Map(nodes), volumes: this.#volumes } as unknown as ClusterView
  }

  make(...replicas: readonly NodeId[]): VolumeId {
    const digits = `00${'f'.repeat(8)}${String(this.ids.length).padStart(6, '0')}`
    const id = idInLane(digits, this.#view, replicas)
    expect(id.slice(0, 14)).toBe(digits.slice(0, 14))
    this.#volumes.set(id, { record: { id, replicas, primary: replicas[0] } as unknown as VolumeRecord })
    this.ids.push(id)
    return id
  }

  remove(id: VolumeId): void {
    this.#volumes.delete(id)
  }

  /** How many of them each shard of a node with so many has. */
  spread(count: number, ids: readonly VolumeId[] = this.ids): number[] {
    return Array.from({ length: count }, (_, shard) => ids.filter((id) => shardOf(id, count) === shard).length)
  }
}

describe('volumes made one after the other', () => {
  it('go round the shards, whatever number of them the nodes get later', () => {
    const making = new Making({ a: 4 })
    for (let i = 0; i < 40; i++) making.make(A)
    expect(making.ids.map(laneOf)).toEqual(Array.from({ length: 40 }, (_, i) => i))
    for (const count of [2, 4, 5, 8]) expect(new Set(making.spread(count)).size).toBe(1)
  })

  it('are spread on each node, although they are made for the nodes in turn', () => {
    const making = new Making({ a: 2, b: 2 })
    const own = new Map<NodeId, VolumeId[]>([[A, []], [B, []]])
    for (let i = 0; i < 20; i++) {
      const node = i % 2 === 0 ? A : B
      own.get(node)?.push(making.make(node))
    }
    for (const ids of own.values()) expect(making.spread(2, ids)).toEqual([5, 5])
  })

  it('spread primaries first where copies lie on several nodes', () => {
    const making = new Making({ a: 2, b: 1 })
    const mine = [A, B, A, B, A, B, A, B].map((first) => [first, making.make(first, first === A ? B : A)] as const)
    expect(making.spread(2, mine.filter(([first]) => first === A).map(([, id]) => id))).toEqual([2, 2])
  })

  it('take the place of one that was removed', () => {
    const making = new Making({ a: 2 })
    const [first] = [making.make(A), making.make(A), making.make(A), making.make(A)]
    making.remove(first)
    expect(laneOf(making.make(A))).toBe(0)
  })

  it('have a lane where no node knows of shards, too', () => {
    const making = new Making({ a: undefined })
    expect([making.make(A), making.make(A)].map(laneOf)).toEqual([0, 1])
    expect(laneOf(volumeId('of no hexadecimal digits'))).toBe(0)
  })
})
