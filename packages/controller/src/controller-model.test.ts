/**
 * A small model of a cluster around the controller: nodes come and go, primaries are elected, drop
 * members and take in those that caught up; answers are late or lost, views are old.
 */
import {
  type Epoch,
  epoch,
  incarnation,
  instant,
  type NodeId,
  nodeId,
  type VolumeRecord,
  volumeId,
} from '@holdfast/base'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import type { ControllerAction, ControllerInput } from './actions.ts'
import { Controller } from './controller.ts'

const GIB = 1024 ** 3
const REBUILDS_MAX = 2
const ACTIONS_MAX = 2

interface ModelNode {
  readonly name: NodeId
  readonly zone: string
  alive: boolean
  draining: boolean
}

interface ModelVolume {
  readonly key: string
  modRevision: number
  record: VolumeRecord
  primary: { node: NodeId; epoch: Epoch } | undefined
}

type Fault =
  | { readonly kind: 'flip' | 'drain'; readonly node: number }
  | { readonly kind: 'wait'; readonly steps: number }
  | { readonly kind: 'wanted'; readonly volume: number; readonly count: number }
  | { readonly kind: 'controller' }

interface Setup {
  readonly nodeCount: number
  readonly zoneCount: number
  readonly wanted: readonly number[]
  readonly faults: readonly Fault[]
  /** Draws for everything that happens by chance, used in a circle. */
  readonly chance: readonly number[]
  readonly drainAtEnd: boolean
}

/** How often the rare branches were reached: a run that never reaches them proves nothing. */
const reached = { add: 0, remove: 0, retire: 0, move: 0, conflict: 0, returned: 0 }

class World {
  now = 0
  readonly nodes: ModelNode[]
  readonly volumes: ModelVolume[]
  readonly updates: { key: string; at: number; added: NodeId[]; removed: NodeId[] }[] = []
  controller = newController()
  #revision = 1
  #draw = 0
  readonly #chance: readonly number[]
  #view: ControllerInput | undefined

  constructor(setup: Setup) {
    this.#chance = setup.chance
    this.nodes = Array.from({ length: setup.nodeCount }, (_, n) => ({
      name: nodeId(`n${n}`),
      zone: `z${n % setup.zoneCount}`,
      alive: true,
      draining: false,
    }))
    this.volumes = setup.wanted.map((wanted, n) => {
      const first = nodeId(`n${n % setup.nodeCount}`)
      return {
        key: `v${n}`,
        modRevision: 1,
        record: newRecord(n, wanted, first),
        primary: undefined,
      }
    })
  }

