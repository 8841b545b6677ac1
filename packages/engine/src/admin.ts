/** What an administrator may ask of a node; every node answers for the whole cluster. */
import {
  type ClusterAdmin,
  type CreateVolume,
  type FailureMode,
  HoldfastError,
  keys,
  type NodeId,
  type NodeRecord,
  type NodeView,
  epoch as epochOf,
  type TombstoneRecord,
  timestamp,
  type Transaction,
  type TransactionResult,
  type VolumeId,
  type VolumeRecord,
  type VolumeState,
  type VolumeView,
} from '@holdfast/base'
import { placeReplicas } from '@holdfast/controller'
import { segmentBlocksFor } from '@holdfast/volume-log'
import type { Versioned } from './cluster-view.ts'
import type { NodeContext } from './context.ts'
import { idInLane } from './lane-choice.ts'
import { inSyncNeeded, placementNodes } from './placement-view.ts'
import type { Replica } from './replica.ts'

const POLL_MS = 10
const CREATE_TIMEOUT_MS = 20_000
const MOVE_TIMEOUT_MS = 20_000
/** Longer than a primary waits after a move that failed. */
const MOVE_AGAIN_MS = 5_500
const CONFLICT_RETRIES = 20

export class Admin implements ClusterAdmin {
  readonly node: NodeId
  readonly #context: NodeContext
  readonly #replicas: ReadonlyMap<VolumeId, Replica>

  constructor(context: NodeContext, replicas: ReadonlyMap<VolumeId, Replica>) {
    this.node = context.self.node
    this.#context = context
    this.#replicas = replicas
  }

