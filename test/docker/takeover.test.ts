/** Who may write: after restarts of the engine and the node, and when a host that seems dead still lives. */
import { describe, expect, it } from 'vitest'
import { loopDevices, waitUntil } from './box.ts'
import { ContainerWriter } from './container-writer.ts'
import { reasonToSkip } from './docker-bed.ts'
import type { DockerHost } from './docker-host.ts'
import { bedPerTest } from './one-bed.ts'

const reason = reasonToSkip()
const startBed = bedPerTest()

async function createVolume(host: DockerHost, name: string): Promise<void> {
  const options = ['-o', 'size=256MiB', '-o', 'replicas=2']
  await host.docker(['volume', 'create', '--driver', 'holdfast', ...options, name])
}

const inVolume = (name: string, ...command: readonly string[]): string[] => [
  ...['run', '--rm', '--network', 'none', '-v', `${name}:/data`, '--volume-driver', 'holdfast', 'busybox'],
  ...command,
]

async function nothingMounted(host: DockerHost): Promise<void> {
  await waitUntil(`no volume to be mounted on ${host.name}`, 20_000, async () => {
    const loops = await loopDevices(host.folder)
    const left = [...loops, ...host.volumeMounts(), ...host.helpers().map(({ line }) => line)]
    if (left.length > 0) throw new Error(left.join('\n'))
    return true
  })
}

describe.skipIf(reason !== undefined)('a restarted engine', () => {
  for (const [title, dockerd] of [
    ['that stops its containers', []],
    ['that lets its containers live', ['--live-restore']],
  ] as const) {
    it(`${title} loses no mount and keeps none`, { timeout: 240_000 }, async () => {
      const bed = await startBed({ hosts: ['a', 'b'], dockerd })
      const a = bed.host('a')
      await createVolume(a, 'vol')
      const writer = await ContainerWriter.start(a, 'vol', { arguments: ['--restart', 'always'] })
      await writer.progress(10)
      for (const signal of ['SIGTERM', 'SIGKILL', 'SIGKILL', 'SIGTERM'] as const) {
        await a.dockerd.stop(signal)
        await a.startDockerd()
        await writer.progress(10)
        expect(a.volumeMounts().length).toBeGreaterThan(0)
      }
      // Both, and the node alone: what is mounted is known again.
      await Promise.all([a.dockerd.stop('SIGKILL'), a.node.stop('SIGKILL')])
      await a.startNode()
      await a.startDockerd()
      await writer.progress(10)
      await a.node.stop('SIGKILL')
      await a.startNode()
      await writer.progress(10)
      expect(writer.errors).toBe('')
      await a.docker(['rm', '-f', writer.container])
      await nothingMounted(a)
      writer.check(await a.docker(inVolume('vol', 'cat', '/data/log')))
      await nothingMounted(a)
      await a.fsck('vol')
    })
  }
})

/** How a host can live on and not notice that it is held for dead. */
const ABSENCES = [
  ['was cut off', (host: DockerHost) => host.partition(), (host: DockerHost) => host.heal()],
  [
    'had a node that was frozen',
    (host: DockerHost) => host.node.signal('SIGSTOP'),
    (host: DockerHost) => host.node.signal('SIGCONT'),
  ],
] as const

describe.skipIf(reason !== undefined)('a host that lives', () => {
  for (const [title, leave, comeBack] of ABSENCES) {
    it(`and ${title} is kept from writing after another took over`, { timeout: 240_000 }, async () => {
      const bed = await startBed({ hosts: ['a', 'b', 'c'], leaseSeconds: 3 })
      const [a, b] = [bed.host('a'), bed.host('b')]
      await createVolume(a, 'vol')
      await a.healthy('vol', 2)
      const writer = await ContainerWriter.start(a, 'vol', { goOn: true })
      await writer.progress(30)
      await refusedNamingA(b)

      await leave(a)
      const start = performance.now()
      await waitUntil('b to take over', 60_000, async () => {
        return (await b.tryDocker(inVolume('vol', 'true'))).code === 0
      })
      const seconds = ((performance.now() - start) / 1000).toFixed(1)
      const log = await b.docker(inVolume('vol', 'cat', '/data/log'))
      writer.check(log)
      const keeper = ['run', '-d', '--name', 'keeper', '--network', 'none', '-v', 'vol:/data']
      await b.docker([...keeper, 'busybox', 'sleep', '1000'])
      const write = 'echo b was here > /data/mine && sync /data/mine'
      await b.docker(['exec', 'keeper', 'sh', '-c', write])

      await comeBack(a)
      await waitUntil('the container on a to see errors', 60_000, () => writer.errors !== '')
      // What it was told to be durable is what b had read: not a line more.
      writer.check(log)
      await a.healthy('vol', 2)
      const late = 'echo late > /data/late && sync /data/late'
      expect((await a.tryDocker(['exec', writer.container, 'sh', '-c', late])).code).not.toBe(0)
      writer.check(log)
      console.log(`${title}: taken over after ${seconds} s; a says: ${writer.errors.split('\n')[0]}`)
      const there = await b.docker(['exec', 'keeper', 'ls', '/data'])
      expect(there.split('\n').toSorted()).toEqual(['log', 'mine'])

      await a.docker(['rm', '-f', writer.container])
      await nothingMounted(a)
      await b.docker(['rm', '-f', 'keeper'])
      await nothingMounted(b)
      await b.fsck('vol')
      expect(await a.docker(inVolume('vol', 'cat', '/data/log'))).toBe(log.trim())
      expect(await a.docker(inVolume('vol', 'cat', '/data/mine'))).toBe('b was here')
    })
  }
})

async function refusedNamingA(other: DockerHost): Promise<void> {
  const { code, stderr, ms } = await other.tryDocker(inVolume('vol', 'true'))
  console.log(`while a lives, ${other.name} says: ${stderr.trim()}`)
  expect(code).not.toBe(0)
  expect(stderr).toMatch(/\ba\b/)
  expect(ms).toBeLessThan(10_000)
}
