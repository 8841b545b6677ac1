/** The parts of the growth benchmark; each on nodes of its own. */
import { createVolume, startCluster } from '../bed/cluster.ts'
import { overNbd, runFio, timed } from '../bed/fio.ts'
import type { Host } from '../bed/host.ts'
import { cpuSeconds } from '../bed/process-cost.ts'
import { alone, createVolumes, type GrowthSettings, idleShare, memory, reopen, settle, speed } from './measure.ts'
import type { Part, Point } from './points.ts'

const GIB = 2 ** 30
const MIB = 2 ** 20

async function point(
  settings: GrowthSettings,
  x: number,
  what: string,
  measure: (host: Host) => Promise<Record<string, number>>,
): Promise<Point> {
  settings.say(what)
  return { x, figures: await alone(settings, measure) }
}

export async function volumeSize(settings: GrowthSettings): Promise<Part> {
  const points: Point[] = []
  for (const gib of [1, 16, 256, 1024, 4096]) {
    points.push(
      await point(settings, gib, `a volume of ${gib} GiB`, async (host) => {
        const cluster = await startCluster(host, 'node', 1)
        const { uri } = await createVolume(cluster, 'v', 1, gib * GIB)
        // The same blocks in every size first: what remains is the size's own cost.
        const same = await speed(host, uri, GIB, settings.seconds)
        const all = await speed(host, uri, gib * GIB, settings.seconds, ' all over it')
        const used = memory(cluster.pids)
        const { openSeconds } = await reopen(host, cluster, 'v')
        return { ...same, ...all, ...used, 'open time (s)': openSeconds }
      }),
    )
  }
  const title = 'Size of a sparse volume'
  return { key: 'volume-size', title, axis: 'volume size (GiB)', logarithmic: true, points }
}

export async function volumeCount(settings: GrowthSettings): Promise<Part> {
  const points: Point[] = []
  for (const count of settings.quick ? [1, 10, 100] : [1, 10, 100, 500, 1000, 2000]) {
    points.push(
      await point(settings, count, `${count} volumes on a node`, async (host) => {
        const cluster = await startCluster(host, 'node', 1)
        const createMs = await createVolumes(cluster, count, GIB)
        await settle(settings, count)
        const idle = await idleShare(cluster.pids, settings.quick ? 5 : 20)
        const used = memory(cluster.pids)
        const uri = `nbd+unix:///v0?socket=${cluster.nodes[0]?.socket}`
        const busy = await speed(host, uri, 256 * MIB, settings.seconds)
        const { openSeconds } = await reopen(host, cluster, 'v0')
        const rest = { 'open time (s)': openSeconds, 'created in (ms)': createMs, 'idle CPU (% of a core)': idle * 100 }
        return { ...busy, ...used, ...rest }
      }),
    )
  }
  return { key: 'volume-count', title: 'Volumes on a node, one of them busy', axis: 'volumes', logarithmic: true, points }
}

export async function clientCount(settings: GrowthSettings): Promise<Part> {
  const points: Point[] = []
  for (const count of settings.quick ? [1, 4, 16] : [1, 2, 4, 8, 16, 32, 64]) {
    points.push(
      await point(settings, count, `${count} clients of a volume`, async (host) => {
        const cluster = await startCluster(host, 'node', 1)
        const { uri } = await createVolume(cluster, 'v', 1, GIB)
        const jobs = [`--numjobs=${count}`, '--thread', '--iodepth=4', '--bs=4k', '--size=256M', '--norandommap']
        const run = async (kind: string): Promise<{ iops: number; p99Us: number }> => {
          const args = [...overNbd(uri), `--rw=rand${kind}`, ...jobs, ...timed(settings.seconds)]
          return (await runFio(host, args)).figures
        }
        const writes = await run('write')
        const reads = await run('read')
        const latency = { 'p99 of writes (µs)': writes.p99Us, 'p99 of reads (µs)': reads.p99Us }
        return { 'writes/s': writes.iops, 'reads/s': reads.iops, ...latency, ...memory(cluster.pids) }
      }),
    )
  }
  return { key: 'clients', title: 'Clients of one volume, depth 4 each', axis: 'clients', logarithmic: true, points }
}

export async function fragmentation(settings: GrowthSettings): Promise<Part> {
  const size = (settings.quick ? 64 : 512) * MIB
  const times = settings.quick ? [0, 1, 3] : [0, 1, 3, 10]
  const points: Point[] = []
  await point(settings, 0, `${size / MIB} MiB, overwritten again and again`, async (host) => {
    const cluster = await startCluster(host, 'node', 1)
    const { uri } = await createVolume(cluster, 'v', 1, size)
    const run = (args: readonly string[]) => runFio(host, [...overNbd(uri), `--size=${size}`, ...args])
    await run(['--rw=write', '--bs=1M', '--iodepth=8', '--refill_buffers=1', '--end_fsync=1'])
    let written = 0
    for (const x of times) {
      settings.say(`overwritten ${x} times`)
      if (x > written) {
        const load = ['--rw=randwrite', '--bs=4k', '--iodepth=32', '--norandommap', '--end_fsync=1']
        await run([...load, `--io_size=${(x - written) * size}`])
        written = x
      }
      const busy = await speed(host, uri, size, settings.seconds)
      const sequential = await run(['--rw=read', '--bs=1M', '--iodepth=8', ...timed(settings.seconds)])
      const { local } = await cluster.api.volume({ namespace: 'default', name: 'v' })
      const space = (local?.logBytes ?? Number.NaN) / Math.max(local?.mappedBytes ?? 0, 1)
      const reading = sequential.figures.bytesPerSecond / 1e6
      const rest = { '1 MiB reads (MB/s)': reading, 'log over mapped bytes': space }
      points.push({ x, figures: { ...busy, ...rest, ...memory(cluster.pids) } })
    }
    return {}
  })
  const title = 'Fragmentation: a full volume, overwritten at random'
  return { key: 'fragmentation', title, axis: 'times overwritten', logarithmic: false, points }
}

export async function replicaCount(settings: GrowthSettings): Promise<Part> {
  const points: Point[] = []
  for (const replicas of settings.quick ? [1, 2, 3] : [1, 2, 3, 4, 5]) {
    points.push(
      await point(settings, replicas, `${replicas} copies`, async (host) => {
        const cluster = await startCluster(host, 'node', replicas)
        const { uri } = await createVolume(cluster, 'v', replicas, GIB)
        const before = cpuSeconds(cluster.pids)
        const load = ['--rw=randwrite', '--bs=4k', '--size=256M', '--norandommap', ...timed(settings.seconds)]
        const deep = (await runFio(host, [...overNbd(uri), ...load, '--iodepth=32'])).figures
        const cpu = ((cpuSeconds(cluster.pids) - before) * 1e6) / deep.requests
        const single = (await runFio(host, [...overNbd(uri), ...load, '--iodepth=1'])).figures
        const flush = (await runFio(host, [...overNbd(uri), ...load, '--iodepth=1', '--fsync=1'])).figures
        return {
          'writes/s, depth 32': deep.iops,
          'writes/s, depth 1': single.iops,
          'writes with flush/s': flush.iops,
          'CPU s per million writes, depth 32': cpu,
          ...memory(cluster.pids),
        }
      }),
    )
  }
  return { key: 'replicas', title: 'Copies, a node each, all on this machine', axis: 'copies', logarithmic: false, points }
}
