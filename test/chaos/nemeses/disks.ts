/** Disks that are full. */
import { constants } from 'node:os'
import type { StorageHost } from '../hosts.ts'
import type { Fault, Nemesis, NemesisContext } from './nemesis.ts'

/** Room for some segments, so that it is a log that fills the disk in the middle of its work. */
const LEFT_MEBIBYTES = 12
const HOLD_MS = 20_000

/** The volumes' policy permits either: without the copy on the full disk, or ENOSPC to the client. */
export const fullDiskOfSecondary: Nemesis = {
  name: 'disk-full-secondary',
  needs: 'disks',
  async plan(context) {
    const { cluster, dice, volumes } = context
    const victim = dice.pick(cluster.hosts)
    for (const volume of volumes) await moveAway(context, volume, victim)
    return full(victim, `the disk of ${victim.name}, primary of nothing, is full`)
  },
}

/** Its clients may get ENOSPC; nothing acknowledged may be lost, and it must work again with space. */
export const fullDiskOfPrimary: Nemesis = {
  name: 'disk-full-primary',
  needs: 'disks',
  async plan(context) {
    const { cluster, volumes } = context
    const victim = await cluster.primaryOf('blocks')
    for (const volume of volumes) if (volume !== 'blocks') await moveAway(context, volume, victim)
    const fault = full(victim, `the disk of ${victim.name}, primary of blocks, is full`)
    return { ...fault, allowed: (errno) => errno === constants.errno.ENOSPC }
  },
}

async function moveAway({ cluster, dice }: NemesisContext, volume: string, victim: StorageHost): Promise<void> {
  const { primary, inSync } = await cluster.volume(volume)
  if (primary !== victim.name) return
  await cluster.movePrimary(volume, cluster.host(dice.pick(inSync.filter((name) => name !== victim.name))))
}

function full(victim: StorageHost, detail: string): Fault {
  return {
    hit: [],
    detail,
    holdMs: HOLD_MS,
    start: () => victim.fillDisk(LEFT_MEBIBYTES),
    async stop() {
      victim.freeDisk()
    },
  }
}
