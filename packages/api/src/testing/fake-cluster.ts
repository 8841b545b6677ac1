/** A cluster of three nodes that exists only in memory: for tests of the API and the command line. */
import {
  type AliveRecord,
  type ClusterAdmin,
  type CreateVolume,
  type EngineStatistics,
  epoch,
  type FailureMode,
  HoldfastError,
  incarnation,
  type LocalReplicaView,
  lsn,
  type MountedVolume,
  type MountRequest,
  type NodeId,
  type NodeRecord,
  type NodeView,
  nodeId,
  type TombstoneRecord,
  type VolumeMounts,
  type VolumeRecord,
  type VolumeState,
  type VolumeView,
  volumeId,
} from '@holdfast/base'

const NOW = '2026-01-02T03:04:05Z'

export class FakeCluster implements ClusterAdmin {
  readonly node = nodeId('a')
  readonly calls: string[] = []
  readonly down = new Set<string>()
  ready = true
  /** What the next change throws. */
  failure: Error | undefined
  /** Set: a created volume serves only after that many looks at it. */
  looksUntilServing = 0
  readonly #nodes = new Map<string, NodeRecord>()
  readonly #volumes = new Map<string, VolumeRecord>()
  #serial = 0

  constructor(nodes: readonly string[] = ['a', 'b', 'c']) {
    for (const name of nodes) {
      const ports = { peerPort: 5710, apiPort: 5705, nbdPort: 10809 }
      const labels = { zone: name }
      this.#nodes.set(name, {
        name: nodeId(name),
        host: '10.0.0.1',
        ...ports,
        labels,
        draining: false,
      })
    }
  }

  volumes(): readonly VolumeView[] {
    return [...this.#volumes.values()].map((record) => this.#view(record))
  }

  volume(namespace: string, name: string): VolumeView | undefined {
    const record = this.#volumes.get(`${namespace}/${name}`)
    if (record !== undefined && this.looksUntilServing > 0) this.looksUntilServing--
    return record === undefined ? undefined : this.#view(record)
  }

  nodes(): readonly NodeView[] {
    const volumes = [...this.#volumes.values()]
    return [...this.#nodes.values()].map((record) => ({
      record,
      alive: this.down.has(record.name) ? undefined : alive(record.name),
      volumeCount: volumes.filter(({ replicas }) => replicas.includes(record.name)).length,
      primaryCount: volumes.filter(({ primary }) => primary === record.name).length,
    }))
  }

  tombstones(): readonly TombstoneRecord[] {
    return []
  }

  readiness(): { readonly ready: boolean; readonly reason: string } {
    return {
      ready: this.ready,
      reason: this.ready ? 'ready' : 'the coordinator has not been reached yet',
    }
  }

  async createVolume(request: CreateVolume): Promise<VolumeView> {
    this.calls.push(`create ${JSON.stringify(request)}`)
    this.#failIfTold()
    const { namespace, name, sizeBytes, replicaCount, labels } = request
    const key = `${namespace}/${name}`
    if (this.#volumes.has(key))
      throw new HoldfastError('HF_CONFLICT', `volume ${name} exists already`)
    const replicas = [...this.#nodes.values()].map((node) => node.name).slice(0, replicaCount)
    if (replicas.length < replicaCount) throw new HoldfastError('HF_TOO_FEW_NODES', 'too few nodes')
    const failureMode: FailureMode = request.failureMode ?? { kind: 'alwayson' }
    const record: VolumeRecord = {
      id: volumeId(String(++this.#serial).padStart(16, '0')),
      name,
      namespace,
      sizeBytes,
      replicaCount,
      failureMode,
      labels,
      createdAt: NOW,
      segmentBlocks: 1024,
      epoch: epoch(1),
      primary: replicas[0],
      inSync: replicas,
      replicas,
    }
    this.#volumes.set(key, record)
    if (this.looksUntilServing > 0)
      throw new HoldfastError('HF_TIMEOUT', `volume ${name} does not serve yet`)
    return this.#view(record)
  }

  async removeVolume(namespace: string, name: string): Promise<void> {
    this.calls.push(`remove ${namespace}/${name}`)
    this.#failIfTold()
    this.#volumes.delete(`${namespace}/${name}`)
  }

  async movePrimary(namespace: string, name: string, to: NodeId | undefined): Promise<VolumeView> {
    this.calls.push(`move ${namespace}/${name} ${to ?? '-'}`)
    this.#failIfTold()
    const record = this.#volumes.get(`${namespace}/${name}`)
    if (record === undefined) throw new HoldfastError('HF_NOT_FOUND', `there is no volume ${name}`)
    const primary = to ?? record.inSync.find((node) => node !== record.primary)
    return this.change(namespace, name, { primary, epoch: epoch(record.epoch + 1) })
  }

  async setDraining(node: NodeId, draining: boolean): Promise<NodeView> {
    this.calls.push(`drain ${node} ${draining}`)
    this.#failIfTold()
    const record = this.#nodes.get(node)
    if (record !== undefined) this.#nodes.set(node, { ...record, draining })
    const view = this.nodes().find((candidate) => candidate.record.name === node)
    if (view === undefined) throw new HoldfastError('HF_NOT_FOUND', `there is no node ${node}`)
    return view
  }

  /** Changes a volume's record, as the cluster itself would. */
  change(namespace: string, name: string, change: Partial<VolumeRecord>): VolumeView {
    const key = `${namespace}/${name}`
    const record = this.#volumes.get(key)
    if (record === undefined) throw new Error(`no ${key}`)
    const changed = { ...record, ...change }
    this.#volumes.set(key, changed)
    return this.#view(changed)
  }

  #failIfTold(): void {
    const { failure } = this
    this.failure = undefined
    if (failure !== undefined) throw failure
  }

  #view(record: VolumeRecord): VolumeView {
    const serving = this.looksUntilServing === 0
    const primary = serving ? record.primary : undefined
    const local = record.replicas.includes(this.node) ? localView(record, primary) : undefined
    return { record, state: this.#state(record, primary), primary, local }
  }

  #state(record: VolumeRecord, primary: NodeId | undefined): VolumeState {
    if (this.looksUntilServing > 0) return 'creating'
    if (primary === undefined) return 'unavailable'
    return record.inSync.length < record.replicaCount ? 'degraded' : 'healthy'
  }
}

function alive(name: NodeId): AliveRecord {
  return {
    name,
    incarnation: incarnation('0123456789abcdef'),
    freeBytes: 5e9,
    totalBytes: 1e10,
    since: NOW,
  }
}

function localView(record: VolumeRecord, primary: NodeId | undefined): LocalReplicaView {
  const others = record.replicas.filter((node) => node !== primary)
  return {
    role: primary === 'a' ? 'primary' : 'secondary',
    epoch: record.epoch,
    appendedLsn: lsn(12),
    committedLsn: lsn(10),
    durableLsn: lsn(8),
    mappedBlocks: 5,
    segmentCount: 1,
    logBytes: 4_194_304,
    members:
      primary !== 'a'
        ? []
        : others.map((node) => ({ node, state: 'in-sync', lagBytes: 8192, progress: 1 })),
  }
}

export const fakeStatistics: EngineStatistics = {
  operations: [
    {
      volume: 'default/data',
      operation: 'read',
      count: 3,
      bytes: 12_288,
      errors: 0,
      latencyBuckets: [1, 2, 0],
      latencySumSeconds: 0.5,
    },
    {
      volume: 'default/other',
      operation: 'read',
      count: 2,
      bytes: 8192,
      errors: 1,
      latencyBuckets: [0, 1, 1],
      latencySumSeconds: 0.25,
    },
  ],
  epochChanges: 4,
  relayedRequests: 5,
  damagedBlocks: 6,
  membersDropped: 7,
  membersAdded: 8,
}

/** A host whose mounts take no time and exist only in memory. */
export class FakeMounts implements VolumeMounts {
  readonly calls: string[] = []
  /** What the next call throws. */
  failure: Error | undefined
  /** What the next mount waits for. */
  hold: Promise<void> | undefined
  readonly #mounted = new Map<string, MountedVolume & { readonly mountIds: string[] }>()

  async mount({ namespace, name, mountId, directory, ...rest }: MountRequest): Promise<{ readonly path: string }> {
    const { fileSystem, mkfsOptions, mountOptions } = rest
    this.#note(`mount ${namespace}/${name} ${mountId} ${[fileSystem, ...mkfsOptions, ...mountOptions].join(' ')}`)
    const { hold } = this
    this.hold = undefined
    await hold
    const path = directory ?? `${this.root}/${namespace}/${name}`
    const known = this.#mounted.get(`${namespace}/${name}`)
    const mountIds = [...new Set([...(known?.mountIds ?? []), mountId])]
    this.#mounted.set(`${namespace}/${name}`, { namespace, name, device: '/dev/nbd0', path, mountIds })
    return { path }
  }

  async unmount(namespace: string, name: string, mountId: string): Promise<void> {
    this.#note(`unmount ${namespace}/${name} ${mountId}`)
    const known = this.#mounted.get(`${namespace}/${name}`)
    if (known === undefined) return
    const mountIds = known.mountIds.filter((id) => id !== mountId)
    const path = mountIds.length === 0 ? undefined : known.path
    this.#mounted.set(`${namespace}/${name}`, { ...known, path, mountIds })
  }

  async attach(namespace: string, name: string): Promise<{ readonly device: string }> {
    this.#note(`attach ${namespace}/${name}`)
    this.#mounted.set(`${namespace}/${name}`, { namespace, name, device: '/dev/nbd0', path: undefined, mountIds: [] })
    return { device: '/dev/nbd0' }
  }

  async detach(namespace: string, name: string): Promise<void> {
    this.#note(`detach ${namespace}/${name}`)
    this.#mounted.delete(`${namespace}/${name}`)
  }

  list(): readonly MountedVolume[] {
    return [...this.#mounted.values()]
  }

  readonly root: string
  constructor(root = '/mounts') {
    this.root = root
  }

  #note(call: string): void {
    this.calls.push(call)
    const { failure } = this
    this.failure = undefined
    if (failure !== undefined) throw failure
  }
}
