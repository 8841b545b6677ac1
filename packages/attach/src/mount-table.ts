/**
 * Mounts of this mount namespace, from the kernel's table: looking at a path could wait for a dead device.
 */
import { readFileSync } from 'node:fs'
import { rmdir } from 'node:fs/promises'
import { HoldfastError } from '@holdfast/base'
import { run } from './command.ts'

export interface MountEntry {
  readonly path: string
  readonly source: string
}

/** All mounts, oldest first. */
export function mountTable(): readonly MountEntry[] {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').trimEnd().split('\n')
  return lines.map((line) => {
    const [front = '', back = ''] = line.split(' - ')
    return { path: unescape(front.split(' ')[4] ?? ''), source: unescape(back.split(' ')[1] ?? '') }
  })
}

export function mountsOf(device: string): readonly MountEntry[] {
  return mountTable().filter(({ source }) => source === device)
}

/** @throws HoldfastError HF_IO with what `mount` said. */
export async function mountDevice(
  device: string,
  path: string,
  type: string,
  options: readonly string[],
): Promise<void> {
  const flags = options.length > 0 ? ['-o', options.join(',')] : []
  const { code, stderr } = await run('mount', ['-t', type, ...flags, device, path])
  if (code === 0) return
  throw new HoldfastError('HF_IO', `the volume could not be mounted: ${stderr.trim().split('\n')[0] ?? ''}`)
}

/**
 * Unmounts every mount of a device here. @throws HoldfastError HF_CONFLICT while something uses it, unless
 * `lazily`.
 */
export async function unmountDevice(device: string, lazily: boolean): Promise<void> {
  for (const { path } of mountsOf(device).toReversed()) {
    const { code, stderr } = await run('umount', [path])
    if (code === 0 || !mountsOf(device).some((entry) => entry.path === path)) continue
    if (!lazily) {
      const said = stderr.trim().split('\n')[0] ?? ''
      throw new HoldfastError('HF_CONFLICT', `${path} could not be unmounted: ${said}: see fuser -vm ${path}`)
    }
    await run('umount', ['--lazy', path])
  }
}

/** Removes folders that were made to mount on, upwards, as long as they are empty. */
export async function removeMountPoint(path: string, levels: number): Promise<void> {
  let folder = path
  for (let level = 0; level < levels; level++) {
    try {
      await rmdir(folder)
    } catch {
      return
    }
    folder = folder.slice(0, folder.lastIndexOf('/'))
  }
}

function unescape(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)))
}