  volumes(): readonly VolumeView[] {
    return [...this.#context.view.volumes.values()].map((versioned) => this.#view(versioned))
  }

  volume(namespace: string, name: string): VolumeView | undefined {
    const versioned = this.#context.view.volumes.get(keys.volume(namespace, name))
    return versioned === undefined ? undefined : this.#view(versioned)
  }

  nodes(): readonly NodeView[] {
    const { view } = this.#context
    const volumes = [...view.volumes.values()]
    const primaries = [...view.primaries.values()]
    return [...view.nodes.values()].map(({ record }) => ({
      record,
      alive: view.alive.get(record.name)?.record,
      volumeCount: volumes.filter((volume) => volume.record.replicas.includes(record.name)).length,
      primaryCount: primaries.filter((primary) => primary.record.node === record.name).length,
    }))
  }

  tombstones(): readonly TombstoneRecord[] {
    return [...this.#context.view.tombstones.values()].map(({ record }) => record)
  }

  readiness(): { readonly ready: boolean; readonly reason: string } {
    const { view, lease, self } = this.#context
    if (!view.synced) return { ready: false, reason: 'the coordinator has not been reached yet' }
    if (!lease.held) return { ready: false, reason: 'no lease is held at the coordinator' }
    if (!view.alive.has(self.node)) return { ready: false, reason: 'not registered yet' }
    return { ready: true, reason: 'ready' }
  }

  createVolume(request: CreateVolume): Promise<VolumeView> {
    return new Promise((resolve, reject) => {
      const { view, coordinator, random, clock } = this.#context
      this.#requireReady()
      const { namespace, name, sizeBytes, replicaCount, labels } = request
      const key = keys.volume(namespace, name)
      const failureMode = request.failureMode ?? defaultFailureMode(replicaCount)
      checkFailureMode(failureMode, replicaCount)
      if (view.volumes.has(key)) throw exists(name)
      const placed = placeReplicas({
        nodes: placementNodes(view),
        replicaCount,
        sizeBytes,
        prefer: this.node,
      })
      if (placed.kind === 'impossible') throw new HoldfastError('HF_TOO_FEW_NODES', placed.reason)
      const { replicas } = placed
      const record: VolumeRecord = {
        id: idInLane(random.hex(16), view, replicas),
        name,
        namespace,
        sizeBytes,
        replicaCount,
        failureMode,
        labels,
        createdAt: timestamp(clock.wallMs()),
        segmentBlocks: this.#context.settings.segmentBlocks ?? segmentBlocksFor(sizeBytes),
        epoch: epochOf(0),
        primary: undefined,
        inSync: replicas,
        replicas,
        successor: replicas[0],
      }
      const put = { op: 'put', key, value: JSON.stringify(record) } as const
      const transaction = { compares: [{ key, modRevision: 0 }], operations: [put] }
      coordinator.transact(transaction, (result) => {
        if (result.kind === 'conflict') reject(exists(name))
        else if (result.kind !== 'ok') reject(uncertain(`creating volume ${name}`))
        else {
          const serves = (): VolumeView | undefined => {
            const created = this.volume(namespace, name)
            const usable = created?.primary !== undefined && created.state !== 'creating'
            return usable ? created : undefined
          }
          this.#poll(serves, CREATE_TIMEOUT_MS, resolve, () =>
            reject(
              new HoldfastError(
                'HF_TIMEOUT',
                `volume ${name} is created but does not serve yet: look at holdfast volume inspect ${name}`,
              ),
            ),
          )
        }
      })
    })
  }

  removeVolume(namespace: string, name: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#requireReady()
      const found = this.#find(namespace, name)
      this.#retryConflicts(
        () => {
          const { key, modRevision, record } = this.#find(namespace, name)
          if (record.id !== found.record.id) throw notFound(name)
          const { attachment } = record
          if (attachment !== undefined && this.#isAlive(attachment.node)) {
            const message = `volume ${name} is attached to host ${attachment.node}: unmount it there first`
            throw new HoldfastError('HF_CONFLICT', message)
          }
          const tombstone: TombstoneRecord = {
            id: record.id,
            name,
            namespace,
            holders: record.replicas,
            removedAt: timestamp(this.#context.clock.wallMs()),
          }
          const value = JSON.stringify(tombstone)
          return {
            compares: [{ key, modRevision }],
            operations: [
              { op: 'delete', key },
              { op: 'put', key: keys.tombstone(record.id), value },
            ],
          }
        },
        `removing volume ${name}`,
        () => resolve(),
        reject,
      )
    })
  }

  movePrimary(namespace: string, name: string, to: NodeId | undefined): Promise<VolumeView> {
    return new Promise((resolve, reject) => {
      this.#requireReady()
      const { record } = this.#find(namespace, name)
      const holder = this.#context.view.primaries.get(record.id)?.record.node
      const target = to ?? record.inSync.find((node) => node !== holder && this.#isAlive(node))
      this.#checkTarget(record, holder, target)
      const moved = (): VolumeView | undefined => {
        const view = this.volume(namespace, name)
        return view?.primary === target ? view : undefined
      }
      if (moved() !== undefined) {
        resolve(this.#view(this.#find(namespace, name)))
        return
      }
      const ask = (done: () => void): void => this.#retryConflicts(
        () => {
          const { key, modRevision, record: now } = this.#find(namespace, name)
          const value = JSON.stringify({ ...now, successor: target })
          return { compares: [{ key, modRevision }], operations: [{ op: 'put', key, value }] }
        },
        `moving the primary of ${name}`,
        done,
        reject,
      )
      let askedAt = this.#context.clock.now()
      // A primary that could not hand over has taken the wish back: it may have been a bad moment.
      const look = (): VolumeView | undefined => {
        const now = this.#context.clock.now()
        const wish = this.#context.view.byId.get(record.id)?.record.successor
        if (wish === undefined && moved() === undefined && now - askedAt > MOVE_AGAIN_MS) {
          askedAt = now
          ask(() => {})
        }
        return moved()
      }
      const late = (): void => {
        const message = `the primary of ${name} has not moved to ${target ?? 'another node'} in time`
        reject(new HoldfastError('HF_TIMEOUT', `${message}: look at holdfast volume inspect ${name}`))
      }
      ask(() => this.#poll(look, MOVE_TIMEOUT_MS, resolve, late))
    })
  }

  setDraining(node: NodeId, draining: boolean): Promise<NodeView> {
    return new Promise((resolve, reject) => {
      this.#requireReady()
      const find = (): Versioned<NodeRecord> => {
        const versioned = this.#context.view.nodes.get(node)
        if (versioned === undefined) {
          throw new HoldfastError('HF_NOT_FOUND', `there is no node ${node}: see holdfast node ls`)
        }
        return versioned
      }
      const done = (): NodeView | undefined => {
        return this.nodes().find(({ record }) => record.name === node && record.draining === draining)
      }
      this.#retryConflicts(
        () => {
          const { key, modRevision, record } = find()
          const value = JSON.stringify({ ...record, draining })
          return { compares: [{ key, modRevision }], operations: [{ op: 'put', key, value }] }
        },
        `draining node ${node}`,
        () => this.#poll(done, 5_000, resolve, () => reject(uncertain(`draining node ${node}`))),
        reject,
      )
    })
  }

  #view({ record }: Versioned<VolumeRecord>): VolumeView {
    const holder = this.#context.view.primaries.get(record.id)?.record
    const local = this.#replicas.get(record.id)
    const primary = holder?.node
    return { record, state: stateOf(record, primary), primary, local: local?.view() }
  }

  #find(namespace: string, name: string): Versioned<VolumeRecord> {
    const versioned = this.#context.view.volumes.get(keys.volume(namespace, name))
    if (versioned === undefined) throw notFound(name)
    return versioned
  }

  #isAlive(node: NodeId): boolean {
    return this.#context.view.alive.has(node)
  }

  #checkTarget(record: VolumeRecord, holder: NodeId | undefined, to: NodeId | undefined): void {
    const refuse = (message: string): never => {
      throw new HoldfastError('HF_CONFLICT', message)
    }
    if (to === undefined) refuse(`no other node holds an in-sync copy of ${record.name}`)
    else if (!record.replicas.includes(to)) {
      refuse(`node ${to} holds no copy of ${record.name}: its copies are on ${record.replicas.join(', ')}`)
    } else if (!record.inSync.includes(to)) {
      refuse(`the copy of ${record.name} on node ${to} is not in sync yet: try again when it is`)
    } else if (!this.#isAlive(to)) refuse(`node ${to} is not alive`)
    else if (holder === undefined) refuse(`${record.name} has no primary just now: try again`)
  }

  #requireReady(): void {
    const { ready, reason } = this.readiness()
    if (!ready) throw new HoldfastError('HF_UNAVAILABLE', `this node can't do that now: ${reason}`)
  }

  /** Makes the transaction anew from what is seen each time another one came between. */
  #retryConflicts(
    make: () => Transaction,
    what: string,
    done: () => void,
    reject: (error: unknown) => void,
    left: number = CONFLICT_RETRIES,
  ): void {
    let transaction: Transaction
    try {
      transaction = make()
    } catch (error) {
      reject(error)
      return
    }
    this.#context.coordinator.transact(transaction, (result: TransactionResult) => {
      if (result.kind === 'ok') done()
      else if (result.kind === 'conflict' && left > 0) {
        this.#context.scheduler.after(POLL_MS * 5, () =>
          this.#retryConflicts(make, what, done, reject, left - 1),
        )
      } else reject(uncertain(what))
    })
  }

  #poll<T>(
    look: () => T | undefined,
    timeoutMs: number,
    found: (value: T) => void,
    timedOut: () => void,
  ): void {
    const { clock, scheduler } = this.#context
    const end = clock.now() + timeoutMs
    const again = (): void => {
      const value = look()
      if (value !== undefined) found(value)
      else if (clock.now() >= end) timedOut()
      else scheduler.after(POLL_MS, again)
    }
    again()
  }
}

