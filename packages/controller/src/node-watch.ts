/**
 * Which nodes can be counted on, and for how long the others have been missed.
 *
 * The time counts on this controller's own clock from when it first saw the node away. A new controller
 * starts anew: waiting longer than needed costs redundancy for minutes, a wrong guess from somebody
 * else's clock costs a needless rebuild of everything on the node.
 */
import type { Instant, NodeId } from '@holdfast/base'
import type { ControllerAction, ControllerNode } from './actions.ts'

/**
 * `away`: not there, but expected back. `gone`: away for too long, or its record was removed by an
 * operator. `draining`: shall hold nothing any more.
 */
export type NodeStanding = 'live' | 'away' | 'draining' | 'gone'

export interface NodeView {
  readonly name: NodeId
  readonly standing: NodeStanding
  readonly alive: boolean
}

interface Absence {
  readonly since: Instant
  reported: boolean
}

export class NodeWatch {
  readonly #replaceAfterMs: number
  readonly #absences = new Map<NodeId, Absence>()

  constructor(replaceAfterMs: number) {
    this.#replaceAfterMs = replaceAfterMs
  }

  /** The standing of every node that has a record; events for what changed go to `events`. */
  observe(
    now: Instant,
    nodes: readonly ControllerNode[],
    events: ControllerAction[],
  ): ReadonlyMap<NodeId, NodeView> {
    const views = new Map<NodeId, NodeView>()
    for (const { record, alive } of nodes) {
      const { name } = record
      const here = alive !== undefined
      const gone = here ? this.#present(name, now, events) : this.#missing(name, now, events)
      const standing = gone ? 'gone' : record.draining ? 'draining' : here ? 'live' : 'away'
      views.set(name, { name, standing, alive: here })
    }
    for (const name of this.#absences.keys()) if (!views.has(name)) this.#absences.delete(name)
    return views
  }

  #present(name: NodeId, now: Instant, events: ControllerAction[]): false {
    const absence = this.#absences.get(name)
    if (absence !== undefined) {
      this.#absences.delete(name)
      const awayMs = now - absence.since
      events.push(event('info', 'node is back', { node: name, awayMs }))
    }
    return false
  }

  /** True when it has been away for too long. */
  #missing(name: NodeId, now: Instant, events: ControllerAction[]): boolean {
    let absence = this.#absences.get(name)
    if (absence === undefined) {
      absence = { since: now, reported: false }
      this.#absences.set(name, absence)
      const replaceAfterMs = this.#replaceAfterMs
      events.push(event('warn', 'node is away', { node: name, replaceAfterMs }))
    }
    const awayMs = now - absence.since
    if (awayMs < this.#replaceAfterMs) return false
    if (!absence.reported) {
      absence.reported = true
      events.push(
        event('warn', 'node stays away, its copies are made anew', { node: name, awayMs }),
      )
    }
    return true
  }
}

function event(
  level: 'info' | 'warn',
  message: string,
  fields: Readonly<Record<string, string | number>>,
): ControllerAction {
  return { kind: 'event', level, message, fields }
}
