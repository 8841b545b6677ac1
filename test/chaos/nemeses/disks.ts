/** Disks that are full. */
import { constants } from 'node:os'
import type { Cluster } from '../cluster.ts'
import type { StorageHost } from '../hosts.ts'
import { message, sh } from '../shell.ts'
import { waitUntil } from '../../support/waiting.ts'
import type { Fault, Nemesis, NemesisContext } from './nemesis.ts'

/** Room for some segments, so that it is a log that fills the disk in the middle of its work. */
const LEFT_MEBIBYTES = 12
/** Written where the clients of `blocks` do not write: with random overwrites alone a log recycles what it has. */
const FLOOD = { fromMebibyte: 64, mebibytes: 96 }
const HOLD_MS = 10_000
const TAKEN_AGAIN_MS = 30_000

/** The volumes' policy permits either: without the copy on the full disk, or ENOSPC to the client. */
export const fullDiskOfSecondary: Nemesis = {
  name: 'disk-full-secondary',
  needs: 'disks',
  async plan(context) {
    const { cluster, dice, volumes } = context
    const victim = dice.pick(cluster.hosts)
    for (const volume of volumes) await moveAway(context, volume, victim)
    return full(context, victim, `the disk of ${victim.name}, primary of nothing, is full`)
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
    const fault = full(context, victim, `the disk of ${victim.name}, primary of blocks, is full`)
    return { ...fault, allowed: (errno) => errno === constants.errno.ENOSPC }
  },
}

async function moveAway({ cluster, dice }: NemesisContext, volume: string, victim: StorageHost): Promise<void> {
  const { primary, inSync } = await cluster.volume(volume)
  if (primary !== victim.name) return
  await cluster.movePrimary(volume, cluster.host(dice.pick(inSync.filter((name) => name !== victim.name))))
}

function full({ cluster, journal }: NemesisContext, victim: StorageHost, detail: string): Fault {
  return {
    hit: [],
    detail,
    holdMs: HOLD_MS,
    async start() {
      await victim.fillDisk(LEFT_MEBIBYTES)
      // Through another host: it is the volume that meets the full disk, not the client.
      const written = await flood(cluster, victim, 'write -q -P 7').catch((error: unknown) => message(error))
      const { state, inSync } = await cluster.volume('blocks')
      const how = written.includes('No space left') ? 'ENOSPC' : written === '' ? 'written' : written.slice(-200)
      journal.note(`${FLOOD.mebibytes} MiB more: ${how}; blocks is ${state}, in sync: ${inSync.join(', ')}`)
    },
    async stop() {
      victim.freeDisk()
      await waitUntil('requests to be taken again', TAKEN_AGAIN_MS, async () => {
        return (await flood(cluster, victim, 'discard -q')) === ''
      })
    },
  }
}

async function flood(cluster: Cluster, victim: StorageHost, command: string): Promise<string> {
  const { fromMebibyte, mebibytes } = FLOOD
  const commands = Array.from({ length: mebibytes }, (_, i) => ['-c', `${command} ${fromMebibyte + i}M 1M`]).flat()
  const uri = `nbd+unix:///blocks?socket=${cluster.others(victim)[0]?.socket}`
  return await sh('qemu-io', ['-f', 'raw', ...commands, uri], 60_000)
}
