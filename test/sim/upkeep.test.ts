/** What copies do about their own logs, in a cluster where nothing else happens. */
import { nativeChecksum } from '@holdfast/disk'
import { SimCluster } from '@holdfast/simulator'
import { expect, it } from 'vitest'

const BLOCK = 4096
const BLOCKS = 64
const VOLUME = 'v1'

it('a secondary keeps no more of a log that is overwritten all the time than its primary', () => {
  const log = { segmentBlocks: 16, settings: {}, maintenanceMs: 1_000, flushShare: 0 }
  const cluster = new SimCluster({ seed: 1, checksum: nativeChecksum, nodeCount: 2, log })
  cluster.createVolume(VOLUME, 2, BLOCKS)
  expect(cluster.runUntil(5_000, () => cluster.healthy(VOLUME))).toBe(true)
  const primary = cluster.primaryOf(VOLUME)
  const answers = new Set<number>()
  const session = primary?.engine?.exports.open(VOLUME, (token) => answers.add(token))
  if (primary === undefined || session === undefined) throw new Error('the volume has no primary')
  // Long enough for whoever was at rest to be so again.
  cluster.runUntil(10_000, () => false)
  const bytes = new Uint8Array(8 * BLOCK).fill(1)
  const most = new Map<string, number>()
  let token = 0
  const start = cluster.world.now
  while (cluster.world.now - start < 20_000) {
    token++
    session.write(token, (token % (BLOCKS / 8)) * bytes.length, bytes, 0, bytes.length, false)
    expect(cluster.runUntil(1_000, () => answers.has(token))).toBe(true)
    const next = cluster.world.now + 10
    cluster.runUntil(20, () => cluster.world.now >= next)
    for (const { name, engine } of cluster.nodes) {
      const [replica] = engine?.replicas.values() ?? []
      most.set(name, Math.max(most.get(name) ?? 0, replica?.view().segmentCount ?? 0))
    }
  }
  const [ofPrimary = 0, ofSecondary = 0] = [...most].sort(([name]) => (name === primary.name ? -1 : 1)).map(([, count]) => count)
  expect(ofPrimary).toBeGreaterThan(BLOCKS / log.segmentBlocks)
  expect(ofSecondary).toBeLessThan(1.5 * ofPrimary)
})
