/** What must hold when a node dies, stops, or its coordinator is away: real processes, real etcd, real NBD clients. */
import { afterEach, describe, expect, it } from 'vitest'
import { TestCluster } from './harness.ts'
import { sleep, waitUntil } from '../support/waiting.ts'

const NODES = ['a', 'b', 'c']
/** Every block that was acknowledged is read back and compared at the end. */
const VERIFIED = ['--rw=randwrite', '--bs=4k', '--iodepth=8', '--verify=crc32c', '--verify_fatal=1', '--do_verify=1']
const size = process.env['HOLDFAST_E2E_SIZE'] ?? '48M'

let cluster: TestCluster | undefined
afterEach(async () => {
  await cluster?.close()
  cluster = undefined
})

async function start(replicas: number): Promise<{ cluster: TestCluster; primary: string; other: string }> {
  cluster = await TestCluster.start({ nodes: NODES, leaseTtlSeconds: 2 })
  await cluster.cli(['volume', 'create', 'v', '--size', '1GiB', '--replicas', String(replicas)])
  const { primary } = await cluster.healthy('v')
  const other = NODES.find((name) => name !== primary) as string
  return { cluster, primary: primary as string, other }
}

describe.each([3, 2])('[I1, I5] a volume with %i copies', (replicas) => {
  it('survives kill -9 of its primary in the middle of verified writes', { timeout: 120_000 }, async () => {
    const { cluster, primary, other } = await start(replicas)
    const job = cluster.fio([`--uri=${cluster.node(other).uri('v')}`, `--size=${size}`, '--rate_iops=4000', ...VERIFIED])
    await sleep(1500)
    await cluster.node(primary).stop()
    await waitUntil('another primary', 10_000, async () => {
      const { primary: now, state } = await cluster.volume('v', other)
      return now !== undefined && now !== primary && state !== 'unavailable'
    })
    await cluster.node(primary).start()
    const result = await job
    expect(result).toMatchObject({ code: 0, error: 0 })
    console.log(`kill -9, ${replicas} copies: longest pause ${result.pauseMs.toFixed(0)} ms`)
    expect(result.pauseMs).toBeLessThan(10_000)
    const healed = await cluster.healthy('v')
    expect(healed.inSync).toHaveLength(replicas)
    expect(healed.epoch).toBeGreaterThan(1)
  })

  it('survives SIGSTOP of its primary for longer than the lease', { timeout: 120_000 }, async () => {
    const { cluster, primary, other } = await start(replicas)
    const job = cluster.fio([`--uri=${cluster.node(other).uri('v')}`, `--size=${size}`, '--rate_iops=4000', ...VERIFIED])
    await sleep(1500)
    cluster.node(primary).signal('SIGSTOP')
    await waitUntil('another primary', 15_000, async () => {
      const { primary: now } = await cluster.volume('v', other)
      return now !== undefined && now !== primary
    })
    await sleep(1000)
    cluster.node(primary).signal('SIGCONT')
    const result = await job
    expect(result).toMatchObject({ code: 0, error: 0 })
    console.log(`SIGSTOP, ${replicas} copies: longest pause ${result.pauseMs.toFixed(0)} ms`)
    // The survivor is the witness: until its coordinator's stream is back, the woken node answers from the view it
    // fell asleep with, and that says healthy too.
    const healed = await cluster.healthy('v', other)
    expect(healed.inSync).toHaveLength(replicas)
    expect(healed.primary).not.toBe(primary)
    await waitUntil('the woken node to see the new primary', 10_000, async () => {
      const { primary: seen, epoch } = await cluster.volume('v', primary)
      return seen === healed.primary && epoch === healed.epoch
    })
  })
})

describe('a planned move', () => {
  it('is a short pause without an error', { timeout: 60_000 }, async () => {
    const { cluster, primary, other } = await start(3)
    const job = cluster.fio([
      `--uri=${cluster.node(other).uri('v')}`,
      ...['--size=64M', '--rw=randrw', '--bs=4k', '--iodepth=4', '--time_based', '--runtime=6', '--rate_iops=2000,2000'],
    ])
    let at = primary
    for (let move = 0; move < 3; move++) {
      await sleep(1500)
      const to = NODES.find((name) => name !== at) as string
      await cluster.cli(['volume', 'move-primary', 'v', '--to', to], 'c')
      at = to
    }
    const result = await job
    expect(result).toMatchObject({ code: 0, error: 0 })
    console.log(`move-primary: longest pause ${result.pauseMs.toFixed(0)} ms`)
    expect((await cluster.healthy('v')).primary).toBe(at)
  })
})

describe('[I8] an outage of etcd', () => {
  it('stops no healthy volume and changes no hands', { timeout: 180_000 }, async () => {
    const { cluster, primary, other } = await start(3)
    const seconds = Number(process.env['HOLDFAST_E2E_OUTAGE_SECONDS'] ?? 8)
    const before = await cluster.volume('v')
    const job = cluster.fio([
      `--uri=${cluster.node(other).uri('v')}`,
      ...['--size=64M', '--rw=randrw', '--bs=4k', '--iodepth=4', '--time_based', `--runtime=${seconds + 6}`],
      '--rate_iops=1000,1000',
    ])
    await sleep(1500)
    await cluster.etcd?.members[0]?.stop()
    await sleep(seconds * 1000)
    await cluster.etcd?.members[0]?.start()
    const result = await job
    expect(result).toMatchObject({ code: 0, error: 0 })
    console.log(`etcd away for ${seconds} s: longest pause ${result.pauseMs.toFixed(0)} ms`)
    expect(result.pauseMs).toBeLessThan(2_000)
    const after = await cluster.healthy('v')
    expect(after).toMatchObject({ primary, epoch: before.epoch })
  })
})
