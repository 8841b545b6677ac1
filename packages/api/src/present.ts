/** From the engine's views to the objects of the API. */
import type { ClusterAdmin, MountedVolume, NodeView, VolumeState, VolumeView } from '@holdfast/base'
import { BLOCK_BYTES } from '@holdfast/base'
import type {
  AttachmentObject,
  LocalReplicaObject,
  NodeDetailObject,
  NodeObject,
  NodeState,
  NodeVolumeObject,
  StatusObject,
  VolumeObject,
} from './objects.ts'
import { DEFAULT_NAMESPACE, formatFailureMode } from './values.ts'
import { version } from './version.ts'

/** The volume as people and NBD clients call it. */
export function fullName({ namespace, name }: { namespace: string; name: string }): string {
  return namespace === DEFAULT_NAMESPACE ? name : `${namespace}/${name}`
}

export function volumeObject({ record, state, primary, local }: VolumeView): VolumeObject {
  return {
    id: record.id,
    name: record.name,
    namespace: record.namespace,
    export: fullName(record),
    size: record.sizeBytes,
    epoch: record.epoch,
    primary: primary ?? null,
    inSync: record.inSync,
    replicas: record.replicas,
    replicaCount: record.replicaCount,
    state,
    failureMode: formatFailureMode(record.failureMode),
    labels: record.labels,
    createdAt: record.createdAt,
    attachedTo: record.attachment?.node ?? null,
    local: local === undefined ? undefined : localObject(local),
  }
}

function localObject(local: NonNullable<VolumeView['local']>): LocalReplicaObject {
  const { mappedBlocks, segmentCount, ...rest } = local
  return { ...rest, mappedBytes: mappedBlocks * BLOCK_BYTES, segments: segmentCount }
}

export function nodeObject({ record, alive, volumeCount, primaryCount }: NodeView): NodeObject {
  return {
    ...record,
    state: nodeState(record.draining, alive !== undefined, volumeCount),
    volumeCount,
    primaryCount,
    incarnation: alive?.incarnation,
    since: alive?.since,
    freeBytes: alive?.freeBytes,
    totalBytes: alive?.totalBytes,
  }
}

function nodeState(draining: boolean, alive: boolean, volumeCount: number): NodeState {
  if (draining && volumeCount === 0) return 'drained'
  if (!alive) return 'down'
  return draining ? 'draining' : 'up'
}

export function nodeDetailObject(node: NodeView, all: readonly VolumeView[]): NodeDetailObject {
  const { name } = node.record
  const volumes = sortedVolumes(all.filter(({ record }) => record.replicas.includes(name)))
  return {
    ...nodeObject(node),
    volumes: volumes.map(({ record, state, primary }): NodeVolumeObject => {
      const follows = record.inSync.includes(name) ? 'in-sync' : 'catching-up'
      const role = primary === name ? 'primary' : follows
      return { name: record.name, namespace: record.namespace, state, role }
    }),
  }
}

/** By namespace and name, whatever order the view has. */
export function sortedVolumes(volumes: readonly VolumeView[]): VolumeView[] {
  const key = ({ record }: VolumeView): string => `${record.namespace}/${record.name}`
  return [...volumes].sort((a, b) => (key(a) < key(b) ? -1 : 1))
}

export function sortedNodes(nodes: readonly NodeView[]): NodeView[] {
  return [...nodes].sort((a, b) => (a.record.name < b.record.name ? -1 : 1))
}

export function statusObject(admin: ClusterAdmin): StatusObject {
  const { ready, reason } = admin.readiness()
  const nodes = sortedNodes(admin.nodes())
  const volumes = sortedVolumes(admin.volumes())
  const inState = (state: VolumeState): number =>
    volumes.filter((volume) => volume.state === state).length
  const alive = nodes.flatMap((node) => (node.alive === undefined ? [] : [node.alive]))
  return {
    node: admin.node,
    version,
    ready,
    reason,
    nodes: {
      total: nodes.length,
      up: alive.length,
      draining: nodes.filter(({ record }) => record.draining).length,
    },
    volumes: {
      total: volumes.length,
      healthy: inState('healthy'),
      degraded: inState('degraded'),
      unavailable: inState('unavailable'),
      creating: inState('creating'),
    },
    freeBytes: alive.reduce((sum, { freeBytes }) => sum + freeBytes, 0),
    totalBytes: alive.reduce((sum, { totalBytes }) => sum + totalBytes, 0),
    tombstones: admin.tombstones().length,
    attention: attention(nodes, volumes),
  }
}

function attention(nodes: readonly NodeView[], volumes: readonly VolumeView[]): string[] {
  const sentences: string[] = []
  for (const { record, alive, volumeCount } of nodes) {
    if (alive !== undefined) continue
    const copies = volumeCount === 1 ? 'a copy of 1 volume' : `copies of ${volumeCount} volumes`
    sentences.push(
      `node ${record.name} is down and holds ${volumeCount === 0 ? 'nothing' : copies}`,
    )
  }
  for (const { record, state, local } of volumes) {
    const name = fullName(record)
    const have = `${record.inSync.length} of ${record.replicaCount} copies in sync`
    if (state === 'degraded') sentences.push(`volume ${name} is degraded: ${have}`)
    if (state === 'unavailable')
      sentences.push(`volume ${name} is unavailable: no primary serves, ${have}`)
    if (local?.problem !== undefined) {
      sentences.push(`the copy of volume ${name} on this node does not work: ${local.problem}`)
    }
  }
  return sentences
}

export function attachmentObject({ namespace, name, device, path, mountIds }: MountedVolume): AttachmentObject {
  return { name, namespace, device, path: path ?? null, users: mountIds.length }
}
