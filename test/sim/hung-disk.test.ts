/** A disk that takes writes and ends no flush: nothing fails, and everything alive goes on answering. */
import { errno } from '@holdfast/base'
import { nativeChecksum } from '@holdfast/disk'
import { SimCluster, type SimNode } from '@holdfast/simulator'
import { describe, expect, it } from 'vitest'

const BLOCK = 4096
const VOLUME = 'v1'

function connect() {
  const cluster = new SimCluster({ seed: 3, checksum: nativeChecksum, nodeCount: 2 })
  cluster.createVolume(VOLUME, 2, 64)
  expect(cluster.runUntil(5_000, () => cluster.healthy(VOLUME))).toBe(true)
  const primary = cluster.primaryOf(VOLUME) as SimNode
  const other = cluster.nodes.find((node) => node !== primary) as SimNode
  const answers = new Map<number, number>()
  const session = primary.engine?.exports.open(VOLUME, (token, error) => answers.set(token, error))
  if (session === undefined) throw new Error('no export')
  const block = new Uint8Array(BLOCK).fill(7)
  session.write(1, 0, block, 0, BLOCK, false)
  expect(cluster.runUntil(5_000, () => answers.has(1))).toBe(true)
  return { cluster, primary, other, session, answers }
}

describe('a disk that hangs', () => {
  it.each(['primary', 'secondary'] as const)('of the %s costs a pause, not the volume', (whose) => {
    const { cluster, primary, other, session, answers } = connect()
    const hung = whose === 'primary' ? primary : other
    hung.platter.hang()
    session.flush(2)
    expect(cluster.runUntil(50_000, () => answers.has(2))).toBe(false)
    expect(cluster.runUntil(60_000, () => answers.has(2))).toBe(true)
    expect(answers.get(2)).toBe(errno.OK)
    const alive = hung === primary ? other : primary
    expect(cluster.record(VOLUME)?.inSync).toEqual([alive.name])
    const target = new Uint8Array(BLOCK)
    if (session.read(3, 0, BLOCK, target, 0)) answers.set(3, 0)
    expect(cluster.runUntil(20_000, () => answers.has(3))).toBe(true)
    expect(target.every((byte) => byte === 7)).toBe(true)
    // When it goes on, that copy comes back.
    hung.platter.goOn()
    expect(cluster.runUntil(150_000, () => cluster.healthy(VOLUME))).toBe(true)
  })

  it('takes no copy out where all of them hang', () => {
    const { cluster, primary, other, session, answers } = connect()
    for (const node of [primary, other]) node.platter.hang()
    session.flush(2)
    expect(cluster.runUntil(300_000, () => answers.has(2))).toBe(false)
    expect(cluster.record(VOLUME)?.inSync).toHaveLength(2)
    for (const node of [primary, other]) node.platter.goOn()
    expect(cluster.runUntil(5_000, () => answers.has(2))).toBe(true)
    expect(answers.get(2)).toBe(errno.OK)
  })
})
