/** One seeded run: a volume, clients, faults in the middle of writes, then calm in which all must heal. */
import { type Checksum, keys, type VolumeRecord } from '@holdfast/base'
import { SimClient, SimCluster, type SimNode } from './cluster.ts'

export interface FaultRunOptions {
  readonly seed: number
  readonly checksum: Checksum
  readonly verbose?: boolean
  /** Length of the time with faults, virtual milliseconds. */
  readonly chaosMs?: number
}

export interface FaultRunResult {
  readonly seed: number
  readonly violations: readonly string[]
  readonly timeline: readonly string[]
  readonly acknowledgedWrites: number
  readonly reads: number
  readonly elections: number
  readonly virtualMs: number
}

const HEAL_MS_MAX = 20_000

export function faultRun(options: FaultRunOptions): FaultRunResult {
  const { seed, checksum, verbose = false, chaosMs = 2_500 } = options
  const cluster = new SimCluster({ seed, checksum, nodeCount: 3, verbose, leaseTtlMs: 1_000 })
  const { random, violations } = cluster
  const replicaCount = random.chance(0.6) ? 3 : 2
  cluster.createVolume('v', replicaCount, 64)
  const owned = Array.from({ length: 1 + random.below(3) }, (_, client) =>
    Array.from({ length: 6 }, (_, index) => client * 8 + index),
  )
  const clients = owned.map((blocks) => new SimClient(cluster, 'v', blocks, owned.flat()))
  const end = cluster.world.now + chaosMs
  while (cluster.world.now < end && violations.length === 0) {
    cluster.run(random.between(20, 400))
    if (violations.length === 0) fault(cluster)
  }
  calm(cluster, clients)
  const elections = epochOf(cluster)
  const { acknowledgedWrites, reads } = cluster.checker
  const { timeline, now: virtualMs } = cluster.world
  return { seed, violations, timeline, acknowledgedWrites, reads, elections, virtualMs }
}

function epochOf(cluster: SimCluster): number {
  const epochs = cluster.alive.map((node) => node.engine?.admin.volume('default', 'v')?.record.epoch ?? 0)
  return Math.max(0, ...epochs)
}

/** As the coordinator has it, whoever has heard of it. */
function inSyncCount(cluster: SimCluster): number {
  const entry = cluster.coordinator.range(keys.volumes)[0]
  return entry === undefined ? 0 : (JSON.parse(entry.value) as VolumeRecord).inSync.length
}

/** One fault of a kind that the protocol promises to survive. */
function fault(cluster: SimCluster): void {
  const { random, network, coordinator, world, nodes } = cluster
  const some = (): SimNode => nodes[random.below(nodes.length)] as SimNode
  const victim = random.chance(0.6) ? (cluster.primaryOf('v') ?? some()) : some()
  const down = nodes.length - cluster.alive.length
  switch (random.below(8)) {
    case 0:
    case 1:
      cluster.crash(victim)
      break
    case 2:
      // Only where another copy has what this one may lose, and none has lost anything lately.
      if (down === 0 && inSyncCount(cluster) > 1 && cluster.healthy('v')) cluster.crashHost(victim)
      break
    case 3:
      for (const node of nodes) if (!node.life.alive && random.chance(0.7)) cluster.restart(node)
      break
    case 4:
      cluster.pause(victim, random.between(50, 2_500))
      break
    case 5: {
      if (random.chance(0.4)) {
        isolate(cluster, victim)
        break
      }
      const other = some()
      if (other === victim) break
      world.note(`${victim.name} and ${other.name} are cut`)
      network.cut(victim.name, other.name)
      network.cut(other.name, victim.name)
      if (random.chance(0.3)) coordinator.unreachableFrom.add(victim.name)
      break
    }
    case 6:
      if (random.chance(0.5)) {
        world.note('the coordinator is away')
        coordinator.down = true
      } else {
        world.note(`${victim.name} can't reach the coordinator`)
        coordinator.unreachableFrom.add(victim.name)
      }
      break
    case 7:
      if (random.chance(0.5)) network.breakOne()
      else mend(cluster)
      break
  }
}

/** A living host that nobody reaches: another is elected while its own clients still ask it. */
function isolate(cluster: SimCluster, victim: SimNode): void {
  cluster.world.note(`${victim.name} is alone`)
  for (const { name } of cluster.nodes) {
    if (name === victim.name) continue
    cluster.network.cut(victim.name, name)
    cluster.network.cut(name, victim.name)
  }
  cluster.coordinator.unreachableFrom.add(victim.name)
  cluster.run(cluster.random.between(500, 4_000))
}

function mend(cluster: SimCluster): void {
  cluster.world.note('network and coordinator are whole')
  cluster.network.heal()
  cluster.coordinator.unreachableFrom.clear()
  cluster.coordinator.restart()
}

/** The faults are over: everything must serve, be in sync and show what was acknowledged. */
function calm(cluster: SimCluster, clients: readonly SimClient[]): void {
  const { violations, world } = cluster
  if (violations.length > 0) return
  mend(cluster)
  for (const node of cluster.nodes) cluster.restart(node)
  if (!cluster.runUntil(HEAL_MS_MAX, () => cluster.healthy('v'))) {
    violations.push(`not healthy ${HEAL_MS_MAX} ms after the faults ended`)
    return
  }
  for (const client of clients) client.stopped = true
  cluster.runUntil(HEAL_MS_MAX, () => clients.every((client) => client.idle))
  for (const client of clients) {
    if (!client.idle) violations.push('a request was never answered')
  }
  let left = clients.length
  if (!cluster.runUntil(HEAL_MS_MAX, () => clients.every((client) => client.connect()))) {
    violations.push('the export is gone')
  }
  for (const client of clients) client.readAll(() => left--)
  if (!cluster.runUntil(HEAL_MS_MAX, () => left === 0)) violations.push('a read was never answered')
  world.note('done')
}
