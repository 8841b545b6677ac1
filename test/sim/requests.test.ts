/** Single requests of a client, in a cluster where nothing else happens. */
import { errno, type ExportSession, type VolumeId } from '@holdfast/base'
import { nativeChecksum } from '@holdfast/disk'
import { SimCluster, type SimNode } from '@holdfast/simulator'
import { describe, expect, it } from 'vitest'

const BLOCK = 4096
const VOLUME = 'v1'

interface Client {
  readonly cluster: SimCluster
  readonly primary: SimNode
  readonly session: ExportSession
  /** Runs until the request that `submit` makes is answered, and gives its error. */
  ask(submit: (token: number) => boolean | undefined, waitMs?: number): number
}

function connect(replicaCount: number, blocks = 64): Client {
  const cluster = new SimCluster({ seed: 1, checksum: nativeChecksum, nodeCount: replicaCount })
  cluster.createVolume(VOLUME, replicaCount, blocks)
  expect(cluster.runUntil(5_000, () => cluster.healthy(VOLUME))).toBe(true)
  const primary = cluster.primaryOf(VOLUME)
  const answers = new Map<number, number>()
  const session = primary?.engine?.exports.open(VOLUME, (token, error) => answers.set(token, error))
  if (primary === undefined || session === undefined) throw new Error('the volume has no primary')
  let token = 0
  const ask: Client['ask'] = (submit, waitMs = 20_000) => {
    token++
    if (submit(token) === true) answers.set(token, 0)
    expect(cluster.runUntil(waitMs, () => answers.has(token))).toBe(true)
    return answers.get(token) ?? -1
  }
  return { cluster, primary, session, ask }
}

describe('a buffer that was reserved for a large write', () => {
  it('is free again when the write is not aligned', () => {
    const { session, ask } = connect(1)
    const length = 64 * 1024
    const buffers = new Set<ArrayBufferLike>()
    for (let round = 0; round < 20; round++) {
      const reserved = session.reserve(length)
      buffers.add(reserved.buffer)
      reserved.fill(round + 1)
      expect(ask((token) => void session.writeReserved(token, 512, reserved, false))).toBe(0)
    }
    expect(buffers.size).toBeLessThan(8)
    const target = new Uint8Array(length + BLOCK)
    expect(ask((token) => session.read(token, 0, length + BLOCK, target, 0))).toBe(0)
    expect(target.indexOf(20)).toBe(512)
    expect(target.lastIndexOf(20)).toBe(511 + length)
  })
})

describe('a large write that comes in parts', () => {
  it('is whole on every copy, whatever it was cut into and whether it comes at all', () => {
    const { cluster, session, ask } = connect(2)
    const length = 16 * BLOCK
    const parts = [[], [BLOCK], [1, BLOCK - 1, BLOCK + 1, length - 1], [length - BLOCK, length - BLOCK + 1]]
    for (const [round, ends] of parts.entries()) {
      // One whose client goes away before the end.
      const left = session.reserve(length)
      left.fill(200)
      session.received(left, 5 * BLOCK)
      session.unreserve(left)
      const reserved = session.reserve(length)
      let from = 0
      for (const end of ends) {
        reserved.fill(round + 1, from, end)
        session.received(reserved, end)
        from = end
      }
      reserved.fill(round + 1, from)
      expect(ask((token) => void session.writeReserved(token, round * length, reserved, false))).toBe(0)
    }
    expect(cluster.runUntil(5_000, () => cluster.healthy(VOLUME))).toBe(true)
    const target = new Uint8Array(length)
    for (const round of parts.keys()) {
      expect(ask((token) => session.read(token, round * length, length, target, 0))).toBe(0)
      expect([target.indexOf(round + 1), target.lastIndexOf(round + 1)]).toEqual([0, length - 1])
    }
  })
})

describe('a read of a damaged block', () => {
  it('is answered by the next primary when the reign ends before it is mended', () => {
    const { cluster, primary, session, ask } = connect(2)
    const record = cluster.record(VOLUME)
    const log = record === undefined ? undefined : primary.engine?.replicas.get(record.id)?.log
    if (record === undefined || log === undefined) throw new Error('the primary has no log')
    expect(ask((token) => void session.write(token, 0, new Uint8Array(BLOCK).fill(7), 0, BLOCK, true))).toBe(0)
    const page = log.appendedLsn - 1
    expect(primary.platter.flipBitAt(`volumes/${record.id}/segment-000000000000`, page)).toBe(true)
    cluster.invariants.expectLosses()
    for (const other of cluster.nodes) {
      if (other === primary) continue
      cluster.network.cut(primary.name, other.name)
      cluster.network.cut(other.name, primary.name)
    }
    cluster.coordinator.unreachableFrom.add(primary.name)
    cluster.world.schedule(6_000, undefined, () => {
      cluster.network.heal()
      cluster.coordinator.unreachableFrom.clear()
    })
    const target = new Uint8Array(BLOCK)
    expect(ask((token) => session.read(token, 0, BLOCK, target, 0))).toBe(0)
    expect(target.every((byte) => byte === 7)).toBe(true)
    expect(cluster.record(VOLUME)?.epoch).toBe(2)
    expect(cluster.violations).toEqual([])
  })
})