export function defaultFailureMode(replicaCount: number): FailureMode {
  return replicaCount >= 3 ? { kind: 'threshold', inSyncMin: 2 } : { kind: 'alwayson' }
}

function checkFailureMode(mode: FailureMode, replicaCount: number): void {
  if (mode.kind !== 'threshold') return
  if (mode.inSyncMin >= 1 && mode.inSyncMin <= replicaCount) return
  throw new HoldfastError(
    'HF_BAD_REQUEST',
    `threshold=${mode.inSyncMin} does not fit ${replicaCount} copies: it is from 1 to their number`,
  )
}

function stateOf(record: VolumeRecord, primary: NodeId | undefined): VolumeState {
  if (record.epoch === 0) return 'creating'
  if (primary === undefined || record.inSync.length < inSyncNeeded(record)) return 'unavailable'
  return record.inSync.length >= record.replicaCount ? 'healthy' : 'degraded'
}

const exists = (name: string): HoldfastError =>
  new HoldfastError('HF_CONFLICT', `volume ${name} exists already: choose another name`)
const notFound = (name: string): HoldfastError =>
  new HoldfastError('HF_NOT_FOUND', `there is no volume ${name}: see holdfast volume ls`)
const uncertain = (what: string): HoldfastError =>
  new HoldfastError(
    'HF_UNAVAILABLE',
    `${what}: the coordinator gave no clear answer, so it may or may not have happened: look, then try again`,
  )
