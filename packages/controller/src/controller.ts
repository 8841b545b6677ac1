/**
 * The controller of the cluster: one node at a time runs it, the one that holds the controller key.
 *
 * It decides from the view alone and does nothing itself. Everything it asks for is a compare-and-swap or
 * goes through the primary, so a deposed controller, a stale view or a repeated action can do no harm;
 * what it remembers (absences, requests under way) only spares needless work.
 */
import { assert, followsHost, type Instant, type NodeId, type VolumeRecord } from '@holdfast/base'
import {
  type ControllerAction,
  type ControllerInput,
  type ControllerSettings,
  type ControllerVolume,
  controllerDefaults,
} from './actions.ts'
import { type NodeView, NodeWatch } from './node-watch.ts'
import {
  canTake,
  compareNames,
  fitsWhole,
  nextReplica,
  type PlacementNode,
  placeReplicas,
  type ReplicaChoice,
  roomPerVolume,
  zoneOf,
} from './placement.ts'
import { planTombstone } from './tombstones.ts'
import { planVolume, type VolumePlan } from './volume-plan.ts'

/** The last request for a volume: not repeated before `retryMs`, unless something else is needed. */
interface Request {
  readonly signature: string
  readonly at: Instant
  /** The node that a copy was asked for, as long as the view may not show it. */
  readonly target: NodeId | undefined
  readonly modRevision: number
}

interface Work {
  readonly volume: ControllerVolume
  readonly plan: Exclude<VolumePlan, { kind: 'none' }>
}

/** One step's working figures; requests made in the step count at once. */
interface Tally {
  readonly nodes: Map<NodeId, PlacementNode>
  readonly zones: Map<NodeId, string>
  readonly rebuilds: Map<NodeId, number>
  readonly primaries: Map<NodeId, number>
  /** Reason why no copy can be placed -> the volumes concerned. */
  readonly blocked: Map<string, string[]>
}

export class Controller {
  readonly #settings: ControllerSettings
  readonly #watch: NodeWatch
  readonly #requests = new Map<string, Request>()
  /** Since when each volume is where it is attached, as far as this controller has seen. */
  readonly #attached = new Map<string, { readonly generation: number; readonly since: Instant }>()
  /** Reasons reported and still standing. */
  #reported = new Set<string>()

  constructor(settings: Partial<ControllerSettings> = {}) {
    this.#settings = { ...controllerDefaults, ...settings }
    this.#watch = new NodeWatch(this.#settings.replaceAfterMs)
  }

  /**
   * What to do now. Call it on every change of the view and each second, with complete views only. A
   * controller that loses its key is thrown away; the next one starts with a new object.
   */
  step(input: ControllerInput): readonly ControllerAction[] {
    const actions: ControllerAction[] = []
    // Without a single node the view can't be complete: this controller runs on one.
    if (input.nodes.length === 0) return actions
    const views = this.#watch.observe(input.now, input.nodes, actions)
    const eventCount = actions.length
    const tally = this.#tally(input, views)
    const budget = eventCount + this.#settings.actionsPerStepMax
    for (const work of this.#workList(input, views, tally)) {
      if (actions.length >= budget) break
      const action = this.#actionFor(work, input.now, tally)
      if (action !== undefined) actions.push(action)
    }
    for (const tombstone of input.tombstones) {
      if (actions.length >= budget) break
      const action = planTombstone(tombstone, views)
      if (action !== undefined && this.#isDue(tombstone.key, action, input.now))
        actions.push(action)
    }
    this.#forget(input)
    this.#reportBlocked(tally.blocked, actions)
    return actions
  }

  #tally(input: ControllerInput, views: ReadonlyMap<NodeId, NodeView>): Tally {
    const counts = new Map<NodeId, number>()
    const rebuilds = new Map<NodeId, number>()
    const primaries = new Map<NodeId, number>()
    for (const { key, modRevision, record, primary } of input.volumes) {
      for (const name of record.replicas) {
        increment(counts, name)
        // Without a primary nothing is copied, and such a volume must not hold up the others.
        if (primary !== undefined && !record.inSync.includes(name)) increment(rebuilds, name)
      }
      if (primary !== undefined) increment(primaries, primary.node)
      const request = this.#requests.get(key)
      if (request?.target === undefined || request.modRevision !== modRevision) continue
      if (input.now - request.at >= this.#settings.retryMs) continue
      increment(counts, request.target)
      increment(rebuilds, request.target)
    }
    const nodes = new Map<NodeId, PlacementNode>()
    const zones = new Map<NodeId, string>()
    for (const { record, alive } of input.nodes) {
      nodes.set(record.name, {
        name: record.name,
        alive: views.get(record.name)?.alive === true,
        draining: record.draining,
        freeBytes: alive?.freeBytes ?? 0,
        totalBytes: alive?.totalBytes ?? 0,
        volumeCount: counts.get(record.name) ?? 0,
        labels: record.labels,
      })
      zones.set(record.name, zoneOf(record))
    }
    return { nodes, zones, rebuilds, primaries, blocked: new Map() }
  }

  /** Volumes that need something, those with the fewest copies in sync on live nodes first. */
  #workList(
    input: ControllerInput,
    views: ReadonlyMap<NodeId, NodeView>,
    tally: Tally,
  ): readonly Work[] {
    const list: { readonly work: Work; readonly copies: number }[] = []
    for (const volume of input.volumes) {
      const { record, primary } = volume
      const plan = planVolume(record, primary, views, this.#hostOf(volume, input.now), (surplus, settled) =>
        leastUseful(surplus, settled, tally),
      )
      if (plan.kind === 'none') continue
      const copies = record.inSync.filter((name) => views.get(name)?.alive === true).length
      list.push({ work: { volume, plan }, copies })
    }
    list.sort((a, b) => a.copies - b.copies || compareNames(a.work.volume.key, b.work.volume.key))
    return list.map(({ work }) => work)
  }

