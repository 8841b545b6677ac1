/** One seeded run: volumes, clients, faults in the middle of writes, then calm in which all must heal. */
import type { Checksum } from '@holdfast/base'
import { SimCluster, type SimLog } from './cluster.ts'
import { type Fault, type FaultKind, MAY_FAIL_REQUESTS, planFaults } from './faults.ts'
import { inject, type Stage } from './inject.ts'
import type { Invariants } from './invariants.ts'
import { SimClient } from './sim-client.ts'
import { UNIT } from './units.ts'
import { WIRE_VERSIONS, type WireVersion } from './wire-versions.ts'
import { SeededRandom } from './world.ts'

/** Everything that a run is made of: the same plan gives the same run. */
export interface RunPlan {
  readonly seed: number
  readonly nodeCount: number
  readonly volumes: readonly { readonly name: string; readonly replicaCount: number; readonly clientCount: number }[]
  readonly leaseTtlMs: number
  readonly replaceAfterMs: number
  readonly clockRates: readonly number[]
  readonly wire: WireVersion | undefined
  /** Threads of each node; absent: one each. */
  readonly shards?: readonly number[] | undefined
  readonly lengthMs: number
  /** Mean pause between two requests of a client, milliseconds. */
  readonly thinkMs: number
  readonly faults: readonly Fault[]
  /** Absent: logs as in production, which a run is too short to fill. */
  readonly log?: SimLog | undefined
}

export interface RunResult {
  readonly plan: RunPlan
  readonly violations: readonly string[]
  readonly timeline: readonly string[]
  readonly acknowledgedWrites: number
  readonly reads: number
  readonly clientErrors: number
  /** How often each invariant was looked at. */
  readonly looks: Invariants['looks']
  readonly elections: number
  /** From the end of the faults until all was whole. */
  readonly healMs: number
  readonly virtualMs: number
}

export interface PlanOptions {
  /** Length of the time with faults, virtual milliseconds. */
  readonly lengthMs?: number | undefined
  readonly kinds?: readonly FaultKind[] | undefined
  /** Nodes with several threads; everything else of a seed stays as it is. */
  readonly shards?: boolean | undefined
}

const BLOCKS = 48
const UNITS = (BLOCKS * 4096) / UNIT
const HEAL_MS_MAX = 40_000
const ANSWER_MS_MAX = 20_000
/** A volume with too few copies, whose only whole one is damaged, says EIO after 30 s. */
const REFUSAL_MS_MAX = 45_000
/** What is not committed by then, with no fault left, is held up by more than the way of a batch. */
const COMMIT_MS_MAX = 500
/** Clocks may run fast or slow by so much. */
const CLOCK_SKEW = 0.03

/** What a seed stands for. */
export function planRun(seed: number, { lengthMs, kinds, shards = false }: PlanOptions = {}): RunPlan {
  const random = new SeededRandom(seed)
  const nodeCount = 3 + (random.chance(0.3) ? 1 + random.below(2) : 0)
  const volumeCount = random.chance(0.7) ? 1 : 2 + random.below(2)
  const volumes = Array.from({ length: volumeCount }, (_, index) => ({
    name: `v${index + 1}`,
    replicaCount: random.chance(0.1) ? 1 : random.chance(0.55) ? 3 : 2,
    clientCount: 1 + random.below(volumeCount === 1 ? 3 : 2),
  }))
  const skewed = random.chance(0.4)
  const rates = Array.from({ length: 6 }, () => (skewed ? 1 + CLOCK_SKEW * random.between(-1, 1) : 1))
  const length = lengthMs ?? Math.round(random.between(600, 4_000))
  return {
    seed,
    nodeCount,
    volumes,
    leaseTtlMs: 1_000,
    replaceAfterMs: random.chance(0.3) ? Math.round(random.between(1_000, 4_000)) : 600_000,
    clockRates: rates,
    wire: random.chance(0.15) ? WIRE_VERSIONS[random.below(2)] : undefined,
    shards: shards ? planShards(new SeededRandom(~seed)) : undefined,
    lengthMs: length,
    thinkMs: Math.round(3 * 15 ** random.fraction()),
    faults: planFaults({ random: random.child(), lengthMs: length, leaseTtlMs: 1_000, volumeCount, kinds }),
    log: planLog(new SeededRandom(seed ^ 0x5050_5050)),
  }
}

