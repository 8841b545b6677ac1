/** A volume as what its user sees: ext4 on a loop device on nbdfuse, since not every kernel has nbd. */
import { existsSync, mkdirSync } from 'node:fs'
import { type Host, until } from './host.ts'

/** Formats the volume and mounts it; returns the folder. The host unmounts it. */
export async function mountVolume(host: Host, name: string, uri: string): Promise<string> {
  const device = host.path(`${name}-fuse`)
  const folder = host.path(`${name}-mount`)
  for (const path of [device, folder]) mkdirSync(path)
  const fuse = host.run('nbdfuse', [device, uri])
  host.defer(() => fuse.end('SIGTERM'))
  await until(`nbdfuse of ${name}`, () => existsSync(`${device}/nbd`), fuse)
  const loop = (await host.do('losetup', ['--find', '--show', '--direct-io=on', `${device}/nbd`])).trim()
  const detach = (): Promise<string> => host.do('losetup', ['--detach', loop])
  try {
    await host.do('mkfs.ext4', ['-q', '-F', loop])
    await host.do('mount', ['-t', 'ext4', '-o', 'noatime', loop, folder])
  } catch (error) {
    await detach()
    throw error
  }
  host.defer(() => host.undo('umount', [folder]))
  // From here on the loop device goes away with its mount.
  await detach()
  return folder
}
