/** What a dead node or an earlier life of the host left behind. */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { KeptVolume, keeperFolder, removeKeeperFolder } from './kept-volume.ts'
import { mountTable, removeMountPoint, unmountDevice } from './mount-table.ts'
import { run } from './command.ts'
import type { AttachmentRecord } from './state-file.ts'

/** Takes away all that is left of an attachment that can't be used any more. */
export async function cleanUp(stateDir: string, record: AttachmentRecord, mountRoot: string): Promise<void> {
  const { path } = record
  if (
    path !== undefined &&
    mountTable().some((entry) => entry.path === path && entry.source === record.device)
  ) {
    const { code } = await run('umount', [path])
    if (code !== 0) await run('umount', ['--lazy', path])
  }
  await endKeeper(keeperFolder(stateDir, record.namespace, record.name))
  if (path !== undefined && path.startsWith(`${mountRoot}/`) && !record.directory)
    await removeMountPoint(path, 2)
}

/**
 * Ends keepers that are in no record: their node died before it could write one, or after it had removed it.
 */
export async function removeOrphans(stateDir: string, known: ReadonlySet<string>): Promise<void> {
  const parent = join(stateDir, 'keepers')
  const names = await readdir(parent).catch(() => [])
  for (const name of names) {
    const folder = join(parent, name)
    if (!known.has(folder)) await endKeeper(folder)
  }
}

async function endKeeper(folder: string): Promise<void> {
  const kept = await KeptVolume.find(folder)
  if (kept !== undefined) {
    await unmountDevice(kept.device, true)
    await kept.end(true).catch(() => undefined)
  }
  await removeKeeperFolder(folder)
}
