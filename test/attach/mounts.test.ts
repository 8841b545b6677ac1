/** Volumes of a real node, mounted for real over nbdfuse and a loop device. */
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { sleep, waitUntil } from '../support/waiting.ts'
import { AttachBed, FakeDesk, sh, whyNot } from './attach-bed.ts'

const reason = whyNot()
if (reason !== undefined) console.log(`tests of attach are skipped: ${reason}`)

let bed: AttachBed | undefined
afterEach(async () => {
  await bed?.close()
  bed = undefined
})

async function startBed(size?: string): Promise<AttachBed> {
  bed = await AttachBed.start()
  await bed.createVolume('v', size)
  return bed
}

/** Everything of the bed is gone but the node. */
const nothingLeft = async (): Promise<void> => bed?.nothingLeft()

/** One partition of Linux from sector 2048 on, in the table of a PC. */
function writePartitionTable(device: string): void {
  const sector = Buffer.alloc(512)
  sector[450] = 0x83
  sector.writeUInt32LE(2048, 454)
  sector.writeUInt32LE(4096, 458)
  sector.writeUInt16LE(0xaa55, 510)
  const fd = openSync(device, 'r+')
  writeSync(fd, sector, 0, 512, 0)
  closeSync(fd)
}

describe.skipIf(reason !== undefined)('a mounted volume', () => {
  it('keeps its files from one mount to the next, and leaves nothing behind', async () => {
    const own = await startBed()
    const mounts = await own.open()
    for (const round of [1, 2]) {
      const { path } = await mounts.mount(own.request('v', `id-${round}`))
      expect(path).toBe(join(own.mountRoot, 'default', 'v'))
      if (round === 1) writeFileSync(join(path, 'file'), 'hello')
      expect(readFileSync(join(path, 'file'), 'utf8')).toBe('hello')
      expect(mounts.list()).toMatchObject([{ name: 'v', path, mountIds: [`id-${round}`] }])
      expect(sh('losetup', '--list', '--noheadings', '--output', 'DIO', mounts.list()[0]?.device ?? '')).toBe(
        '1',
      )
      await mounts.unmount('default', 'v', `id-${round}`)
      await waitUntil('the volume to be let go', 5000, () => mounts.list().length === 0)
      await nothingLeft()
      expect(own.desk.holders.size).toBe(0)
      expect(existsSync(path)).toBe(false)
    }
    expect(own.events.filter((line) => line.includes('filesystem made'))).toHaveLength(1)
  })

  it('counts users by their ids', async () => {
    const own = await startBed()
    const mounts = await own.open({ timings: { lingerMs: 0 } })
    const paths = await Promise.all(['one', 'one', 'two'].map((id) => mounts.mount(own.request('v', id))))
    expect(new Set(paths.map(({ path }) => path)).size).toBe(1)
    expect(mounts.list()[0]?.mountIds).toEqual(['one', 'two'])
    await mounts.unmount('default', 'v', 'one')
    await mounts.unmount('default', 'v', 'one')
    await mounts.unmount('default', 'v', 'never')
    expect(existsSync(join(paths[0]?.path ?? '', 'lost+found'))).toBe(true)
    await expect(mounts.detach('default', 'v')).rejects.toMatchObject({ code: 'HF_CONFLICT' })
    await mounts.unmount('default', 'v', 'two')
    await nothingLeft()
    await mounts.unmount('default', 'v', 'two')
    await mounts.detach('default', 'v')
  })

  it('survives the moment between two users without being unmounted', async () => {
    const own = await startBed()
    const mounts = await own.open({ timings: { lingerMs: 1500 } })
    await mounts.mount(own.request('v', 'one'))
    const device = mounts.list()[0]?.device
    await mounts.unmount('default', 'v', 'one')
    await mounts.mount(own.request('v', 'two'))
    expect(mounts.list()).toMatchObject([{ device, mountIds: ['two'] }])
    await mounts.unmount('default', 'v', 'two')
    // What lingers goes at once when it is asked for.
    await mounts.detach('default', 'v')
    expect(mounts.list()).toEqual([])
    await nothingLeft()
  })

  it('can be xfs, read-only, in a folder of the caller', async () => {
    const own = await startBed('512MiB')
    const mounts = await own.open()
    const directory = join(own.folder, 'here')
    sh('mkdir', directory)
    const { path } = await mounts.mount(own.request('v', 'one', { fileSystem: 'xfs', directory }))
    expect(path).toBe(directory)
    expect(sh('findmnt', '--noheadings', '--output', 'FSTYPE', path)).toBe('xfs')
    writeFileSync(join(path, 'file'), 'hello')
    const open = openSync(join(path, 'file'), 'r')
    await expect(mounts.unmount('default', 'v', 'one')).rejects.toThrow(/could not be unmounted.*busy/)
    closeSync(open)
    await mounts.unmount('default', 'v', 'one')
    // Another filesystem than the one that is there: it stays, and that is said.
    await mounts.mount(own.request('v', 'two', { directory, readOnly: true }))
    expect(() => writeFileSync(join(path, 'file'), 'x')).toThrow('EROFS')
    expect(readFileSync(join(path, 'file'), 'utf8')).toBe('hello')
    expect(own.events.join('\n')).toContain('another filesystem than was asked for')
    await mounts.unmount('default', 'v', 'two')
    await nothingLeft()
    expect(existsSync(directory)).toBe(true)
  })

  it('is written out when a device is let go that nobody synced', async () => {
    const own = await startBed()
    const mounts = await own.open()
    const { device } = await mounts.attach('default', 'v')
    sh('dd', 'if=/dev/zero', `of=${device}`, 'bs=1M', 'count=32', 'status=none')
    sh('sh', '-c', `tr '\\0' x < /dev/zero | head -c 33554432 > ${device}`)
    await mounts.detach('default', 'v')
    await nothingLeft()
    const again = await mounts.attach('default', 'v')
    const others = sh('sh', '-c', `head -c 33554432 ${again.device} | tr -d x | wc -c`)
    expect(others).toBe('0')
  })

  it('leaves nothing after 20 cycles', { timeout: 240_000 }, async () => {
    const own = await startBed()
    const mounts = await own.open({ timings: { lingerMs: 0 } })
    for (let cycle = 0; cycle < 20; cycle++) {
      const { path } = await mounts.mount(own.request('v', `id-${cycle}`))
      writeFileSync(join(path, `file-${cycle}`), String(cycle))
      await mounts.unmount('default', 'v', `id-${cycle}`)
      if (cycle % 2 === 0) await mounts.detach('default', 'v')
    }
    await nothingLeft()
    const { device } = await mounts.attach('default', 'v')
    expect(sh('debugfs', '-R', 'ls -p /', device).match(/file-\d+/g)).toHaveLength(20)
    sh('e2fsck', '-f', '-n', device)
    await mounts.detach('default', 'v')
    await nothingLeft()
  })
})

