/**
 * mkfs that can be interrupted anywhere. The filesystem is made in a sparse file, then copied: a mark goes to
 * the first block, everything else follows, the first block comes last and takes the mark away. So a device
 * whose first block is the mark was never mounted, whichever host began, and may be formatted again.
 */
import { mkdtemp, open, readFile, rm, type FileHandle } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { native } from '@holdfast/addon'
import { type FileSystem, HoldfastError } from '@holdfast/base'
import { run, runOrFail } from './command.ts'

const BLOCK_BYTES = 4096
const BLANK_BYTES = 1024 * 1024
const COPY_BYTES = 1024 * 1024
const MARK = Buffer.alloc(BLOCK_BYTES)
MARK.write('holdfast: a filesystem is being made here, it was never mounted (1)\n')

/** `unfinished`: only our own mark is on it, from a mkfs that did not get to its end. */
export async function isBlankOrOurs(device: string): Promise<'blank' | 'unfinished' | 'used'> {
  const file = await open(device, 'r')
  try {
    const bytes = Buffer.alloc(Math.min(BLANK_BYTES, await deviceBytes(device)))
    await readAll(file, bytes, 0)
    if (bytes.subarray(0, BLOCK_BYTES).equals(MARK)) return 'unfinished'
    return isZero(bytes) ? 'blank' : 'used'
  } finally {
    await file.close()
  }
}

export interface FileSystemImage {
  readonly path: string
  remove(): Promise<void>
}

/**
 * Runs mkfs on a sparse file of the device's size. @throws HoldfastError HF_BAD_REQUEST with what mkfs said.
 */
export async function makeImage(
  device: string,
  fileSystem: FileSystem,
  mkfsOptions: readonly string[],
  folder: string,
): Promise<FileSystemImage> {
  const place = await mkdtemp(join(folder, 'mkfs-'))
  const path = join(place, 'image')
  const remove = (): Promise<void> => rm(place, { recursive: true, force: true })
  try {
    const file = await open(path, 'wx', 0o600)
    await file.truncate(await deviceBytes(device))
    await file.close()
    const args = [...mkfsDefaults(fileSystem, mkfsOptions), ...mkfsOptions, path]
    const { code, stdout, stderr } = await run(`mkfs.${fileSystem}`, args)
    if (code !== 0) {
      const said = (stderr.trim() || stdout.trim()).split('\n').slice(0, 3).join('; ')
      throw new HoldfastError('HF_BAD_REQUEST', `mkfs.${fileSystem} failed: ${said}`)
    }
    return { path, remove }
  } catch (error) {
    await remove()
    throw error
  }
}

/** Sizes that fit every kind of device, so that the volume can be mounted on any host. */
function mkfsDefaults(fileSystem: FileSystem, given: readonly string[]): string[] {
  const has = (flag: string): boolean => given.some((option) => option.startsWith(flag))
  if (fileSystem === 'xfs') return has('-s') ? ['-q', '-f'] : ['-q', '-f', '-s', `size=${BLOCK_BYTES}`]
  const args = ['-q', '-F', ...(has('-b') ? [] : ['-b', String(BLOCK_BYTES)])]
  return has('-E') ? args : [...args, '-E', 'lazy_itable_init=1,lazy_journal_init=1']
}

/** Copies the image to the device, the first block last, and removes the image. */
export async function copyFileSystem(image: FileSystemImage, device: string): Promise<void> {
  try {
    // What an unfinished copy left must not look like data of this one.
    const discarded = await run('blkdiscard', ['--force', device])
    if (discarded.code !== 0) await runOrFail('blkdiscard', ['--force', '--zeroout', device])
    const source = await open(image.path, 'r')
    const target = await open(device, 'r+')
    try {
      await writeAll(target, MARK, 0)
      await target.sync()
      await copyData(source, target)
      await target.sync()
      const first = Buffer.alloc(BLOCK_BYTES)
      await readAll(source, first, 0)
      await writeAll(target, first, 0)
      await target.sync()
    } finally {
      await source.close()
      await target.close()
    }
  } finally {
    await image.remove()
  }
}

/** All data of the sparse file but its first block. */
async function copyData(source: FileHandle, target: FileHandle): Promise<void> {
  const buffer = Buffer.alloc(COPY_BYTES)
  for (let position = BLOCK_BYTES; ;) {
    const extent = native.nextData(source.fd, position)
    if (extent === undefined) return
    const start = Math.floor(extent[0] / BLOCK_BYTES) * BLOCK_BYTES
    const end = Math.ceil(extent[1] / BLOCK_BYTES) * BLOCK_BYTES
    for (let at = Math.max(start, BLOCK_BYTES); at < end; at += COPY_BYTES) {
      const part = buffer.subarray(0, Math.min(COPY_BYTES, end - at))
      await readAll(source, part, at)
      if (!isZero(part)) await writeAll(target, part, at)
    }
    position = end
  }
}

async function readAll(file: FileHandle, target: Buffer, position: number): Promise<void> {
  let filled = 0
  while (filled < target.length) {
    const { bytesRead } = await file.read(target, filled, target.length - filled, position + filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  target.fill(0, filled)
}

async function writeAll(file: FileHandle, bytes: Buffer, position: number): Promise<void> {
  let written = 0
  while (written < bytes.length) {
    const { bytesWritten } = await file.write(bytes, written, bytes.length - written, position + written)
    written += bytesWritten
  }
}

function isZero(bytes: Buffer): boolean {
  return bytes.every((byte) => byte === 0)
}

/** Size of a block device in bytes. */
async function deviceBytes(device: string): Promise<number> {
  // The kernel counts in sectors of 512 bytes here, whatever the device says its sectors are.
  return Number(await readFile(`/sys/class/block/${basename(device)}/size`, 'utf8')) * 512
}