  /** True once in `of` draws, about. */
  chance(of: number): boolean {
    this.#draw = (this.#draw + 1) % this.#chance.length
    return (this.#chance[this.#draw] ?? 0) % of === 0
  }

  node(name: NodeId): ModelNode | undefined {
    return this.nodes.find((node) => node.name === name)
  }

  isAlive(name: NodeId): boolean {
    return this.node(name)?.alive === true
  }

  put(volume: ModelVolume, change: Partial<VolumeRecord>): void {
    volume.record = { ...volume.record, ...change }
    volume.modRevision = ++this.#revision
  }

  step(calm: boolean): void {
    this.now += 1_000
    for (const volume of this.volumes) this.#replicate(volume)
    if (calm || this.#view === undefined || !this.chance(3)) this.#view = this.#look()
    const input = { ...this.#view, now: instant(this.now) }
    const actions = this.controller.step(input)
    checkActions(input, actions)
    for (const action of actions) {
      if (!calm && this.chance(4)) continue
      this.#apply(action)
    }
  }

  #look(): ControllerInput {
    return {
      now: instant(this.now),
      nodes: this.nodes.map(({ name, zone, alive, draining }, n) => ({
        record: {
          name,
          host: 'h',
          peerPort: 1,
          apiPort: 2,
          nbdPort: 3,
          labels: { zone },
          draining,
        },
        alive: alive
          ? {
              name,
              incarnation: incarnation('i'),
              freeBytes: (50 + n) * GIB,
              totalBytes: 100 * GIB,
              since: '',
            }
          : undefined,
      })),
      volumes: this.volumes.map(({ key, modRevision, record, primary }) => ({
        key,
        modRevision,
        record,
        primary: primary === undefined ? undefined : { ...primary, incarnation: incarnation('i') },
      })),
      tombstones: [],
    }
  }

  /** The replicas' own part: election among `inSync`, dropping the dead, taking in who caught up. */
  #replicate(volume: ModelVolume): void {
    const { record } = volume
    if (volume.primary !== undefined && !this.isAlive(volume.primary.node))
      volume.primary = undefined
    if (volume.primary === undefined) {
      const { successor } = record
      const living = record.inSync.filter((name) => this.isAlive(name))
      const node = living.find((name) => name === successor) ?? living[0]
      if (node === undefined || this.chance(3)) return
      const next = epoch(record.epoch + 1)
      this.put(volume, { epoch: next, primary: node, successor: undefined })
      volume.primary = { node, epoch: next }
      return
    }
    // An idle volume keeps a dead member for long: nobody needs its acknowledgement.
    const dead = record.inSync.find((name) => !this.isAlive(name))
    if (dead !== undefined && this.chance(5)) {
      this.put(volume, { inSync: record.inSync.filter((name) => name !== dead) })
      return
    }
    const behind = record.replicas.find(
      (name) => !record.inSync.includes(name) && this.isAlive(name),
    )
    if (behind !== undefined && this.chance(4)) {
      this.put(volume, { inSync: [...record.inSync, behind] })
    }
  }

  #apply(action: ControllerAction): void {
    if (action.kind === 'event') {
      if (action.message === 'node is back') reached.returned += 1
      return
    }
    const volume = this.volumes.find(({ key }) => key === action.key)
    if (volume === undefined) throw new Error(`action for nothing: ${action.key}`)
    const { record } = volume
    if (action.kind === 'update-volume') {
      if (action.modRevision !== volume.modRevision) {
        reached.conflict += 1
        return
      }
      const added = action.record.replicas.filter((name) => !record.replicas.includes(name))
      const removed = record.replicas.filter((name) => !action.record.replicas.includes(name))
      this.updates.push({ key: volume.key, at: this.now, added, removed })
      this.put(volume, action.record)
    } else if (action.kind === 'move-primary') {
      if (volume.primary?.epoch !== action.epoch || !record.inSync.includes(action.to)) return
      reached.move += 1
      this.put(volume, { successor: action.to })
      volume.primary = undefined
    } else if (action.kind === 'retire-member') {
      if (volume.primary?.epoch !== action.epoch || volume.primary.node === action.node) return
      reached.retire += 1
      this.put(volume, { inSync: record.inSync.filter((name) => name !== action.node) })
    }
  }
}

function newController(): Controller {
  return new Controller({ rebuildsPerNodeMax: REBUILDS_MAX, actionsPerStepMax: ACTIONS_MAX })
}

function newRecord(n: number, wanted: number, first: NodeId): VolumeRecord {
  return {
    id: volumeId(`v${n}`),
    name: `v${n}`,
    namespace: 'default',
    sizeBytes: GIB,
    replicaCount: wanted,
    failureMode: { kind: 'alwayson' },
    labels: {},
    createdAt: '',
    segmentBlocks: 1024,
    epoch: epoch(0),
    primary: undefined,
    inSync: [first],
    replicas: [first],
  }
}

/** What holds for every step, against the very view it was made from. */
function checkActions(input: ControllerInput, actions: readonly ControllerAction[]): void {
  const deeds = actions.filter((action) => action.kind !== 'event')
  expect(deeds.length).toBeLessThanOrEqual(ACTIONS_MAX)
  const keys = deeds.map((action) => action.key)
  expect(new Set(keys).size).toBe(keys.length)
  const alive = new Set(input.nodes.filter((node) => node.alive).map((node) => node.record.name))
  const draining = new Set(input.nodes.filter((n) => n.record.draining).map((n) => n.record.name))
  const targets: NodeId[] = []
  for (const action of deeds) {
    const volume = input.volumes.find(({ key }) => key === action.key)
    if (volume === undefined) throw new Error('an action for a volume that is not there')
    const { record: before, primary } = volume
    expect(primary?.epoch).toBe(before.epoch)
    const settled = before.inSync.filter((name) => alive.has(name) && !draining.has(name))
    if (action.kind === 'move-primary') expect(settled).toContain(action.to)
    if (action.kind === 'retire-member') {
      expect(before.inSync).toContain(action.node)
      expect(action.node).not.toBe(primary?.node)
      const others = settled.filter((name) => name !== action.node)
      expect(others.length).toBeGreaterThanOrEqual(before.replicaCount)
    }
    if (action.kind !== 'update-volume') continue
    const { replicas, successor: _a, ...rest } = action.record
    const { replicas: old, successor: _b, ...oldRest } = before
    expect(rest).toEqual(oldRest)
    expect(new Set(replicas).size).toBe(replicas.length)
    for (const member of before.inSync) expect(replicas).toContain(member)
    const added = replicas.filter((name) => !old.includes(name))
    const removed = old.filter((name) => !replicas.includes(name))
    expect(added.length + removed.length).toBe(1)
    for (const name of added) {
      expect(alive.has(name) && !draining.has(name)).toBe(true)
      // One change at a time: no other copy is filling on a node that counts.
      const filling = old.filter((other) => !before.inSync.includes(other))
      expect(filling.filter((other) => alive.has(other) && !draining.has(other))).toEqual([])
    }
    if (removed.length > 0) expect(settled.length).toBeGreaterThanOrEqual(before.replicaCount)
    targets.push(...added)
    reached.add += added.length
    reached.remove += removed.length
  }
  for (const target of targets) {
    const filling = input.volumes.filter(
      ({ record, primary }) =>
        primary !== undefined &&
        record.replicas.includes(target) &&
        !record.inSync.includes(target),
    )
    const asked = targets.filter((name) => name === target)
    expect(filling.length + asked.length).toBeLessThanOrEqual(REBUILDS_MAX)
  }
}

