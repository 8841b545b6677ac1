/**
 * Where the copies of a volume go.
 *
 * Volumes are thin: a new copy takes almost no space and grows. So the question is not whether the whole
 * size fits now but how much room each volume of a node still has to grow into: free bytes divided by
 * the volumes that share them, the new one counted. That also keeps a burst of empty volumes from
 * landing on one node, which it would if free bytes alone decided.
 */
import type { NodeId } from '@holdfast/base'

/** Below this a node takes no new copy, unless the volume is smaller still. */
export const PLACEMENT_FREE_BYTES_MIN = 256 * 1024 * 1024

/** The node label that names a failure domain: a rack, a room, an availability zone. */
export const ZONE_LABEL = 'zone'

export interface PlacementNode {
  readonly name: NodeId
  readonly alive: boolean
  readonly draining: boolean
  readonly freeBytes: number
  /** 0: the node doesn't say; then it is taken to have room. */
  readonly totalBytes: number
  /** Copies it holds or shall hold already. */
  readonly volumeCount: number
  readonly labels: Readonly<Record<string, string>>
}

export interface PlacementRequest {
  readonly nodes: readonly PlacementNode[]
  /** Copies wanted, those in `keep` included. */
  readonly replicaCount: number
  readonly sizeBytes: number
  /** Gets a copy, and the first place among the new ones, if it can take one. */
  readonly prefer?: NodeId | undefined
  /** Never chosen. */
  readonly exclude?: readonly NodeId[] | undefined
  /** Copies that exist and stay, alive or not: they come first in the answer, in this order. */
  readonly keep?: readonly NodeId[] | undefined
}

export type PlacementResult =
  | {
      readonly kind: 'placed'
      /** Distinct. */
      readonly replicas: readonly NodeId[]
      /** What the operator may want to know: a shared zone, a preference that could not be met. */
      readonly note?: string | undefined
    }
  /** `reason` is one sentence that says what to do. */
  | { readonly kind: 'impossible'; readonly reason: string }

/** Chooses `replicaCount` distinct nodes; the same input gives the same answer in any order of nodes. */
export function placeReplicas(request: PlacementRequest): PlacementResult {
  const { replicaCount, sizeBytes } = request
  if (!Number.isInteger(replicaCount) || replicaCount < 1) {
    return {
      kind: 'impossible',
      reason: `${replicaCount} replicas can't be placed: ask for --replicas 1 or more`,
    }
  }
  const keep = [...new Set(request.keep ?? [])]
  const excluded = new Set(request.exclude ?? [])
  const usable = request.nodes.filter(
    (node) => !keep.includes(node.name) && !excluded.has(node.name),
  )
  const candidates = usable.filter((node) => canTake(node, sizeBytes))
  if (keep.length + candidates.length < replicaCount) {
    return {
      kind: 'impossible',
      reason: shortage(usable, keep.length, candidates.length, request),
    }
  }
  const zones = new Map(request.nodes.map((node) => [node.name, zoneOf(node)]))
  const chosen = [...keep]
  let note = preferenceNote(request, keep, candidates)
  let sharing = false
  while (chosen.length < replicaCount) {
    const preferred = candidates.find((node) => node.name === request.prefer)
    const choice =
      preferred !== undefined && !chosen.includes(preferred.name)
        ? { node: preferred, zoneShare: 0 }
        : nextReplica(candidates, chosen, zones, sizeBytes)
    // Enough candidates were counted above, so there is one until the loop ends.
    if (choice === undefined) break
    if (choice.zoneShare > 0) sharing = true
    chosen.push(choice.node.name)
  }
  if (sharing && anyZone(request.nodes)) {
    const text = sharedZoneNote(chosen, zones)
    note = note === undefined ? text : `${note}; ${text}`
  }
  return { kind: 'placed', replicas: chosen, note }
}

export interface ReplicaChoice {
  readonly node: PlacementNode
  /** Copies that are in the node's zone already. */
  readonly zoneShare: number
}

/** The best further node for a volume that has `chosen`; undefined when no candidate is left. */
export function nextReplica(
  candidates: readonly PlacementNode[],
  chosen: readonly NodeId[],
  zones: ReadonlyMap<NodeId, string>,
  sizeBytes: number,
): ReplicaChoice | undefined {
  let best: ReplicaChoice | undefined
  for (const node of candidates) {
    if (chosen.includes(node.name)) continue
    const zone = zoneOf(node)
    const zoneShare = chosen.filter((name) => zones.get(name) === zone).length
    const choice = { node, zoneShare }
    if (best === undefined || compareChoices(choice, best, sizeBytes) < 0) best = choice
  }
  return best
}

/** True when the node may get a new copy of a volume of this size. */
export function canTake(node: PlacementNode, sizeBytes: number): boolean {
  if (!node.alive || node.draining) return false
  return node.totalBytes === 0 || node.freeBytes >= freeBytesNeeded(sizeBytes)
}

/** True when the volume would fit even if all of it were written now. */
export function fitsWhole(node: PlacementNode, sizeBytes: number): boolean {
  return node.totalBytes === 0 || node.freeBytes >= sizeBytes
}

