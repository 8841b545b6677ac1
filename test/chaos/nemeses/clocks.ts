/**
 * A host whose wall clock jumps. The machine's clock is everybody's, so the node of that host runs with libfaketime for
 * the time; its monotonic clock stays right, as it does when a real clock is set.
 */
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sleep } from '../../support/waiting.ts'
import type { Fault, Nemesis } from './nemesis.ts'

const HOUR_SECONDS = 3600
const JUMPS = [HOUR_SECONDS, -HOUR_SECONDS, 40, 0]
/** libfaketime looks into its file once a second. */
const SEEN_MS = 2500

/** Undefined: not installed. */
export function fakeTimeLibrary(): string | undefined {
  const folders = existsSync('/usr/lib') ? readdirSync('/usr/lib') : []
  const files = folders.map((name) => join('/usr/lib', name, 'faketime', 'libfaketime.so.1'))
  return files.find((file) => existsSync(file))
}

export const clockJumps: Nemesis = {
  name: 'clock-jumps',
  needs: 'faketime',
  async plan({ cluster, dice, volumes, journal }): Promise<Fault> {
    const volume = dice.pick(volumes)
    const victim = await cluster.primaryOf(volume)
    const library = fakeTimeLibrary()
    if (library === undefined) throw new Error('libfaketime is not installed')
    const file = `${victim.socket}.clock`
    const jump = (seconds: number): void => writeFileSync(file, `${seconds < 0 ? '' : '+'}${seconds}s\n`)
    return {
      hit: [victim],
      detail: `the wall clock of ${victim.name} goes forward and back by up to an hour`,
      holdMs: 0,
      async start() {
        jump(0)
        await victim.program.stop('SIGKILL')
        await victim.start({
          ...{ LD_PRELOAD: library, FAKETIME_TIMESTAMP_FILE: file, FAKETIME_CACHE_DURATION: '1' },
          ...{ DONT_FAKE_MONOTONIC: '1', FAKETIME_DONT_FAKE_MONOTONIC: '1' },
        })
        const problem = await cluster.whole(60_000)
        if (problem !== undefined) throw new Error(`not whole after the restart of ${victim.name}: ${problem}`)
        // A clock that jumps under a primary is the harder case.
        await cluster.movePrimary(volume, victim)
        const before = await cluster.volume(volume)
        for (const seconds of JUMPS) {
          jump(seconds)
          await sleep(SEEN_MS)
        }
        const after = await cluster.volume(volume)
        const stayed = after.primary === before.primary && after.epoch === before.epoch
        journal.note(stayed ? 'nothing changed hands' : `${volume} went from epoch ${before.epoch} to ${after.epoch}`)
      },
      async stop() {
        await victim.program.stop('SIGKILL')
        await victim.start()
      },
    }
  },
}
