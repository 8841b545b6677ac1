/** The commands that attach and mount, real devices, and the data that follows the host. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { whyNot } from '../attach/attach-bed.ts'
import { waitUntil } from '../support/waiting.ts'
import { TestCluster } from './harness.ts'

interface Attached {
  readonly device: string
  readonly path: string | null
}

const reason = whyNot()
if (reason !== undefined) console.log(`attaching is not tested: ${reason}`)

let cluster: TestCluster | undefined
afterEach(async () => {
  for (const name of cluster?.nodes.keys() ?? []) {
    await cluster?.cli(['unmount', 'v'], name).catch(() => undefined)
    await cluster?.cli(['detach', 'v'], name).catch(() => undefined)
  }
  await cluster?.close()
  cluster = undefined
})

const refused = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'was not refused',
    (error: { stderr?: string }) => error.stderr ?? String(error),
  )

describe.skipIf(reason !== undefined)('holdfast mount', () => {
  it('makes a filesystem once, keeps others out, and the data comes to the host', { timeout: 180_000 }, async () => {
    cluster = await TestCluster.start({ nodes: ['a', 'b', 'c'] })
    await cluster.cli(['volume', 'create', 'v', '--size', '64MiB', '--replicas', '2'], 'a')
    const { replicas } = await cluster.healthy('v')
    const host = ['a', 'b', 'c'].find((name) => !replicas.includes(name)) ?? ''
    const other = replicas[0] ?? ''
    const folder = join(cluster.folder, 'mnt')
    mkdirSync(folder)

    const { path, device } = (await cluster.cli(['mount', 'v', folder], host)) as Attached
    expect(path).toBe(folder)
    writeFileSync(join(folder, 'file'), 'contents')
    expect(await refused(cluster.cli(['attach', 'v'], other))).toContain(`attached to host ${host}`)
    expect(await refused(cluster.cli(['volume', 'rm', 'v', '-y'], other))).toContain('unmount it there first')
    const direct = ['--rw=write', '--bs=4k', '--size=16k', '--iodepth=1']
    const written = await cluster.fio([...direct, `--uri=${cluster.node(other).uri('v')}`]).catch(() => undefined)
    expect(written?.error).not.toBe(0)

    await waitUntil('the data to be where it is used', 60_000, async () => {
      const volume = await cluster?.volume('v')
      return volume?.primary === host && volume.replicas.length === 2 && volume.state === 'healthy'
    })
    expect((await cluster.volume('v')).replicas).toContain(host)
    expect(readFileSync(join(folder, 'file'), 'utf8')).toBe('contents')

    await cluster.cli(['unmount', 'v'], host)
    await waitUntil('the device to be let go', 30_000, async () => {
      return ((await cluster?.cli(['attach'], host)) as unknown[]).length === 0
    })
    expect(existsSync(join(folder, 'file'))).toBe(false)
    expect(readFileSync('/proc/mounts', 'utf8')).not.toContain(device)
    const again = (await cluster.cli(['mount', 'v', folder, '--read-only'], other)) as Attached
    expect(again.path).toBe(folder)
    expect(readFileSync(join(folder, 'file'), 'utf8')).toBe('contents')
    await cluster.cli(['unmount', 'v'], other)
  })
})