/** The failure domain; nodes without the label form one of their own. */
export function zoneOf(node: Pick<PlacementNode, 'labels'>): string {
  return node.labels[ZONE_LABEL] ?? ''
}

/** Free bytes for each volume of the node, one more counted: what a new copy can hope to grow into. */
export function roomPerVolume(node: PlacementNode): number {
  return node.freeBytes / (node.volumeCount + 1)
}

export function compareNames(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** Negative when `a` is the better place: another zone, then room for all of it, then most room. */
function compareChoices(a: ReplicaChoice, b: ReplicaChoice, sizeBytes: number): number {
  if (a.zoneShare !== b.zoneShare) return a.zoneShare - b.zoneShare
  const fits = Number(fitsWhole(b.node, sizeBytes)) - Number(fitsWhole(a.node, sizeBytes))
  if (fits !== 0) return fits
  const room = roomPerVolume(b.node) - roomPerVolume(a.node)
  if (room !== 0) return room
  const count = a.node.volumeCount - b.node.volumeCount
  return count !== 0 ? count : compareNames(a.node.name, b.node.name)
}

function freeBytesNeeded(sizeBytes: number): number {
  return Math.min(sizeBytes, PLACEMENT_FREE_BYTES_MIN)
}

function anyZone(nodes: readonly PlacementNode[]): boolean {
  return nodes.some((node) => zoneOf(node) !== '')
}

function preferenceNote(
  request: PlacementRequest,
  keep: readonly NodeId[],
  candidates: readonly PlacementNode[],
): string | undefined {
  const { prefer } = request
  if (prefer === undefined || keep.includes(prefer)) return undefined
  if (keep.length >= request.replicaCount) return undefined
  if (candidates.some((node) => node.name === prefer)) return undefined
  return `${prefer} can't take a copy (${whyNot(prefer, request)}), so it has none`
}

function whyNot(name: NodeId, request: PlacementRequest): string {
  const node = request.nodes.find((other) => other.name === name)
  if (node === undefined) return 'no such node'
  if (request.exclude?.includes(name) === true) return 'excluded'
  if (!node.alive) return 'not alive'
  return node.draining ? 'draining' : 'too little free space'
}

function sharedZoneNote(chosen: readonly NodeId[], zones: ReadonlyMap<NodeId, string>): string {
  const members = new Map<string, NodeId[]>()
  for (const name of chosen) {
    const zone = zones.get(name)
    if (zone === undefined) continue
    members.set(zone, [...(members.get(zone) ?? []), name])
  }
  const shared = [...members]
    .filter(([, names]) => names.length > 1)
    .map(([zone, names]) => {
      const where = zone === '' ? 'have no zone' : `share zone ${zone}`
      return `${[...names].sort(compareNames).join(' and ')} ${where}`
    })
    .sort(compareNames)
  return `${shared.join(', ')}: too few zones have a node with room, add one in another zone`
}

/** Names no byte counts of nodes, which change every second: the sentence must stay comparable. */
function shortage(
  usable: readonly PlacementNode[],
  kept: number,
  candidateCount: number,
  request: PlacementRequest,
): string {
  const { replicaCount, sizeBytes } = request
  const live = usable.filter((node) => node.alive && !node.draining)
  const full = live.filter((node) => !canTake(node, sizeBytes))
  const draining = usable.filter((node) => node.alive && node.draining)
  const have = kept + candidateCount
  const bySpace = kept + live.length >= replicaCount
  const needed = `${counted(replicaCount, 'replica')} ${replicaCount === 1 ? 'needs' : 'need'}`
  const kind = bySpace ? `with ${mebibytes(freeBytesNeeded(sizeBytes))} free` : ''
  const nodes = `${replicaCount} ${bySpace ? '' : 'live '}${replicaCount === 1 ? 'node' : 'nodes'}`
  const asides = [
    full.length > 0
      ? `${names(full)} ${full.length === 1 ? 'has' : 'have'} too little free space`
      : '',
    draining.length > 0
      ? `${names(draining)} ${draining.length === 1 ? 'is' : 'are'} draining`
      : '',
  ].filter((text) => text !== '')
  const remedies = [
    bySpace ? `free space on ${names(full)}` : '',
    have === 0 && !bySpace && usable.length === 0 ? 'start a node' : 'start another node',
    have > 0 ? `ask for --replicas ${have}` : '',
  ].filter((text) => text !== '')
  const aside = asides.length > 0 ? ` (${asides.join('; ')})` : ''
  const found = `and there ${have === 1 ? 'is' : 'are'} ${have}`
  return `${[needed, nodes, kind, found].filter((text) => text !== '').join(' ')}${aside}: ${either(remedies)}`
}

function names(nodes: readonly PlacementNode[]): string {
  const sorted = nodes.map((node) => node.name).sort(compareNames)
  // A sentence, not a list of the cluster.
  if (sorted.length <= 4) return sorted.join(', ')
  return `${sorted.slice(0, 3).join(', ')} and ${sorted.length - 3} more`
}

function either(parts: readonly string[]): string {
  return parts.length <= 1 ? parts.join('') : `${parts.slice(0, -1).join(', ')} or ${parts.at(-1)}`
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}

function mebibytes(bytes: number): string {
  return `${Math.ceil(bytes / (1024 * 1024))} MiB`
}
