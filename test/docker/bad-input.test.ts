/** What can't be done is said by Docker in a sentence, soon, and nothing is half made. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type CommandResult, waitUntil } from './box.ts'
import { DockerBed, reasonToSkip } from './docker-bed.ts'

const reason = reasonToSkip()
const SOON_MS = 10_000

describe.skipIf(reason !== undefined)('docker with bad input', () => {
  let bed: DockerBed
  beforeAll(async () => {
    bed = await DockerBed.start({ hosts: ['a', 'b'] })
    // What is made once and kept is there before anything is compared.
    await bed.host('a').docker(['volume', 'create', '-d', 'holdfast', '-o', 'size=64MiB', 'good'])
  }, 120_000)
  afterAll(async () => bed?.close(), 60_000)

  async function state(): Promise<unknown> {
    const a = bed.host('a')
    return {
      ...{ volumes: await a.volumes(), keys: await bed.coordinatorKeys(), loops: await bed.loopDevices() },
      ...{ mounts: a.volumeMounts(), helpers: a.helpers().map(({ line }) => line) },
      containers: await a.docker(['ps', '--quiet']),
    }
  }

  /** The state once what was removed before is gone for good: its tombstone is swept a while later. */
  async function settledState(): Promise<unknown> {
    await waitUntil('the tombstones to be swept', 60_000, async () => {
      const keys = await bed.coordinatorKeys()
      return !keys.some((key) => key.includes('/tombstones/'))
    })
    return await state()
  }

  function expectRefusal({ code, stderr, ms }: CommandResult, words: RegExp): void {
    console.log(`${(ms / 1000).toFixed(1)} s: ${stderr.trim()}`)
    expect(code).not.toBe(0)
    expect(stderr).toMatch(words)
    expect(stderr).not.toMatch(/undefined|\[object|    at |HF_/)
    expect(ms).toBeLessThan(SOON_MS)
  }

  const CREATE = ['volume', 'create', '-d', 'holdfast']
  const cases: readonly (readonly [title: string, args: readonly string[], words: RegExp])[] = [
    ['an unknown option', [...CREATE, '-o', 'colour=red', 'vol'], /colour/],
    ['a size of nothing', [...CREATE, '-o', 'size=0', 'vol'], /size/],
    ['a negative size', [...CREATE, '-o', 'size=-1GiB', 'vol'], /size/],
    ['a size that is no number', [...CREATE, '-o', 'size=big', 'vol'], /size/],
    ['an absurd size', [...CREATE, '-o', 'size=1000PiB', 'vol'], /size/],
    ['no replicas', [...CREATE, '-o', 'replicas=0', 'vol'], /replicas/],
    ['more replicas than a volume can have', [...CREATE, '-o', 'replicas=1000', 'vol'], /replica/],
    ['an unknown filesystem', [...CREATE, '-o', 'fs=ntfs', 'vol'], /fs|file ?system/],
    ['a snapshot that does not exist', [...CREATE, '-o', 'from=good@never', 'vol'], /never/],
    ['a name that climbs', [...CREATE, 'a/..'], /name|\.\./],
    ['a name that climbs from the start', [...CREATE, '../../etc'], /name|\.\./],
    ['a name that is too long', [...CREATE, 'x'.repeat(200)], /name/],
    ['a namespace that climbs', [...CREATE, '-o', 'namespace=..', 'vol'], /namespace/],
  ]
  for (const [title, args, words] of cases) {
    it(`refuses ${title}`, async () => {
      const before = await settledState()
      expectRefusal(await bed.host('a').tryDocker(args), words)
      expect(await state()).toEqual(before)
    })
  }

  it('refuses mkfs options that mkfs does not take, and mounts nothing', async () => {
    const a = bed.host('a')
    await a.docker([...CREATE, '-o', 'size=64MiB', '-o', 'mkfs-options=--frobnicate', 'odd'])
    const before = await settledState()
    expectRefusal(await a.tryDocker(['run', '--rm', '-v', 'odd:/data', 'busybox', 'true']), /mkfs|frobnicate/)
    expect(await state()).toEqual(before)
    await a.docker(['volume', 'rm', 'odd'])
  })

  it('refuses a volume that is in use elsewhere, by the name of the holder', async () => {
    const b = bed.host('b')
    const run = ['run', '-v', 'good:/data', '--network', 'none']
    const driver = ['--volume-driver', 'holdfast']
    await b.docker([...run, '-d', '--name', 'holder', ...driver, 'busybox', 'sleep', '1000'])
    const before = await settledState()
    expectRefusal(await bed.host('a').tryDocker([...run, '--rm', 'busybox', 'true']), /\bb\b/)
    expectRefusal(await bed.host('a').tryDocker(['volume', 'rm', 'good']), /\bb\b/)
    expect(await state()).toEqual(before)
    await b.docker(['rm', '-f', 'holder'])
  })

  it('refuses, as soon as Docker gives up, when the node is down', { timeout: 180_000 }, async () => {
    const a = bed.host('a')
    await a.node.stop('SIGTERM')
    try {
      expectRefusal(await a.tryDocker([...CREATE, '-o', 'size=64MiB', 'late']), /holdfast/)
      const run = ['run', '--rm', '-v', 'good:/data', '--network', 'none', 'busybox', 'true']
      expectRefusal(await a.tryDocker(run), /holdfast/)
    } finally {
      await a.startNode()
    }
    expect(await a.volumes()).toEqual(['good'])
    expect(await a.docker(['ps', '--quiet'])).toBe('')
  })

  it('refuses, not at once, a volume all of whose copies are away', { timeout: 180_000 }, async () => {
    const [a, b] = [bed.host('a'), bed.host('b')]
    await b.docker([...CREATE, '-o', 'size=64MiB', '-o', 'replicas=1', 'single'])
    const { replicas } = await b.volume('single')
    const [there, here] = replicas[0] === 'a' ? [a, b] : [b, a]
    await there.kill()
    const run = ['run', '--rm', '-v', 'single:/data', '--volume-driver', 'holdfast', 'busybox', 'true']
    expectRefusal(await here.tryDocker(run), /single/)
    expect(here.volumeMounts()).toEqual([])
  })
})