function inject(world: World, fault: Fault): void {
  if (fault.kind === 'controller') world.controller = newController()
  else if (fault.kind === 'wait') for (let n = 0; n < fault.steps; n++) world.step(false)
  else if (fault.kind === 'wanted') {
    const volume = world.volumes[fault.volume % world.volumes.length]
    const replicaCount = Math.min(fault.count, world.nodes.length - 1)
    if (volume !== undefined) world.put(volume, { replicaCount })
  } else {
    const node = world.nodes[fault.node % world.nodes.length]
    if (node === undefined) return
    if (fault.kind === 'flip') node.alive = !node.alive
    else node.draining = !node.draining
  }
  world.step(false)
}

const faults: fc.Arbitrary<Fault> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('flip' as const), node: fc.nat(9) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('drain' as const), node: fc.nat(9) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('wait' as const),
      steps: fc.constantFrom(1, 5, 40, 620),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('wanted' as const),
      volume: fc.nat(9),
      count: fc.integer({ min: 1, max: 3 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('controller' as const) }) },
)

const setups: fc.Arbitrary<Setup> = fc
  .record({
    nodeCount: fc.integer({ min: 3, max: 6 }),
    zoneCount: fc.integer({ min: 1, max: 3 }),
    wanted: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 6 }),
    faults: fc.array(faults, { maxLength: 14 }),
    chance: fc.array(fc.nat(59), { minLength: 97, maxLength: 97 }),
    drainAtEnd: fc.boolean(),
  })
  .map((setup) => ({
    ...setup,
    // One node can be missed at any time, so that a drain has somewhere to go.
    wanted: setup.wanted.map((count) => Math.min(count, setup.nodeCount - 1)),
    // Two zeroes: whatever else is drawn, nothing waits for ever.
    chance: [...setup.chance, 0, 0],
  }))

it('keeps its invariants in any weather and converges in calm, without going to and fro', () => {
  fc.assert(
    fc.property(setups, (setup) => {
      const world = new World(setup)
      for (const fault of setup.faults) inject(world, fault)
      for (const node of world.nodes) Object.assign(node, { alive: true, draining: false })
      const [first] = world.nodes
      if (setup.drainAtEnd && first !== undefined) first.draining = true
      world.step(true)
      const calmAt = world.now
      for (let n = 0; n < 1_500; n++) world.step(true)

      for (const { record, primary } of world.volumes) {
        expect(record.replicas).toHaveLength(record.replicaCount)
        expect([...record.inSync].sort()).toEqual([...record.replicas].sort())
        expect(primary).toBeDefined()
        if (setup.drainAtEnd) expect(record.replicas).not.toContain(first?.name)
      }
      // In calm a node is given a copy of a volume or loses it, never both.
      for (const { key } of world.volumes) {
        const calm = world.updates.filter((update) => update.key === key && update.at > calmAt)
        const added = new Set(calm.flatMap((update) => update.added))
        for (const name of calm.flatMap((update) => update.removed))
          expect(added).not.toContain(name)
      }
      const endedAt = world.updates.length
      for (let n = 0; n < 50; n++) world.step(true)
      expect(world.updates.length).toBe(endedAt)
    }),
    { numRuns: 60, seed: 20_260_101 },
  )
  for (const [branch, count] of Object.entries(reached)) {
    expect(count, `the model never reached: ${branch}`).toBeGreaterThan(0)
  }
})
