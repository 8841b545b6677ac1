/**
 * Who has a volume attached: this node's side of the exclusive right (the primary's is `attachment-guard.ts`).
 *
 * The right stands in the volume's record. It outlives a restart of the node's process, and may be taken over by
 * another host as soon as the node has no lease at the coordinator: a compare on the key `alive/<node>` in the same
 * transaction. Whoever takes it waits until the primary has confirmed that nothing of the old host is on its way.
 */
import {
  type AttachmentDesk,
  type AttachmentRight,
  type Compare,
  followsHost,
  HoldfastError,
  keys,
  type NodeId,
  timestamp,
  type TransactionResult,
  type VolumeAttachment,
  type VolumeId,
  type VolumeRecord,
} from '@holdfast/base'
import { readRecord, type Versioned } from './cluster-view.ts'
import type { NodeContext } from './context.ts'

const CLAIM_TIMEOUT_MS = 20_000
const RETRY_MS = 50
const POLL_MS = 5

export type AttachmentLost = (namespace: string, name: string) => void

export class Attachments implements AttachmentDesk {
  readonly #context: NodeContext
  /** Rights that this process has taken and not given back. */
  readonly #held = new Map<VolumeId, { readonly namespace: string; readonly name: string; readonly generation: number }>()
  /** Rights of claims that failed, on their way back: the next claim must not be given back with them. */
  readonly #givingBack = new Map<string, Promise<void>>()
  #lost: AttachmentLost = () => {}

  constructor(context: NodeContext) {
    this.#context = context
  }

  /** Calls `lost` when a right that was taken turns out to be somebody else's, or the volume to be removed. */
  onLost(lost: AttachmentLost): void {
    this.#lost = lost
  }

  holder(namespace: string, name: string): NodeId | undefined {
    return this.#context.view.volumes.get(keys.volume(namespace, name))?.record.attachment?.node
  }

  async claim(namespace: string, name: string): Promise<AttachmentRight> {
    const key = keys.volume(namespace, name)
    const progress = { taken: false }
    await this.#givingBack.get(key)
    try {
      return await this.#claim(namespace, name, progress)
    } catch (error) {
      // Else a volume that could not be had here would be nobody else's either. The error does not wait for it.
      if (progress.taken) this.#giveBack(key, namespace, name)
      throw error
    }
  }

  async reconfirm(namespace: string, name: string, right: AttachmentRight | undefined): Promise<AttachmentRight> {
    const { clock, self, lease } = this.#context
    const end = clock.now() + CLAIM_TIMEOUT_MS
    for (;;) {
      if (!lease.held) throw unavailable(namespace, name, 'this node has no lease at the coordinator')
      const versioned = await this.#read(namespace, name)
      if (versioned !== undefined) {
        const { id, attachment } = versioned.record
        const same = right === undefined || (id === right.volume && attachment?.generation === right.generation)
        if (attachment?.node !== self.node || !same) throw usedSince(namespace, name)
        const confirmed = await this.#confirmed(namespace, name, end)
        if (confirmed !== undefined) return confirmed
      }
      if (clock.now() >= end) throw unavailable(namespace, name, NO_ANSWER)
      await this.#pause(RETRY_MS)
    }
  }

  async rights(): Promise<readonly { readonly namespace: string; readonly name: string }[]> {
    const { view, self } = this.#context
    while (!view.synced) await this.#pause(RETRY_MS)
    const records = [...view.volumes.values()].map(({ record }) => record)
    return records.filter(({ attachment }) => attachment?.node === self.node).map(({ namespace, name }) => ({ namespace, name }))
  }

