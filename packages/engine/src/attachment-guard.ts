/**
 * Lets one host alone write to a volume that is attached there, on the side of the primary.
 *
 * Invariants:
 * - Once the record says `confirmed`, no write of any other host can reach the volume: those accepted before are
 *   committed, later ones are refused.
 * - Every primary that can still commit knows an attachment that is confirmed: the one that confirmed it, or one elected
 *   later, by a transaction on the same record. Older ones are fenced by the epoch (I4).
 */
import { keys, type Lsn, type VolumeRecord } from '@holdfast/base'
import type { PieceSink } from '@holdfast/frontend'
import type { Primary } from '@holdfast/replication'
import type { NodeContext } from './context.ts'

const RETRY_MS = 200

export interface GuardedPrimary {
  /** Puts what was accepted into the log. The end of the log then; undefined = something is not in it yet. */
  settle(): Lsn | undefined
  serving(): boolean
}

export class AttachmentGuard {
  readonly #context: NodeContext
  readonly #machine: Primary
  readonly #owner: GuardedPrimary
  /** Everything accepted before the generation was seen lies below it. */
  #settled: { readonly generation: number; readonly lsn: Lsn } | undefined
  #askedAt: number = Number.NEGATIVE_INFINITY

  constructor(context: NodeContext, machine: Primary, owner: GuardedPrimary) {
    this.#context = context
    this.#machine = machine
    this.#owner = owner
  }

  /** Whether a host waits for the primary's word. */
  get confirming(): boolean {
    return this.#machine.record.attachment?.confirmed === false
  }

  refuses(sink: PieceSink): boolean {
    const { attachment } = this.#machine.record
    return attachment !== undefined && attachment.node !== sink.origin
  }

  /** To be called when the record has changed, something was committed, and now and then. */
  advance(): void {
    const { attachment } = this.#machine.record
    if (attachment === undefined || attachment.confirmed || !this.#owner.serving()) return
    const { generation } = attachment
    if (this.#settled?.generation !== generation) {
      const end = this.#owner.settle()
      if (end === undefined) return
      this.#settled = { generation, lsn: end }
    }
    if (this.#machine.committedLsn >= this.#settled.lsn) this.#confirm(this.#machine.record, generation)
  }

  #confirm({ namespace, name }: VolumeRecord, generation: number): void {
    const { coordinator, clock, view } = this.#context
    const versioned = view.volumes.get(keys.volume(namespace, name))
    const attachment = versioned?.record.attachment
    if (versioned === undefined || attachment?.generation !== generation || clock.now() < this.#askedAt + RETRY_MS) return
    this.#askedAt = clock.now()
    const { key, modRevision, record } = versioned
    const value = JSON.stringify({ ...record, attachment: { ...attachment, confirmed: true } })
    coordinator.transact({ compares: [{ key, modRevision }], operations: [{ op: 'put', key, value }] }, (result) => {
      if (result.kind === 'conflict') this.#askedAt = Number.NEGATIVE_INFINITY
    })
  }
}
