/**
 * The data directory belongs to one process at a time, to one node, and to one cluster.
 *
 * The lock is the kernel's (`flock`): it goes with the process, however that ends. Node can't ask for
 * it itself, so the program `flock` does, on our open file: such a lock belongs to the open file, which
 * the two share, and stays when the helper has ended.
 */
import { spawnSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { HoldfastError } from '@holdfast/base'

const FLOCK_TAKEN = 1

export interface DataDirLock {
  release(): void
}

/** @throws HF_CONFLICT while another process uses the directory; HF_IO when it can't be used at all. */
export function lockDataDir(path: string): DataDirLock {
  let fd: number
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 })
    fd = openSync(join(path, 'lock'), 'a+', 0o600)
  } catch (error) {
    const { code = 'unknown' } = error as NodeJS.ErrnoException
    throw new HoldfastError(
      'HF_IO',
      `the data directory ${path} can't be used: ${code}`,
      {},
      { cause: error },
    )
  }
  const before = readFileSync(fd, 'utf8').trim()
  if (!tryLock(fd, before)) {
    closeSync(fd)
    const owner = before === '' ? 'another process' : `process ${before}`
    throw new HoldfastError(
      'HF_CONFLICT',
      `the data directory ${path} is in use by ${owner}: stop that one, or give another --data-dir`,
    )
  }
  ftruncateSync(fd)
  writeSync(fd, `${process.pid}\n`)
  return {
    release() {
      ftruncateSync(fd)
      closeSync(fd)
    },
  }
}

/** @param owner The process id in the file, or ''. */
function tryLock(fd: number, owner: string): boolean {
  const { status, error } = spawnSync('flock', ['--nonblock', '3'], {
    stdio: ['ignore', 'ignore', 'ignore', fd],
  })
  if (error === undefined && status !== null) {
    if (status === 0 || status === FLOCK_TAKEN) return status === 0
  }
  // No such program: the process id alone, which a new process may have by chance after a crash.
  const pid = Number(owner)
  return !(pid > 0 && pid !== process.pid && existsSync(`/proc/${pid}`))
}

/** What the directory says about whose data it holds. */
export interface DirIdentity {
  readonly formatVersion: 1
  readonly cluster: string
  readonly node: string
}

const identityPath = (dataDir: string): string => join(dataDir, 'node.json')

/** Undefined for a new directory. */
export function readIdentity(dataDir: string): DirIdentity | undefined {
  const path = identityPath(dataDir)
  if (!existsSync(path)) return undefined
  const unreadable = `${path} is damaged or of a later version: use the version that wrote it, or restore the file`
  let identity: Partial<DirIdentity> | null
  try {
    identity = JSON.parse(readFileSync(path, 'utf8')) as Partial<DirIdentity> | null
  } catch (error) {
    throw new HoldfastError('HF_DAMAGED', unreadable, {}, { cause: error })
  }
  const { formatVersion, cluster, node } = identity ?? {}
  if (formatVersion !== 1 || typeof cluster !== 'string' || typeof node !== 'string') {
    throw new HoldfastError('HF_DAMAGED', unreadable)
  }
  return { formatVersion, cluster, node }
}

/**
 * Binds a new directory to cluster and node, or checks that it is theirs. A directory in the wrong hands
 * would look like a node that lost everything.
 */
export function claimDataDir(dataDir: string, wanted: { cluster: string; node: string }): void {
  const found = readIdentity(dataDir)
  if (found === undefined) {
    writeIdentity(dataDir, { formatVersion: 1, ...wanted })
    return
  }
  if (found.node !== wanted.node) {
    throw new HoldfastError(
      'HF_CONFLICT',
      `the data directory ${dataDir} belongs to node ${found.node}, not ${wanted.node}: give --name ${found.node} or another --data-dir`,
    )
  }
  if (found.cluster !== wanted.cluster) {
    throw new HoldfastError(
      'HF_CONFLICT',
      `the data directory ${dataDir} belongs to cluster ${found.cluster}, the coordinator to ${wanted.cluster}: check --coordinator, or give another --data-dir`,
    )
  }
}

function writeIdentity(dataDir: string, identity: DirIdentity): void {
  const path = identityPath(dataDir)
  const fd = openSync(`${path}.new`, 'w', 0o600)
  writeSync(fd, `${JSON.stringify(identity)}\n`)
  fsyncSync(fd)
  closeSync(fd)
  renameSync(`${path}.new`, path)
  const directory = openSync(dataDir, 'r')
  fsyncSync(directory)
  closeSync(directory)
}