describe('a volume that nobody uses', () => {
  const resting = ({ cluster }: Client): boolean =>
    cluster.nodes.every(({ engine }) => [...(engine?.replicas.values() ?? [])].every((replica) => replica.resting))

  const idle = (replicaCount: number): Client => {
    const client = connect(replicaCount)
    const bytes = new Uint8Array(BLOCK).fill(7)
    expect(client.ask((token) => void client.session.write(token, 0, bytes, 0, BLOCK, true))).toBe(0)
    client.cluster.run(30_000)
    expect(resting(client)).toBe(true)
    return client
  }

  it('answers at once when it is used again', () => {
    const { cluster, session } = idle(3)
    const bytes = new Uint8Array(BLOCK)
    let answered = session.read(1, 0, BLOCK, bytes, 0) === true
    // No message, no disk: a second of virtual time would be a tick that was waited for.
    if (!answered) answered = cluster.runUntil(10, () => bytes[0] === 7)
    expect([answered, bytes[0]]).toEqual([true, 7])
  })

  it('drops a secondary that has died, and is whole again when it is back', () => {
    const client = idle(3)
    const { cluster, primary, session, ask } = client
    const dead = cluster.nodes.find((node) => node !== primary)
    if (dead === undefined) throw new Error('there is one node only')
    cluster.crash(dead)
    expect(cluster.runUntil(15_000, () => cluster.record(VOLUME)?.inSync.length === 2)).toBe(true)
    expect(ask((token) => void session.write(token, BLOCK, new Uint8Array(BLOCK), 0, BLOCK, false))).toBe(0)
    cluster.restart(dead)
    expect(cluster.runUntil(20_000, () => cluster.healthy(VOLUME) && cluster.record(VOLUME)?.inSync.length === 3)).toBe(true)
    expect(cluster.runUntil(30_000, () => resting(client))).toBe(true)
    expect(cluster.violations).toEqual([])
  })

  it('gets another primary when its own has died', () => {
    const { cluster, primary } = idle(2)
    cluster.crash(primary)
    expect(cluster.runUntil(15_000, () => cluster.record(VOLUME)?.primary !== primary.name)).toBe(true)
    expect(cluster.runUntil(5_000, () => cluster.primaryOf(VOLUME) !== undefined)).toBe(true)
    expect(cluster.violations).toEqual([])
  })
})

describe('a volume with fewer copies than its failure mode asks for', () => {
  it('says EIO to writes after a while, answers reads and flushes, and goes on when a copy is back', () => {
    const { cluster, primary, session, ask } = connect(3)
    const others = cluster.nodes.filter((node) => node !== primary)
    const bytes = new Uint8Array(BLOCK).fill(7)
    expect(ask((token) => void session.write(token, 0, bytes, 0, BLOCK, true))).toBe(0)
    for (const node of others) cluster.crash(node)
    expect(ask((token) => void session.write(token, BLOCK, bytes, 0, BLOCK, false), 40_000)).toBe(errno.EIO)
    // A client that goes on all the same finds no end of room: what can't commit would stay in memory and in the log.
    const log = (): number => primary.engine?.replicas.get(cluster.record(VOLUME)?.id as VolumeId)?.log?.appendedLsn ?? -1
    const end = log()
    for (let i = 0; i < 50; i++) {
      expect(ask((token) => void session.write(token, (2 + i) * BLOCK, bytes, 0, BLOCK, i % 2 === 0))).toBe(errno.EIO)
    }
    expect(log()).toBe(end)
    // What was acknowledged is on the one copy that is left.
    expect(ask((token) => void session.flush(token))).toBe(0)
    const target = new Uint8Array(BLOCK)
    expect(ask((token) => session.read(token, 0, BLOCK, target, 0))).toBe(0)
    expect(target.every((byte) => byte === 7)).toBe(true)
    for (const node of others) cluster.restart(node)
    expect(cluster.runUntil(20_000, () => cluster.healthy(VOLUME))).toBe(true)
    expect(ask((token) => void session.write(token, BLOCK, bytes, 0, BLOCK, true))).toBe(0)
    expect(cluster.violations).toEqual([])
  })
})
