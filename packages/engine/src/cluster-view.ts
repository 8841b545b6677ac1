/**
 * The cluster as the coordinator tells it: watched, never polled.
 *
 * What is seen here may be late. Nothing is decided on it that a compare-and-swap does not check.
 */
import {
  type AliveRecord,
  type ControllerRecord,
  type Coordinator,
  type CoordinatorEntry,
  type EventLog,
  KEY_ROOT,
  keys,
  type NodeId,
  type NodeRecord,
  type PrimaryRecord,
  type TombstoneRecord,
  type VolumeId,
  type VolumeRecord,
} from '@holdfast/base'

export interface Versioned<T> {
  readonly key: string
  readonly modRevision: number
  readonly record: T
}

export class ClusterView {
  readonly volumes = new Map<string, Versioned<VolumeRecord>>()
  readonly byId = new Map<VolumeId, Versioned<VolumeRecord>>()
  readonly primaries = new Map<VolumeId, Versioned<PrimaryRecord>>()
  readonly nodes = new Map<NodeId, Versioned<NodeRecord>>()
  readonly alive = new Map<NodeId, Versioned<AliveRecord>>()
  readonly tombstones = new Map<VolumeId, Versioned<TombstoneRecord>>()
  controller: Versioned<ControllerRecord> | undefined
  /** True once the coordinator has told everything at least once. */
  synced = false
  readonly #coordinator: Coordinator
  readonly #events: EventLog
  readonly #listeners: (() => void)[] = []
  /** What is known reaches up to here; older news is no news. */
  #revision = 0

  constructor(coordinator: Coordinator, events: EventLog) {
    this.#coordinator = coordinator
    this.#events = events
  }

  /** Called after each batch of changes. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener)
  }

  start(): () => void {
    return this.#coordinator.watch(KEY_ROOT, {
      snapshot: (entries, revision) => {
        this.#revision = revision
        this.#clear()
        for (const entry of entries) this.#put(entry)
        this.synced = true
        this.#changed()
      },
      changes: (changes, revision) => {
        if (revision <= this.#revision) return
        this.#revision = revision
        for (const change of changes) {
          if (change.change === 'put') this.#put(change.entry)
          else this.#delete(change.key)
        }
        this.#changed()
      },
    })
  }

  /** What we know from our own transaction before the watch tells it. */
  learnVolume(key: string, record: VolumeRecord, modRevision: number): void {
    const known = this.volumes.get(key)
    if (known !== undefined && known.modRevision >= modRevision) return
    const versioned = { key, modRevision, record: inOneShape(record) }
    this.volumes.set(key, versioned)
    this.byId.set(record.id, versioned)
  }

  #changed(): void {
    for (const listener of this.#listeners) listener()
  }

  #clear(): void {
    this.volumes.clear()
    this.byId.clear()
    this.primaries.clear()
    this.nodes.clear()
    this.alive.clear()
    this.tombstones.clear()
    this.controller = undefined
  }

  #put({ key, value, modRevision }: CoordinatorEntry): void {
    let record: unknown
    try {
      record = JSON.parse(value)
    } catch {
      this.#events.event('error', 'a coordinator key holds no JSON and is ignored', { key })
      return
    }
    const at = <T>(): Versioned<T> => ({ key, modRevision, record: record as T })
    if (key.startsWith(keys.volumes)) {
      this.learnVolume(key, record as VolumeRecord, modRevision)
    } else if (key.startsWith(keys.primaries)) {
      this.primaries.set(key.slice(keys.primaries.length) as VolumeId, at<PrimaryRecord>())
    } else if (key.startsWith(keys.nodes)) {
      this.nodes.set(key.slice(keys.nodes.length) as NodeId, at<NodeRecord>())
    } else if (key.startsWith(keys.alive)) {
      this.alive.set(key.slice(keys.alive.length) as NodeId, at<AliveRecord>())
    } else if (key.startsWith(keys.tombstones)) {
      this.tombstones.set(key.slice(keys.tombstones.length) as VolumeId, at<TombstoneRecord>())
    } else if (key === keys.controller) {
      this.controller = at<ControllerRecord>()
    }
  }

  #delete(key: string): void {
    if (key.startsWith(keys.volumes)) {
      const known = this.volumes.get(key)
      this.volumes.delete(key)
      if (known !== undefined && this.byId.get(known.record.id)?.key === key) {
        this.byId.delete(known.record.id)
      }
    } else if (key.startsWith(keys.primaries)) {
      this.primaries.delete(key.slice(keys.primaries.length) as VolumeId)
    } else if (key.startsWith(keys.nodes)) {
      this.nodes.delete(key.slice(keys.nodes.length) as NodeId)
    } else if (key.startsWith(keys.alive)) {
      this.alive.delete(key.slice(keys.alive.length) as NodeId)
    } else if (key.startsWith(keys.tombstones)) {
      this.tombstones.delete(key.slice(keys.tombstones.length) as VolumeId)
    } else if (key === keys.controller) {
      this.controller = undefined
    }
  }
}

/**
 * The same record with its fields in one order, present or not: thousands of them are looked at every second, and
 * each order of fields would be a type of its own to the compiler.
 */
function inOneShape(record: VolumeRecord): VolumeRecord {
  // What a later version adds must not be lost from a record that we write back.
  const { epoch, primary, inSync, replicas, successor, releasedEpoch, retiring, attachment, ...rest } = record
  const { id, name, namespace, sizeBytes, replicaCount, failureMode, labels, createdAt, segmentBlocks, ...later } = rest
  return {
    id,
    name,
    namespace,
    sizeBytes,
    replicaCount,
    failureMode,
    labels,
    createdAt,
    segmentBlocks,
    epoch,
    primary,
    inSync,
    replicas,
    successor,
    releasedEpoch,
    retiring,
    attachment,
    ...later,
  }
}

/**
 * Asks the coordinator for a volume's record as it is now. `done` gets `absent` where there is none, and undefined where there
 * is no answer.
 */
export function readRecord(
  coordinator: Coordinator,
  key: string,
  done: (found: Versioned<VolumeRecord> | 'absent' | undefined) => void,
): void {
  coordinator.range(key, (result) => {
    if (result.kind === 'unknown') return done(undefined)
    const entry = result.entries.find((one) => one.key === key)
    if (entry === undefined) return done('absent')
    return done({ key, modRevision: entry.modRevision, record: JSON.parse(entry.value) as VolumeRecord })
  })
}
