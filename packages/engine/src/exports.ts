/**
 * The exports of a node: every volume of the cluster by name, and the sessions of its clients, each pointed at
 * wherever the primary is now.
 */
import {
  type Completion,
  type ExportCatalog,
  type ExportInfo,
  type ExportSession,
  errno,
  HoldfastError,
  type SessionId,
  sessionId,
  shardOf,
  type VolumeId,
  type VolumeRecord,
} from '@holdfast/base'
import { FrontendSession, type VolumeTarget } from '@holdfast/frontend'
import type { ReadReplyMessage, RepliesMessage } from '@holdfast/wire'
import type { NodeContext } from './context.ts'
import type { LocalPrimary } from './local-primary.ts'
import type { Link } from './peer-table.ts'
import { RelayTarget } from './relay.ts'

const SESSION_ID_BOUND = 2 ** 48
export const DEFAULT_NAMESPACE = 'default'

/** Name of a volume's export: the namespace is left out where it is the default. */
export function exportName({ namespace, name }: { namespace: string; name: string }): string {
  return namespace === DEFAULT_NAMESPACE ? name : `${namespace}/${name}`
}

interface VolumeSessions {
  readonly sessions: Set<FrontendSession>
  target: VolumeTarget | undefined
  relay: RelayTarget | undefined
}

export class Exports implements ExportCatalog {
  readonly #context: NodeContext
  readonly #localPrimary: (volume: VolumeId) => LocalPrimary | undefined
  readonly #volumes = new Map<VolumeId, VolumeSessions>()
  /** Whose relay answers to a session number. */
  readonly #volumeOf = new Map<SessionId, VolumeId>()

  constructor(
    context: NodeContext,
    localPrimary: (volume: VolumeId) => LocalPrimary | undefined,
  ) {
    this.#context = context
    this.#localPrimary = localPrimary
  }

  list(): readonly ExportInfo[] {
    return [...this.#context.view.volumes.values()].map(({ record }) => infoOf(record))
  }

  find(name: string): ExportInfo | undefined {
    const record = this.#record(name)
    return record === undefined ? undefined : infoOf(record)
  }

  away(name: string): number | undefined {
    const { index, count } = this.#context.shard
    const record = this.#record(name)
    const shard = record === undefined ? index : shardOf(record.id, count)
    return shard === index ? undefined : shard
  }

  open(name: string, completion: Completion): ExportSession {
    const record = this.#record(name)
    if (record === undefined) {
      throw new HoldfastError('HF_NOT_FOUND', `there is no volume ${name}: see holdfast volume ls`)
    }
    const session = this.#newSessionId(record.id)
    const opened = new FrontendSession(
      infoOf(record),
      session,
      this.#context.self.node,
      completion,
      (closed) => this.#closed(record.id, closed),
      (task) => this.#context.scheduler.soon(task),
    )
    let volume = this.#volumes.get(record.id)
    if (volume === undefined) {
      volume = { sessions: new Set(), target: undefined, relay: undefined }
      this.#volumes.set(record.id, volume)
    }
    volume.sessions.add(opened)
    this.retarget(record.id)
    opened.setTarget(volume.target)
    return opened
  }

  /** Looks where the primary is and points the sessions of the volume there. */
  retarget(id: VolumeId): void {
    const volume = this.#volumes.get(id)
    if (volume === undefined) return
    if (this.#gone(id)) {
      for (const session of [...volume.sessions]) session.fail(errno.EIO)
      return
    }
    volume.target = this.#findTarget(id, volume)
    for (const session of volume.sessions) session.setTarget(volume.target)
  }

  retargetAll(): void {
    for (const id of this.#volumes.keys()) this.retarget(id)
  }

  /** Nobody is connected. */
  get idle(): boolean {
    return this.#volumes.size === 0
  }

  /** Now and then: asks again for what was answered with "not here". */
  tick(): void {
    for (const [id, volume] of this.#volumes) {
      this.retarget(id)
      for (const session of volume.sessions) if (session.waiting) session.resubmit()
    }
  }

  linkClosed(link: Link): void {
    for (const [id, volume] of this.#volumes) {
      if (volume.relay?.link !== link) continue
      this.#dropRelay(volume)
      this.retarget(id)
    }
  }

  replied(link: Link, message: RepliesMessage | ReadReplyMessage): void {
    const id = this.#volumeOf.get(message.session)
    const relay = id === undefined ? undefined : this.#volumes.get(id)?.relay
    if (relay === undefined || relay.link !== link) return
    if (message.type === 'replies') relay.replies(message)
    else relay.readReply(message)
  }

  close(): void {
    for (const volume of this.#volumes.values()) {
      for (const session of [...volume.sessions]) session.close()
    }
  }

  #record(name: string): VolumeRecord | undefined {
    const { volumes } = this.#context.view
    if (name === '' && volumes.size === 1) return [...volumes.values()][0]?.record
    const [namespace, bare] = name.includes('/') ? name.split('/', 2) : [DEFAULT_NAMESPACE, name]
    for (const { record } of volumes.values()) {
      if (record.namespace === namespace && record.name === bare) return record
    }
    return undefined
  }

  /** True only on the tombstone: a view that is merely behind or empty says nothing. */
  #gone(id: VolumeId): boolean {
    return !this.#context.view.byId.has(id) && this.#context.view.tombstones.has(id)
  }

  #newSessionId(id: VolumeId): SessionId {
    const session = sessionId(1 + this.#context.random.below(SESSION_ID_BOUND - 1))
    this.#volumeOf.set(session, id)
    return session
  }

  #closed(id: VolumeId, session: FrontendSession): void {
    const volume = this.#volumes.get(id)
    this.#volumeOf.delete(session.session)
    volume?.sessions.delete(session)
    if (volume?.sessions.size !== 0) return
    this.#dropRelay(volume)
    this.#volumes.delete(id)
  }

  #dropRelay(volume: VolumeSessions): void {
    const { relay } = volume
    volume.relay = undefined
    if (relay === undefined) return
    if (volume.target === relay) volume.target = undefined
    this.#volumeOf.delete(relay.questionSession)
    relay.close()
  }

  #findTarget(id: VolumeId, volume: VolumeSessions): VolumeTarget | undefined {
    const local = this.#localPrimary(id)
    if (local !== undefined) {
      this.#dropRelay(volume)
      return local
    }
    const holder = this.#context.view.primaries.get(id)?.record
    if (holder === undefined || holder.node === this.#context.self.node) {
      // The last primary may serve on without a key (I8): a relay that still works is kept.
      return volume.relay
    }
    const link = this.#context.peers.ensure(holder.node, 'data', id)
    const { relay } = volume
    if (relay !== undefined && relay.link === link && relay.epoch === holder.epoch) return relay
    this.#dropRelay(volume)
    if (link === undefined) return undefined
    const scope = { volume: id, epoch: holder.epoch }
    volume.relay = new RelayTarget(this.#context, scope, link, this.#newSessionId(id))
    return volume.relay
  }
}

function infoOf(record: VolumeRecord): ExportInfo {
  return {
    id: record.id,
    name: exportName(record),
    description: `${record.replicaCount} copies`,
    sizeBytes: record.sizeBytes,
    readOnly: false,
  }
}