describe.skipIf(reason !== undefined)('formatting', () => {
  const foreign = [
    ['swap', (device: string) => sh('mkswap', device), 'carries swap'],
    ['a partition table', writePartitionTable, 'a partition table'],
    [
      'plain data',
      (device: string) => sh('dd', 'if=/bin/ls', `of=${device}`, 'bs=512', 'seek=9', 'count=1'),
      'not blank',
    ],
  ] as const

  it('never touches what is not blank', async () => {
    const own = await startBed('64MiB')
    const mounts = await own.open()
    for (const [what, make, message] of foreign) {
      const { device } = await mounts.attach('default', 'v')
      make(device)
      sh('sync', device)
      const before = sh('sha256sum', device)
      await expect(mounts.mount(own.request('v', 'one')), what).rejects.toMatchObject({
        code: 'HF_CONFLICT',
        message: expect.stringMatching(message) as string,
      })
      expect(sh('sha256sum', device), what).toBe(before)
      expect(mounts.list()[0]?.path).toBeUndefined()
      sh('wipefs', '--all', '--quiet', device)
      await mounts.detach('default', 'v')
    }
    await nothingLeft()
  })

  it('begins again where a mkfs was interrupted, and only there', async () => {
    const own = await startBed()
    const mounts = await own.open()
    const { device } = await mounts.attach('default', 'v')
    // What an interrupted copy leaves: the mark, and parts of a filesystem.
    const mark = Buffer.alloc(4096)
    mark.write('holdfast: a filesystem is being made here, it was never mounted (1)\n')
    const fd = openSync(device, 'r+')
    writeSync(fd, mark, 0, 4096, 0)
    writeSync(fd, Buffer.alloc(65536, 7), 0, 65536, 8192)
    fsyncSync(fd)
    closeSync(fd)
    const { path } = await mounts.mount(own.request('v', 'one'))
    writeFileSync(join(path, 'file'), 'hello')
    expect(own.events.filter((line) => line.includes('filesystem made'))).toHaveLength(1)
    await mounts.unmount('default', 'v', 'one')
    await waitUntil('the unmount', 5000, () => mounts.list()[0]?.path === undefined)
    sh('e2fsck', '-f', '-n', device)
    await mounts.mount(own.request('v', 'two'))
    expect(readFileSync(join(path, 'file'), 'utf8')).toBe('hello')
    expect(own.events.filter((line) => line.includes('filesystem made'))).toHaveLength(1)
  })

  it('can be killed at any moment, and is done by the next mount', { timeout: 180_000 }, async () => {
    const own = await startBed()
    const mounts = await own.open({ timings: { lingerMs: 0 } })
    let interrupted = 0
    for (let round = 0; round < 4; round++) {
      await own.createVolume(`v${round}`)
      const mounting = mounts.mount(own.request(`v${round}`, 'one')).then(
        () => true,
        () => false,
      )
      const keeper = (): { readonly pid: number } | undefined =>
        own.processes().find(({ line }) => line.includes('keeper-main'))
      // Each round a little further into the making of the device and of the filesystem.
      await waitUntil('the device', 10_000, () => own.remnants().some((line) => line.startsWith('/dev/loop')))
      await sleep(round * 150)
      process.kill(keeper()?.pid ?? 0, 'SIGKILL')
      if (!(await mounting)) interrupted++
      await waitUntil('the end of the attachment', 10_000, async () => {
        await mounts.unmount('default', `v${round}`, 'one')
        return mounts.list().length === 0
      })
      const { path } = await mounts.mount(own.request(`v${round}`, 'two'))
      writeFileSync(join(path, 'file'), 'hello')
      await mounts.unmount('default', `v${round}`, 'two')
      await mounts.detach('default', `v${round}`)
      await nothingLeft()
    }
    console.log(`${interrupted} of 4 mounts were interrupted`)
    expect(interrupted).toBeGreaterThan(0)
  })

  it('says what mkfs said, and leaves nothing attached', async () => {
    const own = await startBed()
    const mounts = await own.open()
    const wrong = own.request('v', 'one', { mkfsOptions: ['-O', 'nonsense'] })
    await expect(mounts.mount(wrong)).rejects.toMatchObject({
      code: 'HF_BAD_REQUEST',
      message: expect.stringContaining('mkfs.ext4 failed') as string,
    })
    await nothingLeft()
    expect(own.desk.holders.size).toBe(0)
    await expect(mounts.mount(own.request('none', 'one'))).rejects.toThrow(/does not serve default\/none/)
    await nothingLeft()
  })
})

