/**
 * Runs the controller on the one node that holds its key, and carries out what it decides.
 */
import { keys, type VolumeId } from '@holdfast/base'
import { Controller, type ControllerAction, controllerDefaults } from '@holdfast/controller'
import type { NodeContext } from './context.ts'

const STEP_MS = 1_000
/** Nothing has changed since a step that found nothing to do: only time can bring something, and not much. */
const CALM_STEP_MS = 5_000

export class ControllerHost {
  readonly #context: NodeContext
  #controller: Controller | undefined
  #standing = false
  #lastStepAt = Number.NEGATIVE_INFINITY
  #calm = false

  constructor(context: NodeContext) {
    this.#context = context
  }

  viewChanged(): void {
    this.#calm = false
    const { view, lease } = this.#context
    if (view.controller === undefined && view.synced && lease.held) this.#stand()
    if (!this.#isController()) this.#controller = undefined
  }

  tick(): void {
    const { clock, view, settings } = this.#context
    const now = clock.now()
    if (now - this.#lastStepAt < (this.#calm ? CALM_STEP_MS : STEP_MS)) return
    this.#lastStepAt = now
    if (!this.#isController()) {
      this.viewChanged()
      return
    }
    const { replaceAfterMs } = settings
    this.#controller ??= new Controller({ ...controllerDefaults, replaceAfterMs })
    const nodes = [...view.nodes.values()].map(({ record }) => ({
      record,
      alive: view.alive.get(record.name)?.record,
    }))
    const volumes = [...view.volumes.values()].map(({ key, modRevision, record }) => ({
      key,
      modRevision,
      record,
      primary: view.primaries.get(record.id)?.record,
    }))
    const tombstones = [...view.tombstones.values()]
    const actions = this.#controller.step({ now, nodes, volumes, tombstones })
    this.#calm = actions.length === 0
    for (const action of actions) this.#act(action)
  }

  #isController(): boolean {
    const { view, self, lease } = this.#context
    const holder = view.controller?.record
    return lease.held && holder?.node === self.node && holder.incarnation === self.incarnation
  }

  #stand(): void {
    if (this.#standing) return
    this.#standing = true
    const { coordinator, self } = this.#context
    const { node, incarnation } = self
    const value = JSON.stringify({ node, incarnation })
    const key = keys.controller
    coordinator.transact(
      { compares: [{ key, modRevision: 0 }], operations: [{ op: 'put', key, value, leased: true }] },
      () => {
        this.#standing = false
      },
    )
  }

  #act(action: ControllerAction): void {
    const { events, coordinator } = this.#context
    switch (action.kind) {
      case 'event':
        events.event(action.level, action.message, action.fields)
        return
      case 'update-volume':
      case 'update-tombstone': {
        const { key, modRevision, record, why } = action
        events.event('info', `controller: ${why}`, { key })
        const put = { op: 'put', key, value: JSON.stringify(record) } as const
        coordinator.transact({ compares: [{ key, modRevision }], operations: [put] }, () => {})
        return
      }
      case 'delete-tombstone': {
        const { key, modRevision } = action
        const operations = [{ op: 'delete', key } as const]
        coordinator.transact({ compares: [{ key, modRevision }], operations }, () => {})
        return
      }
      case 'move-primary':
        this.#mark(action.volume, { successor: action.to }, action.why)
        return
      case 'retire-member':
        this.#mark(action.volume, { retiring: action.node }, action.why)
        return
    }
  }

  /** Writes a wish into the record, for the primary to see wherever it is. */
  #mark(volume: VolumeId, wish: object, why: string): void {
    const { view, events, coordinator } = this.#context
    const versioned = view.byId.get(volume)
    if (versioned === undefined) return
    const { key, modRevision, record } = versioned
    events.event('info', `controller: ${why}`, { volume: record.name })
    const put = { op: 'put', key, value: JSON.stringify({ ...record, ...wish }) } as const
    coordinator.transact({ compares: [{ key, modRevision }], operations: [put] }, () => {})
  }
}
