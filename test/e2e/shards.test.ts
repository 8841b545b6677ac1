/** Nodes whose volumes are spread over threads: real processes, real etcd, real NBD clients. */
import { shardOf, volumeId } from '@holdfast/base'
import { afterEach, describe, expect, it } from 'vitest'
import { TestCluster } from './harness.ts'
import { sleep, waitUntil } from '../support/waiting.ts'

const VERIFIED = ['--rw=randwrite', '--bs=4k', '--iodepth=8', '--verify=crc32c', '--verify_fatal=1', '--do_verify=1']
const VOLUMES = ['u', 'v']
const size = process.env['HOLDFAST_E2E_SIZE'] ?? '48M'

let cluster: TestCluster | undefined
afterEach(async () => {
  await cluster?.close()
  cluster = undefined
})

/** Two volumes with a copy on every node; all primaries at `a`. */
async function start(shards: Readonly<Record<string, number>>, etcd = true): Promise<TestCluster> {
  const nodes = Object.keys(shards)
  const more = (name: string): string[] => ['--shards', String(shards[name])]
  cluster = await TestCluster.start({ nodes, leaseTtlSeconds: 2, etcd, more })
  for (const name of VOLUMES) {
    await cluster.cli(['volume', 'create', name, '--size', '1GiB', '--replicas', String(nodes.length)], 'a')
  }
  for (const name of VOLUMES) expect((await cluster.healthy(name)).primary).toBe('a')
  return cluster
}

describe('two volumes made one after the other', () => {
  it('are on two threads, with everything that is known of them, and outlive every kind of stop', { timeout: 120_000 }, async () => {
    const cluster = await start({ a: 2 }, false)
    const node = cluster.node('a')
    const ids = await Promise.all(VOLUMES.map(async (name) => volumeId((await cluster.volume(name)).id)))
    expect(ids.map((id) => shardOf(id, 2)).sort()).toEqual([0, 1])
    for (const end of ['SIGTERM', 'SIGKILL'] as const) {
      const runs = VOLUMES.map((name) => cluster.fio([`--uri=${node.uri(name)}`, `--size=${size}`, ...VERIFIED]))
      for (const result of await Promise.all(runs)) expect(result).toMatchObject({ code: 0, error: 0 })
      const metrics = await (await fetch(`${node.api}/metrics`)).text()
      for (const name of VOLUMES) {
        expect(metrics).toMatch(new RegExp(`^holdfast_requests_total\\{volume="default/${name}",operation="write"\\} [1-9]`, 'm'))
        expect((await cluster.volume(name)).local).toMatchObject({ role: 'primary' })
      }
      await waitUntil('the clients to be gone', 5_000, async () => {
        return /^holdfast_nbd_connections 0$/m.test(await (await fetch(`${node.api}/metrics`)).text())
      })
      await node.stop(end)
      await node.start()
      for (const name of VOLUMES) await cluster.healthy(name)
    }
    expect(node.log).not.toMatch(/"level":"error"/)
  })
})

describe.each([
  { a: 2, b: 2, c: 2 },
  { a: 2, b: 2, c: 1 },
  { a: 3, b: 1, c: 2 },
])('[I1, I5] nodes with %o threads', (shards) => {
  it('hand both volumes on when the primary is killed in the middle of verified writes', { timeout: 120_000 }, async () => {
    const cluster = await start(shards)
    const runs = VOLUMES.map((name, at) => {
      const uri = cluster.node(at === 0 ? 'b' : 'c').uri(name)
      return cluster.fio([`--uri=${uri}`, `--size=${size}`, '--rate_iops=4000', ...VERIFIED])
    })
    await sleep(1500)
    await cluster.node('a').stop()
    for (const name of VOLUMES) {
      await waitUntil(`another primary of ${name}`, 10_000, async () => {
        const { primary, state } = await cluster.volume(name, 'b')
        return primary !== undefined && primary !== 'a' && state !== 'unavailable'
      })
    }
    await cluster.node('a').start()
    for (const result of await Promise.all(runs)) {
      expect(result).toMatchObject({ code: 0, error: 0 })
      console.log(`kill -9, ${JSON.stringify(shards)}: longest pause ${result.pauseMs.toFixed(0)} ms`)
      expect(result.pauseMs).toBeLessThan(10_000)
    }
    for (const name of VOLUMES) {
      expect((await cluster.healthy(name)).inSync).toHaveLength(3)
      // And back, as planned moves.
      await cluster.cli(['volume', 'move-primary', name, '--to', 'a'], 'c')
      expect((await cluster.healthy(name)).primary).toBe('a')
    }
  })
})
