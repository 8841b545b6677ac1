/**
 * `npm run sim:scale [-- --nodes 10,50,200]`: what grows with the cluster, by simulation. Ten volumes of three copies per
 * node; a rack (a tenth of the nodes) loses power. Prints, per size: time until every volume serves again, operations at
 * the coordinator per second idle and during the recovery, and memory of all nodes together. Virtual time throughout.
 */
import { parseArgs } from 'node:util'
import { nativeChecksum } from '@holdfast/disk'
import { SimCluster } from '@holdfast/simulator'

const VOLUMES_PER_NODE = 10
const LEASE_TTL_MS = 3_000
const CREATED_AT_ONCE = 50

const { values } = parseArgs({ options: { nodes: { type: 'string', default: '10,50,200' } } })

process.stdout.write('nodes | volumes | created in s | idle ops/s | rack | all serve after s | ops/s then | MiB a node\n')
for (const count of values.nodes.split(',').map(Number)) measure(count)

function measure(nodeCount: number): void {
  const rackSize = Math.max(1, Math.floor(nodeCount / 10))
  const cluster = new SimCluster({
    seed: nodeCount,
    checksum: nativeChecksum,
    nodeCount,
    leaseTtlMs: LEASE_TTL_MS,
    labels: (index) => ({ zone: `rack-${Math.floor(index / rackSize)}` }),
  })
  const { world, coordinator } = cluster
  const volumes = Array.from({ length: nodeCount * VOLUMES_PER_NODE }, (_, index) => `v${index}`)
  const all = (holds: (name: string) => boolean) => (): boolean => volumes.every(holds)
  must(
    cluster.runUntil(60_000, () => {
      const nodes = cluster.nodes.map(({ engine }) => engine?.admin)
      return nodes.every((admin) => admin?.readiness().ready === true && admin.nodes().length === nodeCount)
    }),
    'the nodes did not find each other',
  )
  const begun = world.now
  for (let first = 0; first < volumes.length; first += CREATED_AT_ONCE) {
    const names = volumes.slice(first, first + CREATED_AT_ONCE)
    for (const [index, name] of names.entries()) create(cluster, name, first + index)
    must(
      cluster.runUntil(120_000, () => names.every((name) => (cluster.record(name)?.epoch ?? 0) > 0)),
      `volumes ${names[0]} and following do not serve`,
    )
  }
  const createdS = (world.now - begun) / 1000
  const idle = perSecond(cluster, 10_000)
  const victims = cluster.nodes.slice(0, rackSize)
  const hit = new Set<string>(victims.map(({ name }) => name))
  const callsBefore = coordinator.calls
  const lostAt = world.now
  cluster.crashHosts(victims)
  const serves = (name: string): boolean => {
    const record = cluster.record(name)
    if (record === undefined || record.primary === undefined || hit.has(record.primary)) return false
    return record.inSync.every((node) => !hit.has(node))
  }
  must(cluster.runUntil(300_000, all(serves)), 'not every volume serves after the loss of a rack')
  const seconds = (world.now - lostAt) / 1000
  const during = (coordinator.calls - callsBefore) / seconds
  const memory = process.memoryUsage().rss / 2 ** 20 / nodeCount
  const row = [nodeCount, volumes.length, createdS.toFixed(1), idle.toFixed(0), rackSize, seconds.toFixed(1)]
  process.stdout.write(`${[...row, during.toFixed(0), memory.toFixed(1)].join(' | ')}\n`)
}

function create(cluster: SimCluster, name: string, index: number): void {
  const { engine } = cluster.nodes[index % cluster.nodes.length] ?? {}
  const request = { name, namespace: 'default', sizeBytes: 2 ** 26, replicaCount: 3, labels: {} }
  engine?.admin.createVolume(request).catch((error: unknown) => {
    process.stderr.write(`${name}: ${String(error)}\n`)
  })
}

function perSecond(cluster: SimCluster, ms: number): number {
  const { coordinator } = cluster
  const before = coordinator.calls
  cluster.run(ms)
  return ((coordinator.calls - before) * 1000) / ms
}

function must(holds: boolean, problem: string): void {
  if (!holds) throw new Error(problem)
}
