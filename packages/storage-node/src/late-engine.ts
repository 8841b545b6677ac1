/**
 * The servers listen before the engine exists, because the engine is told their ports. Until then these
 * stand in its place. Of a node with several shards it shows what all of them have.
 */
import {
  type ClusterAdmin,
  type Completion,
  type EngineStatistics,
  type ExportCatalog,
  type ExportSession,
  HoldfastError,
  type NodeId,
  type VolumeView,
} from '@holdfast/base'
import type { Shards } from './shards.ts'

/** The part of the engine that the servers use. */
export interface ServedEngine {
  readonly admin: ClusterAdmin
  readonly exports: ExportCatalog
  statistics(): EngineStatistics
}

const starting = (): HoldfastError =>
  new HoldfastError('HF_UNAVAILABLE', 'this node is starting: try again in a moment')

const noStatistics: EngineStatistics = {
  operations: [],
  epochChanges: 0,
  relayedRequests: 0,
  damagedBlocks: 0,
  membersDropped: 0,
  membersAdded: 0,
}

export class LateEngine implements ServedEngine {
  readonly admin: ClusterAdmin
  readonly exports: ExportCatalog
  #engine: ServedEngine | undefined
  #shards: Shards | undefined

  constructor(node: NodeId) {
    this.admin = this.#lateAdmin(node)
    this.exports = this.#lateExports()
  }

  set(engine: ServedEngine, shards?: Shards | undefined): void {
    this.#engine = engine
    this.#shards = shards
  }

  statistics(): EngineStatistics {
    const own = this.#engine?.statistics() ?? noStatistics
    return this.#shards?.statistics(own) ?? own
  }

  #lateExports(): ExportCatalog {
    return {
      list: () => this.#engine?.exports.list() ?? [],
      find: (name) => this.#engine?.exports.find(name),
      away: (name) => this.#engine?.exports.away?.(name),
      open: (name: string, completion: Completion): ExportSession =>
        this.#now().exports.open(name, completion),
    }
  }

  #lateAdmin(node: NodeId): ClusterAdmin {
    return {
      node,
      volumes: () => this.#now().admin.volumes().map((view) => this.#withLocal(view)),
      volume: (namespace, name) => {
        const view = this.#now().admin.volume(namespace, name)
        return view === undefined ? undefined : this.#withLocal(view)
      },
      nodes: () => this.#now().admin.nodes(),
      tombstones: () => this.#now().admin.tombstones(),
      createVolume: async (request) => this.#now().admin.createVolume(request),
      removeVolume: async (namespace, name) => this.#now().admin.removeVolume(namespace, name),
      movePrimary: async (namespace, name, to) =>
        this.#now().admin.movePrimary(namespace, name, to),
      setDraining: async (name, draining) => this.#now().admin.setDraining(name, draining),
      readiness: () =>
        this.#engine?.admin.readiness() ?? { ready: false, reason: 'the node is starting' },
    }
  }

  #withLocal(view: VolumeView): VolumeView {
    const local = view.local ?? this.#shards?.localView(view.record.id)
    return local === view.local ? view : { ...view, local }
  }

  #now(): ServedEngine {
    if (this.#engine === undefined) throw starting()
    return this.#engine
  }
}