/** Logs that soon overwrite themselves, in most seeds, and clients that flush now and then or hardly ever. */
function planLog(random: SeededRandom): SimLog | undefined {
  if (random.chance(0.25)) return undefined
  const segmentBlocks = 16 << random.below(3)
  const segmentBytes = segmentBlocks * 4096
  return {
    segmentBlocks,
    settings: {
      reserveBytes: 0,
      checkpointBytesMin: segmentBytes * (1 + random.below(4)),
      spareFilesMax: random.below(5),
      spareBytesMax: 0,
      compactionSlackSegments: 1 + random.below(4),
      deadSegmentsMax: 1 + random.below(4),
      softDeadSegmentsMin: 1 + random.below(3),
      softRoundsMax: 1 + random.below(60),
      softBytesMax: segmentBytes * (random.chance(0.3) ? 3 : 1_000),
      deadFreeShareMax: 0,
      mapWholePages: 0,
    },
    maintenanceMs: Math.round(random.between(50, 500)),
    flushShare: random.chance(0.4) ? 1 : random.between(0, 0.15),
  }
}

function planShards(random: SeededRandom): number[] {
  const same = random.chance(0.5) ? 2 + random.below(2) : undefined
  return Array.from({ length: 6 }, () => same ?? 1 + random.below(3))
}

/** Plays a plan. `verbose` also takes the events of the engines into the timeline. */
export function faultRun(plan: RunPlan, checksum: Checksum, verbose = false): RunResult {
  const { seed, nodeCount, leaseTtlMs, replaceAfterMs, clockRates, wire } = plan
  const cluster = new SimCluster({
    seed,
    checksum,
    nodeCount,
    leaseTtlMs,
    replaceAfterMs,
    clockRates,
    wire,
    verbose,
    log: plan.log,
    shards: plan.shards,
  })
  // Has the first lane, which is the main thread's everywhere: what is looked at is then also elsewhere.
  if (plan.shards !== undefined) cluster.createVolume('idle', 1, BLOCKS)
  for (const { name, replicaCount } of plan.volumes) cluster.createVolume(name, replicaCount, BLOCKS)
  const clients = cluster.violations.length > 0 ? [] : makeClients(cluster, plan)
  const stage: Stage = { cluster, volumes: plan.volumes.map(({ name }) => name), clients, damaged: undefined }
  const begin = cluster.world.now
  for (const fault of plan.faults) cluster.world.schedule(fault.atMs, undefined, () => inject(stage, fault))
  cluster.run(plan.lengthMs)
  const calmAt = cluster.world.now
  const healMs = calm(stage, plan) - calmAt
  if (!plan.faults.some(({ kind }) => MAY_FAIL_REQUESTS.has(kind))) {
    for (const error of cluster.clientErrors) cluster.violation(error)
  }
  const checkers = [...cluster.checkers.values()]
  return {
    plan,
    violations: cluster.violations,
    timeline: cluster.world.timeline,
    acknowledgedWrites: checkers.reduce((sum, one) => sum + one.acknowledgedWrites, 0),
    reads: checkers.reduce((sum, one) => sum + one.reads, 0),
    clientErrors: cluster.clientErrors.length,
    looks: cluster.invariants.looks,
    elections: stage.volumes.reduce((sum, name) => sum + (cluster.record(name)?.epoch ?? 0), 0),
    healMs,
    virtualMs: cluster.world.now - begin,
  }
}

/** Each client has a run of units of its own, and some that lie between those of the others. */
function makeClients(cluster: SimCluster, plan: RunPlan): SimClient[] {
  return plan.volumes.flatMap(({ name, clientCount }) =>
    Array.from({ length: clientCount }, (_, client) => {
      const own = Math.floor(UNITS / 2 / clientCount)
      const units: number[] = []
      for (let at = 0; at < Math.min(own, 40); at++) units.push(client * own + at)
      for (let unit = UNITS / 2 + client; unit < UNITS / 2 + 24; unit += clientCount) units.push(unit)
      const flushShare = plan.log?.flushShare ?? 1
      return new SimClient({ cluster, volume: name, units, unitCount: UNITS, thinkMs: plan.thinkMs, flushShare })
    }),
  )
}

