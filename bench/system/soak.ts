/** Looks for pauses: 4 KiB writes one at a time for minutes, and when the slow ones were. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { runFio, timed } from '../bed/fio.ts'
import { withHost } from '../bed/host.ts'
import { histogram, PAUSE_MS, readPauses } from './pauses.ts'
import { PauseWitness, type Testimony } from './pause-witness.ts'
import { fill, type Say } from './runner.ts'
import { chooseTargets } from './targets/index.ts'

/** One target after the other: two at once would pause each other. */
export async function soak(
  minutes: number,
  names: readonly string[],
  sizeMiB: number,
  out: string,
  say: Say,
): Promise<void> {
  mkdirSync(out, { recursive: true })
  for (const target of chooseTargets(names.length === 0 ? ['holdfast-1'] : names)) {
    await withHost(async (host) => {
      say(`starting and filling ${target.name}`)
      const started = await target.start(host, sizeMiB * 2 ** 20)
      await fill(host, started, sizeMiB)
      const log = host.path('latency')
      // fio averages over a millisecond and keeps the longest: nothing is lost, and the log stays small.
      const logging = [`--write_lat_log=${log}`, '--log_avg_msec=1', '--log_max_value=1', '--log_unix_epoch=1']
      const load = ['--rw=randwrite', '--bs=4k', '--iodepth=1', `--size=${sizeMiB}M`, '--disable_slat=1']
      say(`writing for ${minutes} minutes`)
      const witness = started.pids.length === 0 ? undefined : new PauseWitness(started.pids, host.folder)
      const startSeconds = Date.now() / 1000
      const run = runFio(host, [...started.fio, ...load, ...logging, ...timed(minutes * 60)])
      const { figures } = await run.finally(() => witness?.stop())
      const pauses = readPauses(readFileSync(`${log}_clat.1.log`, 'utf8')).map(({ atSeconds, ms }) => ({
        atSeconds: atSeconds - startSeconds,
        ms,
        testimony: witness?.about(atSeconds * 1000, ms),
      }))
      writeFileSync(join(out, `pauses-${target.name}.json`), JSON.stringify({ minutes, figures, pauses }, null, 1))
      const longest = (figures.maxUs / 1000).toFixed(1)
      const p999 = Math.round(figures.p999Us)
      process.stdout.write(
        [
          `${target.name}: ${figures.requests} writes in ${minutes} min, p99.9 ${p999} µs, longest ${longest} ms`,
          `pauses of ${PAUSE_MS} ms and more: ${pauses.length}`,
          ...histogram(pauses),
          ...pauses.map(({ atSeconds, ms, testimony }) => {
            return `  at ${atSeconds.toFixed(3)} s: ${ms.toFixed(1)} ms${testimony === undefined ? '' : `; ${told(testimony)}`}`
          }),
          '',
        ].join('\n'),
      )
    })
  }
  say(`raw results: ${out}`)
}

function told({ blocked, blockedAt, diskStood, running, ran, waited, stolen, unseen }: Testimony): string {
  const percent = (part: number): string => `${Math.round(part * 100)} %`
  const where = blockedAt === '' ? '' : ` (${blockedAt})`
  return (
    `held up in the kernel ${percent(blocked)}${where}, had work ${percent(running)} (ran ${percent(ran)}, waited for a processor ${percent(waited)}), ` +
    `the host took ${percent(stolen)}, the disk stood ${percent(diskStood)}, unseen ${percent(unseen)}`
  )
}
