/**
 * What one volume needs next: a function of the cluster as it is, without memory.
 *
 * `kept` are the copies that count: on nodes that are live, or away but expected back. `settled` are
 * those of them that are in sync on a live node. Three rules make it converge without going to and fro:
 *   - a copy is added only while `kept` is short of the wanted count;
 *   - a copy is taken away only while `settled` alone reaches the wanted count without it;
 *   - nothing in `inSync` is taken away by the controller: the primary is asked to drop it first (I7).
 * As long as nodes keep their standing, the first two exclude each other.
 *
 * A volume follows its host: once it is whole, the host that it is attached to gets a copy, then the primary, and
 * another copy is the one too many.
 */
import type { NodeId, PrimaryRecord, VolumeRecord } from '@holdfast/base'
import type { NodeStanding, NodeView } from './node-watch.ts'

export type VolumePlan =
  | { readonly kind: 'none' }
  /** Take it out of `replicas`: it is not in sync. */
  | { readonly kind: 'remove'; readonly node: NodeId; readonly why: string }
  | { readonly kind: 'retire'; readonly node: NodeId; readonly why: string }
  /** Hand over to one of `candidates` (not empty). */
  | { readonly kind: 'move'; readonly candidates: readonly NodeId[]; readonly why: string }
  /** One copy more than wanted, on this node. */
  | { readonly kind: 'bring'; readonly node: NodeId; readonly why: string }
  /** Find one more node for a volume that keeps `kept`. */
  | { readonly kind: 'add'; readonly kept: readonly NodeId[]; readonly why: string }

const NONE: VolumePlan = { kind: 'none' }

/**
 * @param host the node that the data shall be on, if there is one
 * @param preferToDrop the least useful of several surplus copies, all equally in sync
 */
export function planVolume(
  record: VolumeRecord,
  primary: PrimaryRecord | undefined,
  nodes: ReadonlyMap<NodeId, NodeView>,
  host: NodeId | undefined,
  preferToDrop: (surplus: readonly NodeId[], settled: readonly NodeId[]) => NodeId | undefined,
): VolumePlan {
  if (primary === undefined || !reigns(record, primary, nodes)) return NONE
  const wanted = record.replicaCount
  const standing = (name: NodeId): NodeStanding => nodes.get(name)?.standing ?? 'gone'
  const inSync = new Set(record.inSync)
  const kept = record.replicas.filter((name) => isKept(standing(name)))
  const settled = kept.filter((name) => inSync.has(name) && standing(name) === 'live')

  if (kept.length < wanted) {
    // One change at a time: a copy that is filling now may be the last change, or a node that is back.
    const filling = kept.some((name) => !inSync.has(name) && standing(name) === 'live')
    return filling ? NONE : { kind: 'add', kept, why: whyAdd(record, standing) }
  }
  if (settled.length < wanted) return NONE
  const follow = host === undefined || standing(host) !== 'live' ? undefined : planFollow(record, primary, host)
  if (follow !== undefined) return follow
  const spare = spareOutOfSync(record, inSync, standing, host)
  if (spare !== undefined) {
    return { kind: 'remove', node: spare, why: whyDrop(spare, standing(spare)) }
  }
  const unwanted = record.replicas.filter((name) => !isKept(standing(name)))
  const member = unwanted.find((name) => name !== primary.node)
  if (member !== undefined) {
    return { kind: 'retire', node: member, why: whyDrop(member, standing(member)) }
  }
  if (unwanted.includes(primary.node)) {
    return { kind: 'move', candidates: settled, why: whyDrop(primary.node, 'draining') }
  }
  if (settled.length <= wanted) return NONE
  const surplus = preferToDrop(
    settled.filter((name) => name !== primary.node && name !== host),
    settled,
  )
  if (surplus === undefined) return NONE
  return { kind: 'retire', node: surplus, why: whyDrop(surplus, standing(surplus)) }
}

/** False while an election is under way or the view is torn between two reigns: then nothing is done. */
function reigns(
  record: VolumeRecord,
  primary: PrimaryRecord,
  nodes: ReadonlyMap<NodeId, NodeView>,
): boolean {
  if (primary.node !== record.primary || primary.epoch !== record.epoch) return false
  return record.inSync.includes(primary.node) && nodes.get(primary.node)?.alive === true
}

function isKept(standing: NodeStanding): boolean {
  return standing === 'live' || standing === 'away'
}

/** The next step of bringing a whole volume to its host; undefined: it is there, or a copy is filling. */
function planFollow(record: VolumeRecord, primary: PrimaryRecord, host: NodeId): VolumePlan | undefined {
  if (primary.node === host) return undefined
  if (record.inSync.includes(host)) {
    return { kind: 'move', candidates: [host], why: `${host} uses the volume` }
  }
  if (record.replicas.includes(host)) return NONE
  return { kind: 'bring', node: host, why: `${host} uses the volume` }
}

/** A copy beyond the wanted ones that no write waits for; the most hopeless first. */
function spareOutOfSync(
  record: VolumeRecord,
  inSync: ReadonlySet<NodeId>,
  standing: (name: NodeId) => NodeStanding,
  host: NodeId | undefined,
): NodeId | undefined {
  const spare = record.replicas.filter((name) => !inSync.has(name) && name !== host)
  for (const wanted of ['gone', 'draining', 'away', 'live'] as const) {
    const found = spare.find((name) => standing(name) === wanted)
    if (found !== undefined) return found
  }
  return undefined
}

function whyAdd(record: VolumeRecord, standing: (name: NodeId) => NodeStanding): string {
  const gone = record.replicas.find((name) => standing(name) === 'gone')
  if (gone !== undefined) return `${gone} stays away`
  const draining = record.replicas.find((name) => standing(name) === 'draining')
  if (draining !== undefined) return `${draining} is draining`
  return `${record.replicas.length} of ${record.replicaCount} copies exist`
}

function whyDrop(name: NodeId, standing: NodeStanding): string {
  if (standing === 'gone') return `${name} stays away and is replaced`
  if (standing === 'draining') return `${name} is draining`
  return `the copy on ${name} is one more than wanted`
}
