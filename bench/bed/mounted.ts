/** A volume as what its user sees: ext4 on a loop device on nbdfuse, since not every kernel has nbd. */
import { existsSync, mkdirSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { type Host, until } from './host.ts'

/** Formats the volume and mounts it; returns the folder. The host unmounts it. */
export async function mountVolume(host: Host, name: string, uri: string): Promise<string> {
  const device = host.path(`${name}-fuse`)
  const folder = host.path(`${name}-mount`)
  for (const path of [device, folder]) mkdirSync(path)
  const file = `${device}/nbd`
  const fuse = host.run('nbdfuse', [device, uri])
  host.defer(() => fuse.end('SIGTERM'))
  await until(`nbdfuse of ${name}`, () => existsSync(file), fuse)
  // Said before it is done, and looked at when it is undone: a benchmark may be stopped in the middle of any of these.
  host.defer(() => detachLoops(host, file))
  host.defer(async () => {
    if (isMountPoint(folder)) await host.undo('umount', [folder])
  })
  const loop = (await host.do('losetup', ['--find', '--show', '--direct-io=on', file])).trim()
  await host.do('mkfs.ext4', ['-q', '-F', loop])
  await host.do('mount', ['-t', 'ext4', '-o', 'noatime', loop, folder])
  // From here on the loop device goes away with its mount.
  await host.do('losetup', ['--detach', loop])
  return folder
}

async function detachLoops(host: Host, file: string): Promise<void> {
  const loops = await host.undo('losetup', ['--noheadings', '--output', 'NAME', '--associated', file])
  for (const loop of loops.split('\n').filter((line) => line !== '')) await host.undo('losetup', ['--detach', loop.trim()])
}

function isMountPoint(folder: string): boolean {
  return statSync(folder).dev !== statSync(dirname(folder)).dev
}
