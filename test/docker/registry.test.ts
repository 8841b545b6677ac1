/** The promise: the same line on another host, and the registry has what was pushed to it. */
import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { command, waitUntil } from './box.ts'
import { reasonToSkip } from './docker-bed.ts'
import type { DockerHost } from './docker-host.ts'
import { bedPerTest } from './one-bed.ts'

const reason = reasonToSkip()
const startBed = bedPerTest()

const RUN = ['run', '-d', '--network', 'host', '-v', 'registry-data:/var/lib/registry']
const REGISTRY = [...RUN, '--volume-driver', 'holdfast', 'registry']
const IMAGE = '127.0.0.1:5000/payload'
const DIGEST = /digest: (sha256:[0-9a-f]{64})/i

/** An image that no other host has: 8 MiB of noise. */
async function makePayload(host: DockerHost, folder: string): Promise<void> {
  mkdirSync(folder)
  writeFileSync(join(folder, 'noise'), randomBytes(8 << 20))
  await command('tar', '-C', folder, '-cf', `${folder}.tar`, 'noise')
  await host.docker(['import', '--change', 'CMD ["/noise"]', `${folder}.tar`, IMAGE])
}

async function push(host: DockerHost): Promise<string> {
  let said = ''
  await waitUntil('the registry to take an image', 20_000, async () => {
    said = await host.docker(['push', IMAGE])
    return true
  })
  return DIGEST.exec(said)?.[1] ?? said
}

describe.skipIf(reason !== undefined)('a registry on a volume', () => {
  it('goes on elsewhere when its host dies', { timeout: 180_000 }, async () => {
    const bed = await startBed({ hosts: ['a', 'b', 'c'], etcdMembers: 3, leaseSeconds: 3 })
    const [a, b] = [bed.host('a'), bed.host('b')]
    await makePayload(a, join(bed.folder, 'payload'))
    await a.docker(REGISTRY)
    const digest = await push(a)
    expect(digest).toMatch(/^sha256:/)
    const { inSync } = await a.volume('registry-data')
    expect(inSync.length).toBeGreaterThan(1)

    const start = performance.now()
    const seconds = (): string => ((performance.now() - start) / 1000).toFixed(1)
    await a.kill()
    const refusals = new Set<string>()
    await waitUntil('the same line to work on b', 60_000, async () => {
      const { code, stderr } = await b.tryDocker(REGISTRY)
      if (code !== 0) refusals.add(stderr.trim())
      return code === 0
    })
    const running = seconds()
    let pulled = ''
    await waitUntil('the image', 30_000, async () => {
      pulled = await b.docker(['pull', IMAGE])
      return true
    })
    const total = Number(seconds())
    console.log(`registry: runs again after ${running} s, first pull complete ${total} s after the kill`)
    console.log(`on the way: ${[...refusals].join('\n')}`)
    expect(DIGEST.exec(pulled)?.[1]).toBe(digest)
    expect(total).toBeLessThan(10)
  })
})
