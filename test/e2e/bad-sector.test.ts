/** A filesystem on a disk with a bad sector, which a real kernel refuses more for than the sector. Needs root, as full disks do. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Disk, DiskError, DiskFile } from '@holdfast/base'
import { openDisk } from '@holdfast/disk'
import { afterEach, expect, it } from 'vitest'
import { waitUntil } from '../support/waiting.ts'

const BLOCK = 4096
const BLOCKS = 1024
const SPOILT = 701

const sh = (command: string, ...args: string[]): string => execFileSync(command, args, { encoding: 'utf8', stdio: 'pipe' }).trim()

/** ext4 on a loop device on an image that nbdkit serves, but for the bytes of one block. */
class BadDisk {
  readonly #folder = mkdtempSync(join(tmpdir(), 'holdfast-bad-'))
  readonly path = join(this.#folder, 'mnt')
  readonly #servers: ChildProcess[] = []
  #device = ''

  async start(): Promise<void> {
    const [image, socket, fuse] = ['image', 'socket', 'fuse'].map((name) => join(this.#folder, name)) as [string, string, string]
    sh('truncate', '-s', '64M', image)
    sh('mkfs.ext4', '-q', '-b', String(BLOCK), image)
    mkdirSync(this.path)
    mkdirSync(fuse)
    const bad = `bad=$(cat ${this.#folder}/bad 2>/dev/null) && [ $bad -lt $(($4+$3)) ] && [ $((bad+${BLOCK})) -gt $4 ]`
    const pread = `if ${bad}; then echo EIO bad sector >&2; exit 1; fi; dd if=${image} iflag=skip_bytes,count_bytes skip=$4 count=$3 bs=1M status=none`
    const pwrite = `dd of=${image} oflag=seek_bytes seek=$4 bs=1M iflag=fullblock conv=notrunc status=none`
    const plugin = ['get_size=echo 67108864', 'can_write=exit 0', 'can_flush=exit 0', 'flush=exit 0', `pread=${pread}`, `pwrite=${pwrite}`]
    this.#servers.push(spawn('nbdkit', ['-f', '-U', socket, 'eval', ...plugin], { stdio: 'ignore' }))
    await waitUntil('nbdkit serves', 10_000, () => existsSync(socket))
    this.#servers.push(spawn('nbdfuse', [join(fuse, 'nbd'), `nbd+unix:///?socket=${socket}`], { stdio: 'ignore' }))
    await waitUntil('nbdfuse serves', 10_000, () => statSync(join(fuse, 'nbd'), { throwIfNoEntry: false })?.size === 67_108_864)
    this.#device = sh('losetup', '-f', '--direct-io=on', '--show', join(fuse, 'nbd'))
    sh('mount', this.#device, this.path)
  }

  /** That block of a file can't be read any more, and the page cache knows nothing of the file. */
  spoil(name: string, block: number): void {
    sh('sync', join(this.path, name))
    const extents = sh('filefrag', '-v', `-b${BLOCK}`, join(this.path, name))
    const first = /^\s*0:\s+0\.\.\s*\d+:\s+(\d+)\.\./m.exec(extents)?.[1]
    if (first === undefined) throw new Error(extents)
    writeFileSync(join(this.#folder, 'bad'), String((Number(first) + block) * BLOCK))
    sh('umount', this.path)
    sh('mount', this.#device, this.path)
  }

  async remove(): Promise<void> {
    // A file may still be open, and nothing be mounted.
    spawnSync('umount', ['--lazy', this.path])
    if (this.#device !== '') spawnSync('losetup', ['-d', this.#device])
    for (const server of this.#servers.reverse()) {
      if (server.exitCode !== null || server.signalCode !== null) continue
      const ended = new Promise((resolve) => server.once('exit', resolve))
      server.kill('SIGTERM')
      await ended
    }
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

let bad: BadDisk | undefined
afterEach(async () => {
  await bad?.remove()
  bad = undefined
})

const opened = (disk: Disk, path: string): Promise<DiskFile> => new Promise((resolve, reject) => {
  disk.open(path, {}, (error, file) => (file === undefined ? reject(new Error(error?.message)) : resolve(file)))
})

it('a bad sector is the error of its own block, where the page cache refuses those around it', async () => {
  bad = new BadDisk()
  await bad.start()
  const contents = Buffer.concat(Array.from({ length: BLOCKS }, (_, block) => Buffer.alloc(BLOCK, block % 251)))
  writeFileSync(join(bad.path, 'file'), contents)
  bad.spoil('file', SPOILT)
  const file = await opened(openDisk(bad.path), 'file')
  const target = new Uint8Array(contents.length)
  const read = (block: number, count: number): Promise<DiskError | undefined> => new Promise((resolve) => {
    file.read(target, block * BLOCK, count * BLOCK, block * BLOCK, resolve)
  })
  // As a log is read: from here on the page cache has it in large folios.
  const errors: unknown[] = []
  for (let block = 0; block < BLOCKS; block += 256) errors.push(await read(block, 256))
  expect(errors).toEqual([undefined, undefined, expect.objectContaining({ kind: 'io' }), undefined])
  const failed: number[] = []
  for (let block = 512; block < 768; block++) if ((await read(block, 1)) !== undefined) failed.push(block)
  expect(failed).toEqual([SPOILT])
  contents.fill(0, SPOILT * BLOCK, (SPOILT + 1) * BLOCK)
  target.fill(0, SPOILT * BLOCK, (SPOILT + 1) * BLOCK)
  expect(Buffer.compare(target, contents)).toBe(0)
  file.close()
})