describe.skipIf(reason !== undefined)('the right to a volume', () => {
  it('is waited for while the other host lets go, and then refused', async () => {
    const own = await startBed()
    const mounts = await own.open()
    own.desk.holders.set('default/v', 'there')
    await expect(mounts.mount(own.request('v', 'one'))).rejects.toThrow('attached on there')
    const mounting = mounts.mount(own.request('v', 'one'))
    own.desk.holders.delete('default/v')
    await mounting
    expect(own.desk.holder('default', 'v')).toBe('here')
  })

  it('lost: the device gives errors, and its users can leave', async () => {
    const own = await startBed()
    const mounts = await own.open({ timings: { lingerMs: 0 } })
    const { path } = await mounts.mount(own.request('v', 'one'))
    mounts.lost('default', 'v')
    await waitUntil('errors', 5000, () => {
      try {
        const fd = openSync(join(path, 'file'), 'w')
        try {
          writeSync(fd, 'x')
          fsyncSync(fd)
        } finally {
          closeSync(fd)
        }
        return false
      } catch {
        return true
      }
    })
    await expect(mounts.mount(own.request('v', 'two'))).rejects.toThrow('gives errors')
    await mounts.unmount('default', 'v', 'one')
    await nothingLeft()
    await mounts.mount(own.request('v', 'three'))
    writeFileSync(join(path, 'file'), 'x')
  })

  it('is asked for again after a restart, before anything is sent', async () => {
    const own = await startBed()
    const first = await own.open()
    const { path } = await first.mount(own.request('v', 'one'))
    writeFileSync(join(path, 'before'), 'x')
    await first.close()
    await own.node.stop('SIGKILL')
    await own.node.start()
    // Meanwhile another host has taken it.
    const second = await own.open({ desk: new FakeDesk('here', new Map([['default/v', 'there']])) })
    expect(second.list()).toMatchObject([{ name: 'v', mountIds: ['one'] }])
    await waitUntil('the loss', 5000, () => own.events.some((line) => line.includes('gives errors')))
    await second.unmount('default', 'v', 'one')
    await nothingLeft()
  })
})