  async #claim(namespace: string, name: string, progress: { taken: boolean }): Promise<AttachmentRight> {
    const { clock, self, lease } = this.#context
    const end = clock.now() + CLAIM_TIMEOUT_MS
    for (;;) {
      if (!lease.held) throw unavailable(namespace, name, 'this node has no lease at the coordinator')
      const versioned = await this.#read(namespace, name)
      if (versioned !== undefined) {
        this.#refuseOutOfReach(versioned.record)
        const { attachment } = versioned.record
        if (attachment?.node !== self.node && (await this.#take(versioned)) !== 'refused') progress.taken = true
        if (attachment?.node === self.node || progress.taken) {
          const confirmed = await this.#confirmed(namespace, name, end)
          if (confirmed !== undefined) return confirmed
        }
      }
      if (clock.now() >= end) throw unavailable(namespace, name, NO_ANSWER)
      await this.#pause(RETRY_MS)
    }
  }

  #giveBack(key: string, namespace: string, name: string): void {
    const done = this.release(namespace, name)
      .catch(() => undefined)
      .finally(() => this.#givingBack.delete(key))
    this.#givingBack.set(key, done)
  }

  async release(namespace: string, name: string): Promise<void> {
    const { clock, self } = this.#context
    const end = clock.now() + CLAIM_TIMEOUT_MS
    const known = this.#context.view.volumes.get(keys.volume(namespace, name))?.record.id
    if (known !== undefined) this.#held.delete(known)
    while (clock.now() < end) {
      const versioned = await this.#read(namespace, name).catch((error: unknown) => {
        if (error instanceof HoldfastError && error.code === 'HF_NOT_FOUND') return 'gone' as const
        throw error
      })
      if (versioned === 'gone') return
      if (versioned !== undefined) {
        const { attachment, ...record } = versioned.record
        if (attachment?.node !== self.node) return
        const result = await this.#put(versioned, record, [])
        if (result.kind === 'ok') return
      }
      await this.#pause(RETRY_MS)
    }
    throw unavailable(namespace, name, 'the coordinator gives no answer')
  }

  /** To be called when the cluster's view has changed. */
  viewChanged(): void {
    const { view, self } = this.#context
    for (const [id, held] of this.#held) {
      const record = view.byId.get(id)?.record
      if (record === undefined ? !view.tombstones.has(id) : isOurs(record, self.node, held.generation)) continue
      this.#held.delete(id)
      this.#context.events.event('warn', 'a volume attached here was taken over', {
        volume: id,
        name: held.name,
        by: record?.attachment?.node,
      })
      this.#lost(held.namespace, held.name)
    }
  }

  /** The record as the coordinator has it now; undefined when it gives no answer. */
  #read(namespace: string, name: string): Promise<Versioned<VolumeRecord> | undefined> {
    const key = keys.volume(namespace, name)
    return new Promise((resolve, reject) => {
      readRecord(this.#context.coordinator, key, (found) => {
        if (found === 'absent') {
          return reject(new HoldfastError('HF_NOT_FOUND', `there is no volume ${name}: see holdfast volume ls`))
        }
        if (found !== undefined) this.#context.view.learnVolume(key, found.record, found.modRevision)
        return resolve(found)
      })
    })
  }

  /** Writes ourselves into the record. `refused`: something changed meanwhile, look again. `unknown`: it may be ours. */
  async #take(versioned: Versioned<VolumeRecord>): Promise<'ok' | 'refused' | 'unknown'> {
    const { self, view, clock } = this.#context
    const { record } = versioned
    const { attachment: before } = record
    const compares: Compare[] = []
    if (before !== undefined) {
      if (view.alive.has(before.node)) throw attachedElsewhere(record, before)
      compares.push({ key: keys.aliveNode(before.node), modRevision: 0 })
    }
    const alive = view.alive.get(self.node)
    if (alive === undefined) return 'refused'
    compares.push({ key: alive.key, modRevision: alive.modRevision })
    // Unlike a counter in the record it goes on growing after a release.
    const attachment = { node: self.node, generation: versioned.modRevision, confirmed: false, since: timestamp(clock.wallMs()) }
    // The data comes to the host that uses it: at once where it has a copy in sync, by the controller where not.
    const moves = followsHost(record) && record.primary !== self.node && record.inSync.includes(self.node)
    const result = await this.#put(versioned, { ...record, attachment, ...(moves ? { successor: self.node } : {}) }, compares)
    return result.kind === 'ok' || result.kind === 'unknown' ? result.kind : 'refused'
  }

  /** Waits for the word of the primary. Undefined: the record has changed meanwhile. */
  async #confirmed(namespace: string, name: string, end: number): Promise<AttachmentRight | undefined> {
    const { view, clock, self } = this.#context
    const key = keys.volume(namespace, name)
    while (clock.now() < end) {
      const record = view.volumes.get(key)?.record
      const attachment = record?.attachment
      if (record === undefined || attachment?.node !== self.node) return undefined
      if (attachment.confirmed) {
        const { generation } = attachment
        this.#held.set(record.id, { namespace, name, generation })
        return { volume: record.id, generation }
      }
      this.#refuseOutOfReach(record)
      await this.#pause(POLL_MS)
    }
    return undefined
  }

  /** Without a complete copy on a living node there is nothing to wait for. */
  #refuseOutOfReach({ name, inSync }: VolumeRecord): void {
    const { alive } = this.#context.view
    if (inSync.some((node) => alive.has(node))) return
    const where = inSync.length === 1 ? `node ${inSync[0]}, which is` : `nodes ${inSync.join(' and ')}, which are`
    const message = `no complete copy of volume ${name} is within reach: it is on ${where} away`
    throw new HoldfastError('HF_UNAVAILABLE', message)
  }

  #put(
    { key, modRevision }: Versioned<VolumeRecord>,
    record: VolumeRecord,
    compares: readonly Compare[],
  ): Promise<TransactionResult> {
    return new Promise((resolve) => {
      this.#context.coordinator.transact(
        { compares: [{ key, modRevision }, ...compares], operations: [{ op: 'put', key, value: JSON.stringify(record) }] },
        (result) => {
          if (result.kind === 'ok') this.#context.view.learnVolume(key, record, result.revision)
          resolve(result)
        },
      )
    })
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.#context.scheduler.after(ms, resolve)
    })
  }
}

function isOurs({ attachment }: VolumeRecord, self: NodeId, generation: number): boolean {
  return attachment?.node === self && attachment.generation === generation
}

function attachedElsewhere({ name }: VolumeRecord, { node, since }: VolumeAttachment): HoldfastError {
  const message = `volume ${name} is attached to host ${node} since ${since}: stop its container there first, or wait until that host is gone`
  return new HoldfastError('HF_CONFLICT', message)
}

const NO_ANSWER = 'the coordinator or the primary of the volume gives no answer'

const usedSince = (namespace: string, name: string): HoldfastError =>
  new HoldfastError('HF_CONFLICT', `volume ${namespace}/${name} was given up, or another host has had it, since it was attached here`)

const unavailable = (namespace: string, name: string, reason: string): HoldfastError =>
  new HoldfastError('HF_UNAVAILABLE', `the right to ${namespace}/${name} can't be settled now: ${reason}`)