  /** The host that a volume has been attached to for long enough for its data to follow. */
  #hostOf({ key, record }: ControllerVolume, now: Instant): NodeId | undefined {
    const { attachment } = record
    if (attachment?.confirmed !== true || !followsHost(record)) {
      this.#attached.delete(key)
      return undefined
    }
    const known = this.#attached.get(key)
    if (known?.generation !== attachment.generation) {
      this.#attached.set(key, { generation: attachment.generation, since: now })
      return undefined
    }
    return now - known.since < this.#settings.followAfterMs ? undefined : attachment.node
  }

  #actionFor({ volume, plan }: Work, now: Instant, tally: Tally): ControllerAction | undefined {
    const { key, record } = volume
    if (plan.kind === 'add') return this.#add(volume, plan, now, tally)
    if (plan.kind === 'bring') return this.#bring(volume, plan, now, tally)
    if (plan.kind === 'remove') {
      const replicas = record.replicas.filter((name) => name !== plan.node)
      return this.#update(volume, replicas, plan.why, now, undefined)
    }
    const from = record.primary
    if (from === undefined) return undefined
    const at = { volume: record.id, key, epoch: record.epoch, why: plan.why }
    if (plan.kind === 'retire') {
      const action = { kind: 'retire-member', ...at, node: plan.node, primary: from } as const
      return this.#isDue(key, action, now) ? action : undefined
    }
    const to = nextPrimary(plan.candidates, record.successor, tally)
    if (to === undefined) return undefined
    const action = { kind: 'move-primary', ...at, from, to } as const
    if (!this.#isDue(key, action, now)) return undefined
    increment(tally.primaries, to)
    return action
  }

  #add(
    volume: ControllerVolume,
    plan: Extract<VolumePlan, { kind: 'add' }>,
    now: Instant,
    tally: Tally,
  ): ControllerAction | undefined {
    const { record } = volume
    const { sizeBytes, replicaCount } = record
    const taken = new Set(record.replicas)
    const candidates = [...tally.nodes.values()].filter(
      (node) => !taken.has(node.name) && canTake(node, sizeBytes),
    )
    const best = nextReplica(candidates, plan.kept, tally.zones, sizeBytes)
    if (best === undefined) {
      this.#noteBlocked(volume, plan.kept, tally)
      return undefined
    }
    const choice = this.#notBusy(best, candidates, plan.kept, tally, sizeBytes)
    if (choice === undefined) return undefined
    const target = choice.node.name
    const why = `${plan.why}: ${target} gets a copy (${plan.kept.length} of ${replicaCount} kept)`
    const action = this.#update(volume, [...record.replicas, target], why, now, target)
    if (action === undefined) return undefined
    increment(tally.rebuilds, target)
    tally.nodes.set(target, { ...choice.node, volumeCount: choice.node.volumeCount + 1 })
    return action
  }

  #bring(
    volume: ControllerVolume,
    { node: target, why }: Extract<VolumePlan, { kind: 'bring' }>,
    now: Instant,
    tally: Tally,
  ): ControllerAction | undefined {
    const { record } = volume
    const node = tally.nodes.get(target)
    if (node === undefined || !canTake(node, record.sizeBytes)) return undefined
    if ((tally.rebuilds.get(target) ?? 0) >= this.#settings.rebuildsPerNodeMax) return undefined
    const action = this.#update(volume, [...record.replicas, target], `${why} and gets a copy`, now, target)
    if (action === undefined) return undefined
    increment(tally.rebuilds, target)
    tally.nodes.set(target, { ...node, volumeCount: node.volumeCount + 1 })
    return action
  }

  /** The best place that has a rebuild to spare; undefined where waiting gives a better place. */
  #notBusy(
    best: ReplicaChoice,
    candidates: readonly PlacementNode[],
    kept: readonly NodeId[],
    tally: Tally,
    sizeBytes: number,
  ): ReplicaChoice | undefined {
    const { rebuildsPerNodeMax } = this.#settings
    const free = candidates.filter(
      ({ name }) => (tally.rebuilds.get(name) ?? 0) < rebuildsPerNodeMax,
    )
    const choice = nextReplica(free, kept, tally.zones, sizeBytes)
    if (choice === undefined || choice.node.name === best.node.name) return choice
    // A copy stays where it is put: better a little later than for good in a zone that is used already,
    // or on a node too small.
    if (choice.zoneShare > best.zoneShare) return undefined
    return fitsWhole(choice.node, sizeBytes) === fitsWhole(best.node, sizeBytes)
      ? choice
      : undefined
  }

  #noteBlocked(volume: ControllerVolume, kept: readonly NodeId[], tally: Tally): void {
    const { record, key } = volume
    const result = placeReplicas({
      nodes: [...tally.nodes.values()],
      replicaCount: record.replicaCount,
      sizeBytes: record.sizeBytes,
      keep: kept,
    })
    if (result.kind !== 'impossible') return
    const volumes = tally.blocked.get(result.reason)
    if (volumes === undefined) tally.blocked.set(result.reason, [key])
    else volumes.push(key)
  }

  #update(
    volume: ControllerVolume,
    replicas: readonly NodeId[],
    why: string,
    now: Instant,
    target: NodeId | undefined,
  ): ControllerAction | undefined {
    const { key, modRevision } = volume
    const record = withReplicas(volume.record, replicas)
    const action = { kind: 'update-volume', key, modRevision, record, why } as const
    return this.#isDue(key, action, now, target) ? action : undefined
  }

  /** True, and remembered, unless the same was asked for less than `retryMs` ago. */
  #isDue(key: string, action: ControllerAction, now: Instant, target?: NodeId): boolean {
    const signature = signatureOf(action)
    const last = this.#requests.get(key)
    if (last?.signature === signature && now - last.at < this.#settings.retryMs) return false
    const modRevision = 'modRevision' in action ? action.modRevision : 0
    this.#requests.set(key, { signature, at: now, target, modRevision })
    return true
  }

  #forget(input: ControllerInput): void {
    if (this.#requests.size === 0 && this.#attached.size === 0) return
    const known = new Set<string>()
    for (const { key } of input.volumes) known.add(key)
    for (const { key } of input.tombstones) known.add(key)
    for (const key of this.#requests.keys()) if (!known.has(key)) this.#requests.delete(key)
    for (const key of this.#attached.keys()) if (!known.has(key)) this.#attached.delete(key)
  }

  /** One event for each reason, when it begins to stand: thousands of volumes may share it. */
  #reportBlocked(
    blocked: ReadonlyMap<string, readonly string[]>,
    actions: ControllerAction[],
  ): void {
    for (const [reason, volumes] of blocked) {
      if (this.#reported.has(reason)) continue
      const fields = { volumes: volumes.length, first: volumes[0] }
      actions.push({ kind: 'event', level: 'warn', message: reason, fields })
    }
    if (blocked.size === 0 && this.#reported.size > 0) {
      const message = 'no volume lacks a place for a copy any more'
      actions.push({ kind: 'event', level: 'info', message, fields: {} })
    }
    this.#reported = new Set(blocked.keys())
  }
}

/**
 * Updates are told apart by the revision they replace, so that each change of the record allows the next.
 * Requests to a primary are not: it may change the record several times before it is done.
 */
function signatureOf(action: ControllerAction): string {
  switch (action.kind) {
    case 'update-volume':
    case 'update-tombstone':
    case 'delete-tombstone':
      return `${action.kind} ${action.modRevision}`
    case 'move-primary':
      return `${action.kind} ${action.epoch}`
    case 'retire-member':
      return `${action.kind} ${action.epoch} ${action.node}`
    case 'event':
      return ''
  }
}

function withReplicas(record: VolumeRecord, replicas: readonly NodeId[]): VolumeRecord {
  assert(new Set(replicas).size === replicas.length, 'replicas are distinct', { id: record.id })
  const all = record.inSync.every((name) => replicas.includes(name))
  assert(all, 'replicas contain the in-sync set', { id: record.id })
  const { successor, ...rest } = record
  if (successor === undefined || !replicas.includes(successor)) return { ...rest, replicas }
  return { ...rest, replicas, successor }
}

/** The move already asked for, else the member with the fewest primaries. */
function nextPrimary(
  candidates: readonly NodeId[],
  successor: NodeId | undefined,
  tally: Tally,
): NodeId | undefined {
  if (successor !== undefined && candidates.includes(successor)) return successor
  const load = (name: NodeId): number => tally.primaries.get(name) ?? 0
  return [...candidates].sort((a, b) => load(a) - load(b) || compareNames(a, b))[0]
}

/** Of several surplus copies the one in the most crowded zone, then on the node with the least room. */
function leastUseful(
  surplus: readonly NodeId[],
  settled: readonly NodeId[],
  tally: Tally,
): NodeId | undefined {
  const share = (name: NodeId): number =>
    settled.filter((other) => tally.zones.get(other) === tally.zones.get(name)).length
  const room = (name: NodeId): number => {
    const node = tally.nodes.get(name)
    return node === undefined ? 0 : roomPerVolume(node)
  }
  return [...surplus].sort(
    (a, b) => share(b) - share(a) || room(a) - room(b) || compareNames(b, a),
  )[0]
}

function increment(counts: Map<NodeId, number>, name: NodeId): void {
  counts.set(name, (counts.get(name) ?? 0) + 1)
}
