/** Hosts that do not reach each other, etcd, or anybody. */
import { LEASE_SECONDS } from '../cluster.ts'
import type { StorageHost } from '../hosts.ts'
import { type Fault, type Nemesis, type NemesisContext, networkOf } from './nemesis.ts'
import { secondary } from './processes.ts'

const HOLD_MS = (LEASE_SECONDS * 2 + 4) * 1000

/** The primary of a volume with traffic in two of three cases. */
async function anyVictim(context: NemesisContext): Promise<{ victim: StorageHost; what: string }> {
  const volume = context.dice.pick(context.volumes)
  const primary = await context.cluster.primaryOf(volume)
  if (context.dice.below(3) > 0) return { victim: primary, what: `${primary.name}, primary of ${volume},` }
  const other = await secondary(context)
  return { victim: other.victim, what: `${other.victim.name}, a secondary of ${other.volume},` }
}

export const partitionHost: Nemesis = {
  name: 'partition-host',
  needs: 'namespaces',
  async plan(context) {
    const { victim, what } = await anyVictim(context)
    const network = networkOf(context)
    return {
      hit: [victim],
      detail: `${what} reaches nobody`,
      holdMs: HOLD_MS,
      start: () => network.unplug(victim.place),
      stop: () => network.plug(victim.place),
    }
  },
}

export const partitionPair: Nemesis = {
  name: 'partition-pair',
  needs: 'namespaces',
  async plan(context) {
    const { victim, what } = await anyVictim(context)
    const other = context.dice.pick(context.cluster.others(victim))
    const network = networkOf(context)
    return {
      hit: [victim, other],
      detail: `${what} and ${other.name} do not reach each other; the third and etcd see both`,
      holdMs: HOLD_MS,
      start: () => network.dropBothWays(victim.place, [other.place]),
      stop: () => network.allowAll(victim.place),
    }
  },
}

export const partitionOneWay: Nemesis = {
  name: 'partition-one-way',
  needs: 'namespaces',
  async plan(context) {
    const { victim, what } = await anyVictim(context)
    const other = context.dice.pick(context.cluster.others(victim))
    const network = networkOf(context)
    return {
      hit: [victim, other],
      detail: `what ${what} sends to ${other.name} is lost, the other way works`,
      holdMs: HOLD_MS,
      start: () => network.dropOutgoing(victim.place, [other.place]),
      stop: () => network.allowAll(victim.place),
    }
  },
}

export const partitionFromEtcd: Nemesis = {
  name: 'partition-etcd',
  needs: 'namespaces',
  async plan(context) {
    const { victim, what } = await anyVictim(context)
    const network = networkOf(context)
    const members = context.cluster.etcd.map(({ place }) => place)
    return {
      hit: [victim],
      detail: `${what} does not reach etcd, the other hosts do, and all hosts reach each other`,
      holdMs: HOLD_MS,
      start: () => network.dropBothWays(victim.place, members),
      stop: () => network.allowAll(victim.place),
    }
  },
}

/** Nobody reaches anybody: three minorities of one. */
export const partitionAll: Nemesis = {
  name: 'partition-all',
  needs: 'namespaces',
  async plan(context): Promise<Fault> {
    const network = networkOf(context)
    const { hosts } = context.cluster
    return {
      hit: hosts,
      detail: 'no host reaches anybody',
      holdMs: HOLD_MS,
      async start() {
        for (const { place } of hosts) await network.unplug(place)
      },
      async stop() {
        for (const { place } of hosts) await network.plug(place)
      },
    }
  },
}

/** A link that comes and goes faster than anything settles. */
export const flapping: Nemesis = {
  name: 'flapping-link',
  needs: 'namespaces',
  async plan(context): Promise<Fault> {
    const { victim, what } = await anyVictim(context)
    const network = networkOf(context)
    const gaps = Array.from({ length: 8 }, () => 300 + context.dice.below(1500))
    return {
      hit: [victim],
      detail: `the link of ${what} comes and goes`,
      holdMs: 0,
      async start() {
        for (const [turn, ms] of gaps.entries()) {
          await (turn % 2 === 0 ? network.unplug(victim.place) : network.plug(victim.place))
          await new Promise((resolve) => setTimeout(resolve, ms))
        }
      },
      stop: () => network.plug(victim.place),
    }
  },
}

export const slowLink: Nemesis = {
  name: 'slow-link',
  needs: 'namespaces',
  async plan(context): Promise<Fault> {
    const { victim, what } = await anyVictim(context)
    const network = networkOf(context)
    return {
      hit: [victim],
      detail: `${what} sends and gets 4 Mbit/s at most, through queues of 300 ms`,
      holdMs: HOLD_MS,
      start: () => network.slow(victim.place, '4mbit', 300),
      stop: () => network.fast(victim.place),
    }
  },
}
