/**
 * From a device to one that can be mounted: what is on it, mkfs if it is blank, check if it is not. Runs in
 * `prepare-main.ts`: neither node nor keeper, which serve the device, may wait for it.
 */
import { type FileSystem, HoldfastError } from '@holdfast/base'
import { run } from './command.ts'
import { copyFileSystem, isBlankOrOurs, makeImage } from './format.ts'
import type { Prepared } from './keeper-protocol.ts'

/**
 * Makes the filesystem that was asked for if the device is blank, checks the one that is there otherwise.
 * @throws HoldfastError HF_CONFLICT if there is something else on it, HF_DAMAGED if it needs a person.
 */
export async function prepareFileSystem(
  device: string,
  wanted: FileSystem,
  mkfsOptions: readonly string[],
  folder: string,
): Promise<Prepared> {
  const found = await probe(device)
  const formatable = await isBlankOrOurs(device)
  if (formatable === 'unfinished' || (formatable === 'blank' && found === undefined)) {
    const image = await makeImage(device, wanted, mkfsOptions, folder)
    await copyFileSystem(image, device)
    const made = await probe(device)
    if (made?.type !== wanted) {
      throw new HoldfastError(
        'HF_IO',
        `mkfs.${wanted} on ${device} left ${made?.type ?? 'nothing'}: try again`,
      )
    }
    return { type: wanted, made: true }
  }
  if (found === undefined) {
    throw new HoldfastError(
      'HF_CONFLICT',
      'the volume is not blank and has no filesystem that is known: it is never formatted',
    )
  }
  if (found.usage !== 'filesystem') {
    const what = found.type === '' ? 'several signatures' : found.type
    throw new HoldfastError(
      'HF_CONFLICT',
      `the volume carries ${what}, not a filesystem: it is never formatted`,
    )
  }
  await check(device, found.type)
  return { type: found.type, made: false }
}

interface Signature {
  readonly type: string
  readonly usage: string
}

/** What `blkid` finds on the device, without any cache. */
async function probe(device: string): Promise<Signature | undefined> {
  const { code, stdout, stderr } = await run('blkid', ['--probe', '--output', 'export', device])
  if (code === 2 && stdout === '') return undefined
  if (code === 8) return { type: '', usage: 'ambivalent' }
  if (code !== 0) throw new HoldfastError('HF_IO', `blkid could not look at ${device}: ${stderr.trim()}`)
  const values = new Map(stdout.split('\n').map((line) => line.split('=', 2) as [string, string]))
  const table = values.get('PTTYPE')
  if (table !== undefined && !values.has('TYPE'))
    return { type: `a partition table (${table})`, usage: 'table' }
  return { type: values.get('TYPE') ?? '', usage: values.get('USAGE') ?? '' }
}

/** Replays and repairs what is safe to repair without asking. The mount itself replays the log of an xfs. */
async function check(device: string, type: string): Promise<void> {
  if (!/^ext[234]$/.test(type)) return
  // 1: repaired; 2: repaired, and would like a reboot if it were mounted, which it is not.
  const { code, stdout, stderr } = await run('e2fsck', ['-p', device])
  if (code <= 2) return
  const said = `${stdout}${stderr}`.trim().split('\n').slice(-3).join('; ')
  throw new HoldfastError(
    'HF_DAMAGED',
    `the ${type} on the volume needs a repair by hand (holdfast attach, e2fsck -y): ${said}`,
  )
}
