/** A hundred volumes come and go; nothing of them stays. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { waitUntil } from './box.ts'
import { type DockerBed, reasonToSkip } from './docker-bed.ts'
import type { DockerHost } from './docker-host.ts'
import { bedPerTest } from './one-bed.ts'

const reason = reasonToSkip()
const startBed = bedPerTest()
/** A leak shows in each of them. */
const CYCLES = Number(process.env['HOLDFAST_DOCKER_CYCLES'] ?? 32)
const AT_A_TIME = 8

async function cycle(host: DockerHost, name: string): Promise<void> {
  const options = ['-o', 'size=64MiB', '-o', 'replicas=2']
  await host.docker(['volume', 'create', '--driver', 'holdfast', ...options, name])
  const run = ['run', '--rm', '--network', 'none', '-v', `${name}:/data`, 'busybox']
  const script = `echo ${name} > /data/file && sync /data/file && cat /data/file`
  expect(await host.docker([...run, 'sh', '-c', script])).toBe(name)
  await host.docker(['volume', 'rm', name])
}

/** What there is, by kind. */
async function inventory(bed: DockerBed): Promise<Record<string, readonly string[]>> {
  const found: Record<string, readonly string[]> = {
    loops: await bed.loopDevices(),
    keys: await bed.coordinatorKeys(),
  }
  for (const host of bed.hosts) {
    found[`mounts of ${host.name}`] = host.box.mounts()
    found[`helpers of ${host.name}`] = host.helpers().map(({ line }) => line)
    const files = readdirSync(host.dataFolder, { recursive: true }) as string[]
    found[`files of ${host.name}`] = files.toSorted()
    found[`docker volumes of ${host.name}`] = (await host.docker(['volume', 'ls', '-q'])).split('\n')
    found[`sockets of ${host.name}`] = readdirSync(join('/proc', String(host.box.pid), 'root/run/holdfast'))
  }
  return found
}

/** What is in one and not in the other, by kind. */
function difference(
  before: Readonly<Record<string, readonly string[]>>,
  after: Readonly<Record<string, readonly string[]>>,
): string[] {
  return Object.entries(after).flatMap(([kind, now]) => {
    const then = new Set(before[kind] ?? [])
    return now.filter((one) => !then.has(one)).map((one) => `${kind}: ${one}`)
  })
}

describe.skipIf(reason !== undefined)(`${CYCLES} volumes, ${AT_A_TIME} at a time`, () => {
  it('are made, mounted, written, unmounted and removed without a trace', { timeout: 600_000 }, async () => {
    const bed = await startBed({ hosts: ['a', 'b'] })
    // What the first use makes and keeps is not a leak.
    for (const host of bed.hosts) await cycle(host, `first-${host.name}`)
    const before = await inventory(bed)
    const start = performance.now()
    let next = 0
    const times: number[] = []
    const work = async (host: DockerHost): Promise<void> => {
      while (next < CYCLES) {
        const begin = performance.now()
        await cycle(host, `cycle-${next++}`)
        times.push(performance.now() - begin)
      }
    }
    await Promise.all(Array.from({ length: AT_A_TIME }, (_, i) => work(bed.hosts[i % 2] as DockerHost)))
    const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`
    const took = seconds(performance.now() - start)
    console.log(`cycles: ${times.length} in ${took}, the slowest ${seconds(Math.max(...times))}`)
    await waitUntil('nothing to be left', 30_000, async () => {
      const left = difference(before, await inventory(bed))
      if (left.length > 0) throw new Error(left.slice(0, 40).join('\n'))
      return true
    }, 500)
    expect(times.length).toBe(CYCLES)
  })
})
