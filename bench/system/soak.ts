/** Looks for pauses: 4 KiB writes one at a time for minutes, and when the slow ones were. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { runFio, timed } from '../bed/fio.ts'
import { withHost } from '../bed/host.ts'
import { histogram, PAUSE_MS, readPauses } from './pauses.ts'
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
      const logging = [`--write_lat_log=${log}`, '--log_avg_msec=1', '--log_max_value=1']
      const load = ['--rw=randwrite', '--bs=4k', '--iodepth=1', `--size=${sizeMiB}M`, '--disable_slat=1']
      say(`writing for ${minutes} minutes`)
      const { figures } = await runFio(host, [...started.fio, ...load, ...logging, ...timed(minutes * 60)])
      const pauses = readPauses(readFileSync(`${log}_clat.1.log`, 'utf8'))
      writeFileSync(join(out, `pauses-${target.name}.json`), JSON.stringify({ minutes, figures, pauses }, null, 1))
      const longest = (figures.maxUs / 1000).toFixed(1)
      const p999 = Math.round(figures.p999Us)
      process.stdout.write(
        [
          `${target.name}: ${figures.requests} writes in ${minutes} min, p99.9 ${p999} µs, longest ${longest} ms`,
          `pauses of ${PAUSE_MS} ms and more: ${pauses.length}`,
          ...histogram(pauses),
          ...pauses.map(({ atSeconds, ms }) => `  at ${atSeconds.toFixed(3)} s: ${ms.toFixed(1)} ms`),
          '',
        ].join('\n'),
      )
    })
  }
  say(`raw results: ${out}`)
}
