/**
 * A tombstone lists the nodes that may still hold data of a removed volume, and each takes itself off.
 * A node whose record was removed never will. A node that is merely down keeps its record and its place.
 */
import type { NodeId } from '@holdfast/base'
import type { ControllerAction, ControllerTombstone } from './actions.ts'

/** The clean-up this tombstone needs, if any. `nodes`: every node that has a record. */
export function planTombstone(
  tombstone: ControllerTombstone,
  nodes: ReadonlyMap<NodeId, unknown>,
): ControllerAction | undefined {
  const { key, modRevision, record } = tombstone
  const holders = record.holders.filter((name) => nodes.has(name))
  if (holders.length === 0) {
    const why = 'no node holds data of it any more'
    return { kind: 'delete-tombstone', key, modRevision, why }
  }
  if (holders.length === record.holders.length) return undefined
  const left = record.holders.filter((name) => !nodes.has(name))
  const why = `no longer nodes of the cluster: ${left.join(', ')}`
  return { kind: 'update-tombstone', key, modRevision, record: { ...record, holders }, why }
}
