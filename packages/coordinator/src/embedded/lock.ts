/** One process per coordinator file: a lock file that names its owner and dies with it. */
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { HoldfastError } from '@holdfast/base'

const ATTEMPT_COUNT_MAX = 8
let serial = 0

/**
 * Takes the lock at `path`; the returned function gives it back.
 * Throws HF_CONFLICT naming the process that holds it.
 */
export function takeLock(path: string): () => void {
  const mine = `${process.pid} ${startOf(process.pid) ?? ''}\n`
  const draft = `${path}.${process.pid}.${++serial}`
  writeFileSync(draft, mine)
  try {
    for (let attempt = 0; attempt < ATTEMPT_COUNT_MAX; attempt++) {
      // A link appears at once and with its contents: nobody ever reads half a lock.
      if (tryLink(draft, path)) return () => giveBack(path, mine)
      const theirs = readIfThere(path)
      if (theirs === undefined) continue
      const owner = ownerOf(theirs)
      if (owner !== undefined) {
        throw new HoldfastError(
          'HF_CONFLICT',
          `${path} is held by process ${owner}: stop it, or use another data directory`,
          { pid: owner },
        )
      }
      removeStale(path, theirs, `${draft}.stale`)
    }
  } finally {
    rmSync(draft, { force: true })
  }
  throw new HoldfastError('HF_CONFLICT', `${path} changes hands all the time: try again`)
}

function giveBack(path: string, mine: string): void {
  if (readIfThere(path) === mine) rmSync(path, { force: true })
}

/** Moves a dead owner's lock aside; one that was taken over meanwhile is put back. */
function removeStale(path: string, expected: string, aside: string): void {
  try {
    renameSync(path, aside)
  } catch {
    return
  }
  if (readIfThere(aside) !== expected) tryLink(aside, path)
  rmSync(aside, { force: true })
}

function tryLink(from: string, to: string): boolean {
  try {
    linkSync(from, to)
    return true
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false
    throw error
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

/** The living process that a lock names, or undefined when it is dead (its number may be reused). */
function ownerOf(lock: string): number | undefined {
  const [pidText = '', start = ''] = lock.trim().split(' ')
  const pid = Number(pidText)
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined
  try {
    process.kill(pid, 0)
  } catch (error) {
    // EPERM: it lives, but is another user's.
    if (!(error instanceof Error && 'code' in error && error.code === 'EPERM')) return undefined
  }
  const now = startOf(pid)
  return start === '' || now === undefined || now === start ? pid : undefined
}

/** When a process started, in ticks since boot together with the boot's id; undefined where /proc is not. */
function startOf(pid: number): string | undefined {
  const stat = readIfThere(`/proc/${pid}/stat`)
  const boot = readIfThere('/proc/sys/kernel/random/boot_id')
  // The command's name, in brackets, may contain spaces: count from behind it.
  const ticks = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
  return ticks === undefined || boot === undefined ? undefined : `${ticks}@${boot.trim()}`
}
