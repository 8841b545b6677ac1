/** The bed itself, with Docker's own volumes: what the other tests stand on. */
import { describe, expect, it } from 'vitest'
import { reasonToSkip } from './docker-bed.ts'
import { bedPerTest } from './one-bed.ts'

const reason = reasonToSkip()
const startBed = bedPerTest()

describe.skipIf(reason !== undefined)('hosts with a Docker engine each', () => {
  it('are killed, cut off and started again, and leave nothing', { timeout: 180_000 }, async () => {
    const bed = await startBed({ hosts: ['a', 'b'], node: [], dockerd: ['--live-restore'] })
    const [a, b] = [bed.host('a'), bed.host('b')]
    const run = ['run', '--rm', '--network', 'host', '-v', 'local:/data', 'busybox']
    await a.docker([...run, 'sh', '-c', 'echo hello > /data/file'])
    expect(await a.docker([...run, 'cat', '/data/file'])).toBe('hello')
    const ping = ['ping', '-c', '1', '-W', '1', b.address]
    expect((await a.tryDocker([...run, ...ping])).code).toBe(0)
    await b.partition()
    expect((await a.tryDocker([...run, ...ping])).code).not.toBe(0)
    await b.heal()
    expect((await a.tryDocker([...run, ...ping])).code).toBe(0)
    expect((await bed.coordinatorKeys()).length).toBeGreaterThan(0)

    await a.docker(['run', '-d', '--name', 'sleeper', '--network', 'none', 'busybox', 'sleep', '1000'])
    await a.dockerd.stop('SIGKILL')
    expect((await a.tryDocker(['ps'])).code).not.toBe(0)
    await a.startDockerd()
    expect(await a.docker(['ps', '--format', '{{.Names}}'])).toBe('sleeper')
    await a.node.stop('SIGTERM')
    await a.startNode()

    const before = a.box.processes()
    expect(before.some(({ line }) => line === 'sleep 1000')).toBe(true)
    await a.kill()
    for (const { pid } of before) expect(() => process.kill(pid, 0)).toThrow()
    await a.start()
    expect(await a.docker([...run, 'cat', '/data/file'])).toBe('hello')
    expect(await a.docker(['ps', '--quiet'])).toBe('')
  })
})
