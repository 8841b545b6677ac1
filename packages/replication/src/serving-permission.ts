/**
 * Proof that no other primary exists (I8), kept by the primary.
 *
 * A read may be answered while one of these holds:
 * - the lease that carries the primary's key is alive, counted from when its renewal was sent;
 * - every other in-sync member has promised not to stand, counted from when we asked;
 * - nobody else is in sync, so nobody else could be elected.
 */
import { bootInstant, type BootInstant, type NodeId } from '@holdfast/base'

const NEVER = bootInstant(Number.NEGATIVE_INFINITY)
const ALWAYS = bootInstant(Number.POSITIVE_INFINITY)

export class ServingPermission {
  #leaseUntil: BootInstant = NEVER
  readonly #grants = new Map<NodeId, BootInstant>()

  /** `until` counts only while the primary's key hangs on that lease. */
  leaseValid(until: BootInstant): void {
    this.#leaseUntil = until
  }

  granted(member: NodeId, until: BootInstant): void {
    const held = this.#grants.get(member)
    if (held === undefined || held < until) this.#grants.set(member, until)
  }

  /** The instant up to which reads may be answered, given the other in-sync members. */
  until(others: Iterable<NodeId>): BootInstant {
    let grantsUntil = ALWAYS
    for (const member of others) {
      const granted = this.#grants.get(member) ?? NEVER
      if (granted < grantsUntil) grantsUntil = granted
    }
    return grantsUntil > this.#leaseUntil ? grantsUntil : this.#leaseUntil
  }
}
