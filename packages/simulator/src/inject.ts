/** Makes a planned fault happen, and end. */
import type { NodeId } from '@holdfast/base'
import type { SimCluster } from './cluster.ts'
import type { Fault, Victim } from './faults.ts'
import type { SimNode } from './observed.ts'
import type { SimClient } from './sim-client.ts'

const NODES_MAX = 6

export interface Stage {
  readonly cluster: SimCluster
  readonly volumes: readonly string[]
  readonly clients: readonly SimClient[]
  /** The node whose disk is damaged by bit flips and bad sectors: one per run, so that a good copy is left. */
  damaged: SimNode | undefined
}

export function inject(stage: Stage, fault: Fault): void {
  const { cluster } = stage
  const { world, network, coordinator, random } = cluster
  const later = (ms: number, task: () => void): void => {
    world.schedule(ms, undefined, task)
  }
  switch (fault.kind) {
    case 'process-crash':
    case 'host-crash': {
      const node = victimOf(stage, fault.victim)
      if (!node.life.alive) return
      if (fault.kind === 'host-crash') cluster.crashHosts([node])
      else cluster.crash(node)
      later(fault.forMs, () => cluster.restart(node))
      break
    }
    case 'power-loss':
      cluster.crashHosts(cluster.nodes)
      for (const node of cluster.nodes) later(fault.forMs * random.between(0.5, 1), () => cluster.restart(node))
      break
    case 'pause':
      cluster.pause(victimOf(stage, fault.victim), fault.forMs)
      break
    case 'sleep':
      cluster.sleep(victimOf(stage, fault.victim), fault.forMs)
      break
    case 'clean-restart':
      cluster.restartCleanly(victimOf(stage, fault.victim), fault.wire)
      break
    case 'partition': {
      const [a, b] = [victimOf(stage, fault.victim), victimOf(stage, fault.other)]
      const ways: [NodeId, NodeId][] = []
      if (fault.direction !== 'in') ways.push([a.name, b.name])
      if (fault.direction !== 'out') ways.push([b.name, a.name])
      if (a !== b) cut(cluster, ways, fault.forMs)
      break
    }
    case 'isolation': {
      const { name } = victimOf(stage, fault.victim)
      const others = cluster.nodes.filter((node) => node.name !== name)
      cut(cluster, others.flatMap((node): [NodeId, NodeId][] => [[name, node.name], [node.name, name]]), fault.forMs)
      if (fault.fromCoordinator) unreachable(cluster, name, fault.forMs)
      break
    }
    case 'connection-loss':
      world.note(`${fault.count} connections break`)
      for (let left = fault.count; left > 0; left--) network.breakOne()
      break
    case 'slow-network':
      world.note(`the network is ${fault.factor} times slower for ${fault.forMs} ms`)
      network.slowness = fault.factor
      later(fault.forMs, () => (network.slowness = 1))
      break
    case 'coordinator-outage':
      world.note(`the coordinator is away for ${fault.forMs} ms`)
      coordinator.down = true
      later(fault.forMs, () => coordinator.restart())
      break
    case 'coordinator-partition':
      unreachable(cluster, victimOf(stage, fault.victim).name, fault.forMs)
      break
    case 'slow-coordinator':
      world.note(`the coordinator is ${fault.factor} times slower for ${fault.forMs} ms`)
      coordinator.slowness = fault.factor
      later(fault.forMs, () => (coordinator.slowness = 1))
      break
    case 'late-watches':
      world.note(`watch events come up to ${fault.lagMs} ms late`)
      coordinator.watchLagMs = fault.lagMs
      later(fault.forMs, () => (coordinator.watchLagMs = 0))
      break
    case 'watch-compaction':
      world.note("the coordinator's history is compacted")
      coordinator.compact()
      break
    case 'node-joins':
      if (cluster.nodes.length < NODES_MAX) cluster.addNode()
      break
    case 'client-vanishes':
      world.note('a client goes away')
      stage.clients[Math.floor(fault.pick * (stage.clients.length - 1))]?.vanish()
      break
    case 'move-primary':
      movePrimary(stage, stage.volumes[fault.volume] ?? '')
      break
    default:
      injectIntoNode(stage, fault)
  }
}

