/**
 * Serving grants between pairs of shards (I8): asked for by a primary's shard, given by a member's. Who promises not to stand
 * and who would stand are one thread.
 *
 * A grant counts at the primary from when the question left, and at the member from when it came, so
 * the primary's view of it always ends first; the clocks' rates may differ by `CLOCK_RATE_MARGIN`. The primary counts what its
 * machine sleeps, too; a member that sleeps only keeps its word for longer.
 */
import { after, type BootInstant, type Instant, type NodeId, type VolumeId } from '@holdfast/base'
import type { GrantMessage, GrantScopeMessage, PeerMessage, VolumeEpoch } from '@holdfast/wire'
import type { Link } from './peer-table.ts'

/** Share of a promised time, a grant's or a lease's, that whoever relies on it does not count on. */
export const CLOCK_RATE_MARGIN = 0.1
/** Questions without an answer that are remembered per link. */
const ASKED_MAX = 16

interface Asked {
  readonly seq: number
  readonly sentAt: BootInstant
  readonly scope: readonly VolumeEpoch[]
}

interface Seeking {
  scopeKey: string
  scope: readonly VolumeEpoch[]
  version: number
  readonly asked: Asked[]
}

/** The primary's side. */
export class GrantSeeker {
  readonly #links = new Map<Link, Seeking>()
  readonly #granted: (node: NodeId, volume: VolumeEpoch, until: BootInstant) => void
  #seq = 0

  constructor(granted: (node: NodeId, volume: VolumeEpoch, until: BootInstant) => void) {
    this.#granted = granted
  }

  /** Asks the shard at the other end for grants on `scope`. */
  ask(link: Link, scope: readonly VolumeEpoch[], now: BootInstant): void {
    let seeking = this.#links.get(link)
    if (seeking === undefined) {
      seeking = { scopeKey: '', scope: [], version: 0, asked: [] }
      this.#links.set(link, seeking)
    }
    const scopeKey = scope.map(({ volume, epoch }) => `${volume}:${epoch}`).join()
    if (scopeKey !== seeking.scopeKey) {
      seeking.scopeKey = scopeKey
      seeking.scope = scope
      seeking.version++
      link.send({ type: 'grant-scope', version: seeking.version, volumes: scope })
    }
    const seq = ++this.#seq
    seeking.asked.push({ seq, sentAt: now, scope: seeking.scope })
    if (seeking.asked.length > ASKED_MAX) seeking.asked.shift()
    link.send({ type: 'grant-request', seq, scopeVersion: seeking.version })
  }

  answered(link: Link, grant: GrantMessage): void {
    const seeking = this.#links.get(link)
    if (seeking === undefined) return
    const index = seeking.asked.findIndex((asked) => asked.seq === grant.seq)
    const asked = seeking.asked[index]
    if (asked === undefined) return
    seeking.asked.splice(0, index + 1)
    const until = after(asked.sentAt, grant.durationMs * (1 - CLOCK_RATE_MARGIN))
    const refused = new Set<VolumeId>(grant.refused)
    for (const volume of asked.scope) {
      if (!refused.has(volume.volume)) this.#granted(link.node, volume, until)
    }
  }

  closed(link: Link): void {
    this.#links.delete(link)
  }
}

/** The member's side. */
export class GrantGiver {
  readonly #scopes = new Map<Link, GrantScopeMessage>()
  readonly #promise: (volume: VolumeEpoch, until: Instant) => boolean

  /** `promise` binds a replica until an instant, or says false. */
  constructor(promise: (volume: VolumeEpoch, until: Instant) => boolean) {
    this.#promise = promise
  }

  scope(link: Link, message: GrantScopeMessage): void {
    this.#scopes.set(link, message)
  }

  request(link: Link, seq: number, scopeVersion: number, durationMs: number, now: Instant): void {
    const scope = this.#scopes.get(link)
    if (scope === undefined || scope.version !== scopeVersion) return
    const until = after(now, durationMs)
    const refused = scope.volumes
      .filter((volume) => !this.#promise(volume, until))
      .map(({ volume }) => volume)
    const answer: PeerMessage = { type: 'grant', seq, scopeVersion, durationMs, refused }
    link.send(answer)
  }

  closed(link: Link): void {
    this.#scopes.delete(link)
  }
}