/** The faults are over: everything must serve, be in sync and show what was acknowledged. Returns when all was whole. */
function calm(stage: Stage, plan: RunPlan): number {
  const { cluster, volumes, clients } = stage
  const { world, network, coordinator } = cluster
  if (cluster.violations.length > 0) return world.now
  world.note('the faults are over')
  // What was planned to end later ends now.
  cluster.threadsStall = false
  network.heal()
  network.slowness = 1
  coordinator.unreachableFrom.clear()
  coordinator.slowness = 1
  coordinator.watchLagMs = 0
  coordinator.restart()
  for (const node of cluster.nodes) {
    node.platter.slowness = 1
    node.platter.capacityBytes = 2 ** 40
    node.platter.failing.clear()
    node.platter.goOn()
    cluster.restart(node)
  }
  for (const node of cluster.nodes) undrain(stage, node.name)
  const stopping = (): boolean => cluster.nodes.some(({ stopping, life }) => stopping === life && life.alive)
  const whole = (): boolean => !stopping() && volumes.every((volume) => cluster.healthy(volume))
  // Where no disk is damaged, nothing that was proven to be on a disk may be missing there.
  const lost = (): boolean => stage.damaged !== undefined && volumes.some((volume) => cluster.isDamaged(volume))
  if (!cluster.runUntil(HEAL_MS_MAX, () => whole() || lost())) {
    for (const volume of volumes) {
      if (!cluster.healthy(volume) && !beyondRepair(stage, volume)) {
        const record = JSON.stringify(cluster.record(volume))
        cluster.violation(`${volume} is not whole ${HEAL_MS_MAX} ms after the faults: ${record}`)
      }
    }
    return world.now
  }
  if (lost()) return world.now
  const wholeAt = world.now
  finish(stage, clients)
  if (cluster.violations.length === 0) staysWhole(stage, plan, whole)
  world.note('done')
  return wholeAt
}

/**
 * The only complete copy is damaged where no other is whole, and an operator must decide (I9): it can't be read, or what it
 * can't feed the others is not committed, which takes them: the cluster runs on for a moment to see that.
 */
function beyondRepair({ cluster, damaged }: Stage, volume: string): boolean {
  if (damaged === undefined) return false
  const record = cluster.record(volume)
  const log = record && damaged.engine?.replicas.get(record.id)?.log
  const before = log?.committedLsn ?? 0
  cluster.run(COMMIT_MS_MAX)
  const stuck = record?.primary === damaged.name && log !== undefined && log.committedLsn === before && before < log.appendedLsn
  return stuck || cluster.isDamaged(volume)
}

/** Whole for a moment may be whole because nobody has noticed yet: after a lease's time it must be so still, or again. */
function staysWhole(stage: Stage, plan: RunPlan, whole: () => boolean): void {
  const { cluster, volumes } = stage
  cluster.run(plan.leaseTtlMs * 1.5)
  const differences = (): string[] => {
    return volumes.map((volume) => cluster.invariants.copiesAreTheSame(volume)).filter((one) => one !== undefined)
  }
  if (cluster.runUntil(HEAL_MS_MAX, () => whole() && differences().length === 0)) return
  if (volumes.some((volume) => beyondRepair(stage, volume))) return
  for (const difference of differences()) cluster.violation(difference)
  if (!whole()) cluster.violation('not whole for good after the faults')
}

function undrain({ cluster }: Stage, name: SimCluster['nodes'][number]['name']): void {
  const again = (): void => {
    const { engine } = cluster.alive[0] ?? {}
    const draining = engine?.admin.nodes().find(({ record }) => record.name === name)?.record.draining
    if (draining === true) engine?.admin.setDraining(name, false).catch(() => {})
    cluster.world.schedule(500, undefined, again)
  }
  again()
}

/** No client asks any more; what was asked is answered, and everything is read once. */
function finish({ cluster, damaged }: Stage, clients: readonly SimClient[]): void {
  const answerMsMax = damaged === undefined ? ANSWER_MS_MAX : REFUSAL_MS_MAX
  for (const client of clients) client.stopped = true
  cluster.runUntil(answerMsMax, () => clients.every((client) => client.idle))
  if (!clients.every((client) => client.idle)) cluster.violation('a request was never answered')
  const connected = (): boolean => clients.every((client) => client.connect())
  if (!cluster.runUntil(answerMsMax, connected)) cluster.violation('an export is gone')
  let left = clients.length
  for (const client of clients) client.readAll(() => left--)
  if (!cluster.runUntil(answerMsMax, () => left === 0)) cluster.violation('a read was never answered')
}
