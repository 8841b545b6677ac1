/** A busy node keeps the processors of its machine from sleeping: real nodes, a real device of the kernel's. */
import { accessSync, closeSync, constants, existsSync, openSync, readFileSync, readSync } from 'node:fs'
import { afterEach, describe, expect, it } from 'vitest'
import { waitUntil } from '../support/waiting.ts'
import { TestCluster, type TestNode } from './harness.ts'

const DEVICE = '/dev/cpu_dma_latency'
const DRIVER = '/sys/devices/system/cpu/cpuidle/current_driver'
const RARE = ['--rw=randwrite', '--bs=4k', '--rate_iops=4', '--size=16M', '--time_based', '--runtime=1']
const OFTEN = ['--rw=randwrite', '--bs=4k', '--rate_iops=2000', '--size=16M', '--time_based', '--runtime=6']

let cluster: TestCluster | undefined
afterEach(async () => {
  await cluster?.close()
  cluster = undefined
})

function mayAsk(): boolean {
  try {
    accessSync(DEVICE, constants.R_OK | constants.W_OK)
    return existsSync(DRIVER) && readFileSync(DRIVER, 'utf8').trim() !== 'none'
  } catch {
    return false
  }
}

async function awakeThreads(node: TestNode): Promise<number> {
  const metrics = await (await fetch(`${node.api}/metrics`)).text()
  return Number(/^holdfast_keep_awake_threads (\d+)$/m.exec(metrics)?.[1])
}

/** Microseconds: the least that anybody has asked for. */
function askedOfKernel(): number {
  const fd = openSync(DEVICE, 'r')
  const answer = new Int32Array(1)
  readSync(fd, answer)
  closeSync(fd)
  return answer[0] as number
}

describe.runIf(mayAsk())('two nodes with a copy each', () => {
  it('keep processors awake while requests come often, but for one that was told never to', { timeout: 60_000 }, async () => {
    const more = (name: string): string[] => ['--shards', '2', ...(name === 'c' ? ['--keep-awake', 'never'] : [])]
    cluster = await TestCluster.start({ nodes: ['a', 'b', 'c'], more })
    const nodes = ['a', 'b', 'c'].map((name) => (cluster as TestCluster).node(name))
    await cluster.cli(['volume', 'create', 'v', '--size', '16MiB', '--replicas', '3'], 'a')
    await cluster.healthy('v')
    const uri = `--uri=${cluster.node('a').uri('v')}`
    const threads = (): Promise<number[]> => Promise.all(nodes.map(awakeThreads))
    await waitUntil('all to be at rest', 10_000, async () => (await threads()).every((count) => count === 0))
    const askedByOthers = askedOfKernel()

    let busy = false
    let running = true
    const rarely = cluster.fio([uri, ...RARE]).finally(() => {
      running = false
    })
    while (running) if ((await threads()).some((count) => count > 0)) busy = true
    expect(await rarely).toMatchObject({ code: 0, error: 0 })
    expect(busy).toBe(false)

    const often = cluster.fio([uri, ...OFTEN])
    await waitUntil('both to keep awake', 6_000, async () => {
      const [a = 0, b = 0] = await threads()
      return a > 0 && b > 0
    })
    expect(askedOfKernel()).toBeLessThanOrEqual(Math.min(askedByOthers, 2))
    expect((await threads())[2]).toBe(0)
    expect(await often).toMatchObject({ code: 0, error: 0 })
    await waitUntil('both to let them sleep', 3_000, async () => (await threads()).every((count) => count === 0))
  })
})
