/** The node process of a host dies, is stopped, and loses the primary, under a container that writes. */
import { describe, expect, it } from 'vitest'
import { reasonToSkip } from './docker-bed.ts'
import { ContainerWriter } from './container-writer.ts'
import { bedPerTest } from './one-bed.ts'

const reason = reasonToSkip()
const startBed = bedPerTest()

describe.skipIf(reason !== undefined)('a container that writes with fsync', () => {
  it('sees no error while its node restarts and the primary moves', { timeout: 240_000 }, async () => {
    const bed = await startBed({ hosts: ['a', 'b'], leaseSeconds: 3 })
    const [a, b] = [bed.host('a'), bed.host('b')]
    const options = ['-o', 'size=256MiB', '-o', 'replicas=2']
    await a.docker(['volume', 'create', '--driver', 'holdfast', ...options, 'vol'])
    const writer = await ContainerWriter.start(a, 'vol')
    await writer.progress(20)
    await a.healthy('vol', 2)
    for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
      await a.node.stop(signal)
      await a.startNode()
      await writer.progress(20)
      await a.healthy('vol', 2)
      await a.holdfast(['volume', 'move-primary', 'vol', '--to', 'b'])
      await writer.progress(20)
      // Without waiting for the answer: the node dies in the middle of it.
      const moved = b.tryHoldfast(['volume', 'move-primary', 'vol', '--to', 'a'])
      await a.node.stop(signal)
      await a.startNode()
      await moved
      await writer.progress(20)
      await a.healthy('vol', 2)
    }
    expect(writer.errors).toBe('')
    const mounted = await a.docker(['exec', writer.container, 'grep', ' /data ', '/proc/mounts'])
    expect(mounted).toMatch(/ \/data ext4 rw,/)
    await writer.stop()
    const { written, longestPause } = writer
    console.log(`restart: ${written} lines, longest pause ${longestPause.toFixed(2)} s`)
    writer.check(await a.docker(['run', '--rm', '-v', 'vol:/data', 'busybox', 'cat', '/data/log']))
    await a.fsck('vol')
  })
})
