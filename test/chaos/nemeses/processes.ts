/** Nodes that die, stop for a while, or are restarted one after the other. */
import { LEASE_SECONDS } from '../cluster.ts'
import type { StorageHost } from '../hosts.ts'
import type { Fault, Nemesis, NemesisContext } from './nemesis.ts'

/** On the wire; it is Linux's number. */
const ESHUTDOWN = 108
const LONGER_THAN_LEASE_MS = (LEASE_SECONDS * 2 + 2) * 1000

export const killPrimary: Nemesis = {
  name: 'kill-primary',
  needs: 'nothing',
  async plan(context) {
    const volume = context.dice.pick(context.volumes)
    const victim = await context.cluster.primaryOf(volume)
    return killed(context, victim, `kill -9 of ${victim.name}, primary of ${volume}`, volume)
  },
}

export const killSecondary: Nemesis = {
  name: 'kill-secondary',
  needs: 'nothing',
  async plan(context) {
    const { volume, victim } = await secondary(context)
    return killed(context, victim, `kill -9 of ${victim.name}, a secondary of ${volume}`, undefined)
  },
}

/** A random volume, and one of its members that is not its primary. */
export async function secondary({ cluster, dice, volumes }: NemesisContext): Promise<{
  readonly volume: string
  readonly victim: StorageHost
}> {
  const volume = dice.pick(volumes)
  const { primary, inSync } = await cluster.volume(volume)
  return { volume, victim: cluster.host(dice.pick(inSync.filter((name) => name !== primary))) }
}

function killed({ cluster }: NemesisContext, victim: StorageHost, detail: string, lost: string | undefined): Fault {
  return {
    hit: [victim],
    detail,
    holdMs: LONGER_THAN_LEASE_MS,
    async start() {
      await victim.program.stop('SIGKILL')
      if (lost !== undefined) await cluster.takenOver(lost, victim)
    },
    async stop() {
      if (!victim.program.running) await victim.start()
    },
  }
}

export const pausePrimary: Nemesis = {
  name: 'pause-primary',
  needs: 'nothing',
  async plan({ cluster, dice, volumes }) {
    const volume = dice.pick(volumes)
    const victim = await cluster.primaryOf(volume)
    return {
      hit: [victim],
      detail: `SIGSTOP of ${victim.name}, primary of ${volume}`,
      holdMs: 2000,
      async start() {
        victim.program.signal('SIGSTOP')
        await cluster.takenOver(volume, victim)
      },
      async stop() {
        victim.program.signal('SIGCONT')
      },
    }
  },
}

function paused(victim: StorageHost, how: string, holdMs: number): Fault {
  return {
    hit: [victim],
    detail: `SIGSTOP of ${victim.name}, ${how}`,
    holdMs,
    async start() {
      victim.program.signal('SIGSTOP')
    },
    async stop() {
      victim.program.signal('SIGCONT')
    },
  }
}

export const pauseSecondary: Nemesis = {
  name: 'pause-secondary',
  needs: 'nothing',
  async plan(context) {
    const { volume, victim } = await secondary(context)
    return paused(victim, `a secondary of ${volume}`, LONGER_THAN_LEASE_MS)
  },
}

/** Shorter than the lease: nothing may change hands that need not. */
export const stutter: Nemesis = {
  name: 'stutter',
  needs: 'nothing',
  async plan({ cluster, dice }) {
    const victim = dice.pick(cluster.hosts)
    return paused(victim, 'for half a second', 500)
  },
}

export const rollingRestart: Nemesis = {
  name: 'rolling-restart',
  needs: 'nothing',
  async plan({ cluster, journal }) {
    return {
      hit: cluster.hosts,
      detail: 'SIGTERM of every node, one after the other',
      // A node that stops says so (NBD's ESHUTDOWN); an attachment then goes elsewhere with the same request.
      allowed: (errno) => errno === ESHUTDOWN,
      holdMs: 0,
      async start() {
        for (const host of cluster.hosts) {
          if (await host.program.stop('SIGTERM')) journal.violation(`${host.name} did not stop within 40 s of SIGTERM`)
          await host.start()
          const problem = await cluster.whole(60_000)
          if (problem !== undefined) throw new Error(`not whole after the restart of ${host.name}: ${problem}`)
          journal.note(`${host.name} restarted`)
        }
      },
      async stop() {
        for (const host of cluster.hosts) if (!host.program.running) await host.start()
      },
    }
  },
}
