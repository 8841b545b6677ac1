/** The measurements that several parts of the growth benchmark make. */
import { type BenchCluster, startNode } from '../bed/cluster.ts'
import { overNbd, runFio, timed } from '../bed/fio.ts'
import { Host, until } from '../bed/host.ts'
import { cpuSeconds, processCost } from '../bed/process-cost.ts'

export interface GrowthSettings {
  readonly seconds: number
  /** Of what is measured in rounds. */
  readonly rounds: number
  /** Smaller and fewer of everything. */
  readonly quick: boolean
  readonly say: (line: string) => void
  /** Told of every host in turn, so that the one in use can be closed from outside. */
  readonly use: (host: Host) => void
}

const CREATED_AT_ONCE = 8

const WRITE = ['--rw=randwrite', '--bs=4k', '--iodepth=32', '--norandommap']
const READ = ['--rw=randread', '--bs=4k', '--iodepth=32', '--norandommap']

/** With a host of its own, so that its data go away before the next one. */
export async function alone<Result>({ use }: GrowthSettings, body: (host: Host) => Promise<Result>): Promise<Result> {
  const host = new Host()
  use(host)
  try {
    return await body(host)
  } finally {
    await host.close()
  }
}

/** 4 KiB random writes, then reads, at depth 32 within the first `span` bytes. */
export async function speed(
  host: Host,
  uri: string,
  span: number,
  seconds: number,
  suffix = '',
): Promise<Record<string, number>> {
  const run = async (load: readonly string[]): Promise<number> => {
    const args = [...overNbd(uri), ...load, `--size=${span}`, ...timed(seconds)]
    return (await runFio(host, args)).figures.iops
  }
  return { [`writes/s${suffix}`]: await run(WRITE), [`reads/s${suffix}`]: await run(READ) }
}

/** Heap and stacks of all processes. */
export function memory(pids: readonly number[]): Record<string, number> {
  return { 'memory (MiB)': processCost(pids).anonymousMiB }
}

/** Time itself is part of what is measured here. */
export async function pause(seconds: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000))
}

/** Part of one core that processes use when nobody asks them for anything. */
export async function idleShare(pids: readonly number[], seconds: number): Promise<number> {
  const before = cpuSeconds(pids)
  const start = performance.now()
  await pause(seconds)
  return (cpuSeconds(pids) - before) / ((performance.now() - start) / 1000)
}

/** Volumes `v0`… with one copy each; resolves with the milliseconds that each of them took. */
export async function createVolumes(cluster: BenchCluster, count: number, size: number): Promise<number> {
  const names = Array.from({ length: count }, (_, i) => `v${i}`)
  const start = performance.now()
  const create = async (): Promise<void> => {
    for (let name = names.pop(); name !== undefined; name = names.pop()) {
      await cluster.api.createVolume({ namespace: 'default', name, size, replicas: 1 })
    }
  }
  await Promise.all(Array.from({ length: CREATED_AT_ONCE }, create))
  return (performance.now() - start) / count
}

/** New volumes come to rest one after another, some time after they were made. */
export async function settle({ quick }: GrowthSettings, count: number): Promise<void> {
  await pause(quick ? 5 : 30 + count / 20)
}

/** Stops the only node cleanly and starts it again: seconds until a client can read the volume. */
export async function reopen(
  host: Host,
  cluster: BenchCluster,
  exportName: string,
): Promise<{ readonly openSeconds: number; readonly pid: number; readonly uri: string }> {
  const node = cluster.nodes[0]
  if (node === undefined) throw new Error('the cluster has no node')
  await node.process.end('SIGTERM')
  const start = performance.now()
  const again = await startNode(host, node.name, 'embedded')
  const uri = `nbd+unix:///${exportName}?socket=${again.socket}`
  await until(`${exportName} to be served again`, async () => {
    return (await host.run('nbdinfo', ['--size', uri]).finished()) === 0
  })
  return { openSeconds: (performance.now() - start) / 1000, pid: again.process.pid, uri }
}
