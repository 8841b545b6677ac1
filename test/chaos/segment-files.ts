/** The segment files of a stopped or living node, read from outside and damaged. */
import { type FileHandle, open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { StorageHost } from './hosts.ts'

const BLOCK = 4096
const CHUNK_BLOCKS = 256
/** First bytes of what the workload `blocks` writes, see blocks_client.py. */
const CONTENTS = Buffer.from('hf-chaos')
/** First bytes of the header of a batch. */
const HEADER = Buffer.from('HFL1')

export interface BlockOnDisk {
  readonly file: string
  readonly offset: number
  readonly block: number
  readonly version: number
}

interface Header {
  readonly file: string
  readonly offset: number
  readonly lsn: number
}

/** Paths of all segment files, by the folder of their log. */
async function segmentFiles(host: StorageHost): Promise<string[]> {
  const entries = await readdir(host.dataFolder, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isFile() && /^segment-\d+$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
}

/** What `use` gives; `undefined` without a call of it when a living node has freed the segment since it was listed. */
async function inSegment<T>(file: string, flags: 'r' | 'r+', use: (handle: FileHandle) => Promise<T>): Promise<T | undefined> {
  const handle = await open(file, flags).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
  })
  if (handle === undefined) return undefined
  try {
    return await use(handle)
  } finally {
    await handle.close()
  }
}

async function eachBlock(file: string, look: (block: Buffer, offset: number) => void): Promise<void> {
  await inSegment(file, 'r', async (handle) => {
    const chunk = Buffer.alloc(BLOCK * CHUNK_BLOCKS)
    for (let at = 0; ; at += chunk.length) {
      const { bytesRead } = await handle.read(chunk, 0, chunk.length, at)
      for (let i = 0; i + BLOCK <= bytesRead; i += BLOCK) look(chunk.subarray(i, i + BLOCK), at + i)
      if (bytesRead < chunk.length) return
    }
  })
}

/** Where contents of the workload `blocks` lie, without the newest segment. */
export async function sealedContents(host: StorageHost): Promise<BlockOnDisk[]> {
  const byLog = new Map<string, Map<string, BlockOnDisk[]>>()
  for (const file of await segmentFiles(host)) {
    const found: BlockOnDisk[] = []
    await eachBlock(file, (bytes, offset) => {
      if (!bytes.subarray(0, CONTENTS.length).equals(CONTENTS)) return
      const [block, version] = [Number(bytes.readBigUInt64LE(8)), Number(bytes.readBigUInt64LE(16))]
      found.push({ file, offset, block, version })
    })
    const folder = join(file, '..')
    byLog.set(folder, (byLog.get(folder) ?? new Map<string, BlockOnDisk[]>()).set(file, found))
  }
  return [...byLog.values()].flatMap((files) => [...files.entries()].sort().slice(0, -1).flatMap(([, found]) => found))
}

/** The newest batch in the log that holds the contents of the workload `blocks`. */
export async function newestHeader(host: StorageHost): Promise<Header | undefined> {
  const newest = new Map<string, Header>()
  const ours = new Set<string>()
  for (const file of await segmentFiles(host)) {
    const folder = join(file, '..')
    await eachBlock(file, (bytes, offset) => {
      if (bytes.subarray(0, CONTENTS.length).equals(CONTENTS)) ours.add(folder)
      if (!bytes.subarray(0, HEADER.length).equals(HEADER)) return
      const lsn = Number(bytes.readBigUInt64LE(16))
      if (lsn >= (newest.get(folder)?.lsn ?? -1)) newest.set(folder, { file, offset, lsn })
    })
  }
  const [folder] = ours
  return folder === undefined ? undefined : newest.get(folder)
}

/** Turns over some bytes in the middle of the block at `offset`. False: a living node has freed the segment meanwhile. */
export async function flip(file: string, offset: number): Promise<boolean> {
  const flipped = await inSegment(file, 'r+', async (handle) => {
    const bytes = Buffer.alloc(16)
    await handle.read(bytes, 0, bytes.length, offset + BLOCK / 2)
    for (let i = 0; i < bytes.length; i++) bytes[i] = (bytes[i] ?? 0) ^ 0xff
    await handle.write(bytes, 0, bytes.length, offset + BLOCK / 2)
    await handle.datasync()
    return true
  })
  return flipped === true
}

/** Whether the file still (or again) holds that block's contents there, whole. */
export async function holds({ file, offset, block, version }: BlockOnDisk): Promise<boolean> {
  const whole = await inSegment(file, 'r', async (handle) => {
    const bytes = Buffer.alloc(BLOCK)
    await handle.read(bytes, 0, BLOCK, offset)
    const unit = bytes.subarray(0, 32)
    const right = Number(unit.readBigUInt64LE(8)) === block && Number(unit.readBigUInt64LE(16)) === version
    return right && Array.from({ length: BLOCK / 32 }, (_, i) => i * 32).every((at) => unit.equals(bytes.subarray(at, at + 32)))
  })
  return whole === true
}
