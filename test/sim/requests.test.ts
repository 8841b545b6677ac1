/** Single requests of a client, in a cluster where nothing else happens. */
import type { ExportSession } from '@holdfast/base'
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
  ask(submit: (token: number) => boolean | undefined): number
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
  const ask: Client['ask'] = (submit) => {
    token++
    if (submit(token) === true) answers.set(token, 0)
    expect(cluster.runUntil(20_000, () => answers.has(token))).toBe(true)
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
