/** Threads as a node has them, in this process. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ApiClient } from '@holdfast/api/client'
import { nodeId, shardOf, volumeId } from '@holdfast/base'
import { openEmbeddedCoordinator } from '@holdfast/coordinator/embedded'
import { SharedCoordinator } from '@holdfast/coordinator/shared'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { readConfig } from './config.ts'
import { startStorageNode } from './node.ts'
import { Shards } from './shards.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-shards-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let left = 1000; !(await holds()); left--) {
    if (left === 0) throw new Error('in vain')
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

const quiet = { event: () => {}, failure: () => {} }

describe('a node with three shards', () => {
  it('serves volumes on each of them, and again after a stop', async () => {
    const anyPorts = { nbd: '127.0.0.1:0', api: '127.0.0.1:0', peer: '127.0.0.1:0' }
    const flags = { name: 'a', 'data-dir': join(folder, 'a'), shards: 3, ...anyPorts }
    const config = readConfig({ flags, defaults: { logLevel: 'error' } })
    const names = ['u', 'v', 'w']
    for (let life = 1; life <= 2; life++) {
      const node = await startStorageNode(config, quiet)
      const client = new ApiClient({ url: node.addresses.api })
      if (life === 1) for (const name of names) await client.createVolume({ name, size: '10MiB' })
      for (const name of names) {
        await until(async () => {
          const { primary, local } = await client.volume({ namespace: 'default', name })
          return primary === 'a' && local?.role === 'primary'
        })
      }
      const ids = (await client.volumes()).map(({ id }) => shardOf(volumeId(id), 3))
      expect(ids.sort()).toEqual([0, 1, 2])
      if (life === 2) {
        for (const name of names) await client.removeVolume({ namespace: 'default', name })
        // Each shard gives the space of its own back.
        await until(() => readdirSync(join(folder, 'a', 'volumes')).length === 0)
      }
      await node.close()
    }
  })
})

describe('a shard that ends by itself', () => {
  it('is told, whatever it ended of', async () => {
    const real = openEmbeddedCoordinator({ file: join(folder, 'journal'), events: quiet })
    const coordinator = new SharedCoordinator(real)
    const died: string[] = []
    const birth = { node: nodeId('a'), logLevel: 'error', dataDir: folder, bootId: 'b', cluster: 'c', settings: {}, keepAwake: false } as const
    const shards = new Shards({ count: 3, birth, coordinator, nbdClosed: () => {}, died: (error) => died.push(error.message) })
    // What the servers of the main thread do while the node still starts, or when it can't.
    await shards.refresh()
    await shards.closeNbd()
    expect(died).toEqual([])
    // A bug: no shard may be asked for anything before it is told to start.
    shards.handLink({ fd: -1, unread: new Uint8Array(), hello: { toShard: 2 } as never })
    await until(() => died.length > 0)
    expect(died).toEqual([expect.stringContaining('shard 2 has died: a shard is told to start first')])
    await shards.abandon()
    expect(died).toHaveLength(1)
    await new Promise<void>((done) => real.close(done))
  })
})