function injectIntoNode(
  stage: Stage,
  fault: Extract<Fault, { kind: 'slow-disk' | 'full-disk' | 'hung-disk' | 'disk-error' | 'bit-flip' | 'bad-sector' | 'clock-jump' | 'drain' }>,
): void {
  const { world } = stage.cluster
  const node = victimOf(stage, fault.victim)
  const { platter, name } = node
  const later = (ms: number, task: () => void): void => {
    world.schedule(ms, undefined, task)
  }
  switch (fault.kind) {
    case 'slow-disk':
      world.note(`the disk of ${name} is ${fault.factor} times slower for ${fault.forMs} ms`)
      platter.slowness = fault.factor
      later(fault.forMs, () => (platter.slowness = 1))
      break
    case 'full-disk':
      world.note(`the disk of ${name} is full for ${fault.forMs} ms`)
      platter.capacityBytes = platter.usedBytes
      later(fault.forMs, () => (platter.capacityBytes = 2 ** 40))
      break
    case 'hung-disk':
      world.note(`the disk of ${name} ends no flush for ${fault.forMs} ms`)
      platter.hang()
      later(fault.forMs, () => platter.goOn())
      break
    case 'disk-error':
      world.note(`every ${fault.operation} of ${name} fails for ${fault.forMs} ms`)
      platter.failing.add(fault.operation)
      later(fault.forMs, () => platter.failing.delete(fault.operation))
      break
    case 'bit-flip':
      stage.damaged ??= node
      if (stage.damaged !== node) return
      for (let left = fault.count; left > 0; left--) world.note(`${name}: a bit flips in ${platter.flipBit()}`)
      stage.cluster.invariants.expectLosses()
      break
    case 'bad-sector':
      // What can't be read is never taken for what was never written: no losses are expected.
      stage.damaged ??= node
      if (stage.damaged !== node) return
      if (fault.crashMs !== undefined && node.life.alive) {
        stage.cluster.crash(node)
        later(fault.crashMs, () => stage.cluster.restart(node))
      }
      for (let left = fault.count; left > 0; left--) world.note(`${name}: a sector goes bad in ${platter.spoil()}`)
      if (fault.healsAfterMs === undefined) return
      later(fault.healsAfterMs, () => {
        world.note(`${name}: every sector can be read again`)
        platter.heal()
      })
      break
    case 'clock-jump':
      world.note(`the wall clock of ${name} jumps by ${fault.ms} ms`)
      node.clock.wallOffsetMs += fault.ms
      break
    case 'drain':
      setDraining(stage.cluster, name, true)
      later(fault.forMs, () => setDraining(stage.cluster, name, false))
      break
  }
}

/** The node that plays that part now; somebody when nobody does. */
export function victimOf({ cluster, volumes }: Stage, { volume, role, pick }: Victim): SimNode {
  const name = volumes[volume] ?? ''
  const primary = cluster.primaryOf(name)
  if (role === 'primary' && primary !== undefined) return primary
  const replicas = cluster.record(name)?.replicas ?? []
  const secondaries = cluster.nodes.filter((node) => node !== primary && replicas.includes(node.name))
  const from = role === 'secondary' && secondaries.length > 0 ? secondaries : cluster.nodes
  return from[Math.min(from.length - 1, Math.floor(pick * from.length))] as SimNode
}

function cut(cluster: SimCluster, ways: readonly [NodeId, NodeId][], forMs: number): void {
  const { world, network } = cluster
  world.note(`cut for ${forMs} ms: ${ways.map(([from, to]) => `${from} to ${to}`).join(', ')}`)
  for (const [from, to] of ways) network.cut(from, to)
  world.schedule(forMs, undefined, () => {
    for (const [from, to] of ways) network.mend(from, to)
  })
}

function unreachable(cluster: SimCluster, name: NodeId, forMs: number): void {
  cluster.world.note(`${name} can't reach the coordinator for ${forMs} ms`)
  cluster.coordinator.unreachableFrom.add(name)
  cluster.world.schedule(forMs, undefined, () => cluster.coordinator.unreachableFrom.delete(name))
}

function setDraining(cluster: SimCluster, name: NodeId, draining: boolean): void {
  cluster.world.note(`${name} ${draining ? 'is drained' : 'is drained no more'}`)
  const [asked] = cluster.alive
  // Refused while the cluster is not whole: an administrator would ask again, the schedule goes on.
  asked?.engine?.admin.setDraining(name, draining).catch(() => {})
}

function movePrimary(stage: Stage, volume: string): void {
  const { cluster } = stage
  cluster.world.note(`the primary of ${volume} is asked to move`)
  const [asked] = cluster.alive
  asked?.engine?.admin.movePrimary('default', volume, undefined).catch(() => {})
}
