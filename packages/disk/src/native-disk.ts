/** A directory tree of the host as the Disk port. */
import { closeSync, fstatSync, mkdirSync, open as openDescriptor, openSync, readdirSync, readSync, renameSync, rmSync, statfsSync, statSync } from 'node:fs'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { allocateAligned, native } from '@holdfast/addon'
import { assert, type Disk, type DiskDone, type DiskError, type DiskFile, ONLY_SHARD, type OpenOptions, type ReadPieces, type Shard } from '@holdfast/base'
import { diskError, diskErrorOrNone } from './disk-error.ts'
import { HeldUpWrites } from './held-up-writes.ts'
import { NativeFile } from './native-file.ts'
import { SyncGate } from './sync-gate.ts'

const DOOMED = '.removed-'
/** In the names of files that are not whole yet, before the process, the shard and a number. */
const UNFINISHED = '.new-'
const UNFINISHED_NAME = /\.new-\d+(\.\d+)?-\d+$/
/** Of a file that is read whole. */
const PIECE_BYTES = 64 * 1024 * 1024
const openOnThread = promisify(openDescriptor)
/** What one call fills: a thread is held no longer than that takes. */
const FILL_BYTES = 2 * 1024 * 1024

/**
 * The tree below `root`, which is created if absent. Several threads of a process may open it, each as another shard and
 * the first one before the others: it cleans up.
 */
export function openDisk(root: string, { index }: Shard = ONLY_SHARD): Disk {
  if (index > 0) return new NativeDisk(root, index)
  mkdirSync(root, { recursive: true })
  for (const name of readdirSync(root)) {
    // Left by a process that ended in the middle of a removal.
    if (name.startsWith(DOOMED)) rmSync(join(root, name), { recursive: true, force: true })
  }
  return new NativeDisk(root, index)
}

class NativeDisk implements Disk {
  readonly #root: string
  readonly #gate = new SyncGate()
  readonly #large = new HeldUpWrites()
  /** Begins names that no other process and no other thread of this one makes. */
  readonly #ours: string
  #temporary = 0
  #descriptors = new Int32Array(64)

  constructor(root: string, shard: number) {
    this.#root = root
    this.#ours = shard === 0 ? String(process.pid) : `${process.pid}.${shard}`
  }

  makeDirectory(path: string): void {
    mkdirSync(this.#at(path), { recursive: true })
  }

  list(path: string): string[] {
    try {
      return readdirSync(this.#at(path)).sort()
    } catch (error) {
      if (diskError(error).kind === 'absent') return []
      throw error
    }
  }

  /** The name is gone at once; the space comes back from a thread, since freeing a large file takes long. */
  remove(path: string): void {
    const doomed = join(this.#root, `${DOOMED}${this.#ours}-${this.#temporary++}`)
    try {
      renameSync(this.#at(path), doomed)
    } catch (error) {
      if (diskError(error).kind === 'absent') return
      throw error
    }
    rm(doomed, { recursive: true, force: true }).catch(() => {})
  }

  rename(from: string, to: string): void {
    renameSync(this.#at(from), this.#at(to))
  }

  syncDirectory(path: string, done: DiskDone): void {
    let fd: number
    try {
      fd = openSync(this.#at(path), 'r')
    } catch (error) {
      setImmediate(done, diskError(error))
      return
    }
    native.sync(fd, (error) => {
      closeSync(fd)
      done(diskErrorOrNone(error))
    })
  }

  removeUnfinished(path: string): void {
    try {
      for (const name of this.list(path)) if (UNFINISHED_NAME.test(name)) rmSync(join(this.#at(path), name), { force: true })
    } catch {
      // It takes room, that is all; whoever opens what is there hears what is wrong with it.
    }
  }

  readonly allocate = allocateAligned

  readWhole(path: string): readonly Uint8Array[] | DiskError {
    try {
      return readPieces(this.#at(path))
    } catch (error) {
      return diskError(error)
    }
  }

  sizeOf(path: string): number {
    return statSync(this.#at(path), { throwIfNoEntry: false })?.size ?? 0
  }

  writeAtomic(path: string, chunks: readonly Uint8Array[], done: DiskDone): void {
    const target = this.#at(path)
    replaceFile(this.#unfinished(target), target, chunks).then(
      () => this.syncDirectory(dirname(path), done),
      (error: unknown) => outsidePromise(() => done(diskError(error))),
    )
  }

  open(
    path: string,
    options: OpenOptions,
    done: (error: DiskError | undefined, file: DiskFile | undefined) => void,
  ): void {
    const recycle = options.recycle === undefined ? undefined : this.#at(options.recycle)
    // Where the kernel makes writers wait, this would be one more of them.
    const fill = options.fill === 'cached' && this.#large.heldUp(performance.now()) ? undefined : options.fill
    const target = this.#at(path)
    openFile(target, options.createBytes, recycle, fill, this.#gate, this.#unfinished(target)).then(
      (fd) => {
        // A directory's fsync would wait for all that the filesystem has not written yet; the name need
        // not outlive the host before the contents must.
        const owed = options.createBytes !== undefined
        const syncName = (then: DiskDone): void => this.syncDirectory(dirname(path), then)
        const file = new NativeFile(fd, this.#gate, this.#large, owed ? syncName : undefined)
        outsidePromise(() => done(undefined, file))
      },
      (error: unknown) => outsidePromise(() => done(diskError(error), undefined)),
    )
  }

  tryReadPieces({ count, files, positions, blockCounts, targetOffsets, crcs }: ReadPieces, target: Uint8Array): boolean {
    if (this.#descriptors.length < count) this.#descriptors = new Int32Array(2 * count)
    for (let i = 0; i < count; i++) {
      const file = files[i]
      assert(file instanceof NativeFile, 'a file of another disk', { piece: i })
      this.#descriptors[i] = file.descriptor
    }
    return native.tryReadPieces(count, target, this.#descriptors, positions, blockCounts, targetOffsets, crcs)
  }

  space(): { readonly freeBytes: number; readonly totalBytes: number } {
    const { bavail, blocks, bsize } = statfsSync(this.#root)
    return { freeBytes: bavail * bsize, totalBytes: blocks * bsize }
  }

  #at(path: string): string {
    return join(this.#root, path)
  }

  /** What a file is called until it is whole. */
  #unfinished(target: string): string {
    return `${target}${UNFINISHED}${this.#ours}-${this.#temporary++}`
  }
}

/** Throws where the disk does not give all of it. */
function readPieces(path: string): readonly Uint8Array[] {
  const fd = openSync(path, 'r')
  try {
    const pieces: Uint8Array[] = []
    for (let at = 0, left = fstatSync(fd).size; left > 0; ) {
      // Not a Buffer: what pure code knows as Uint8Array must behave like one (`slice` copies).
      const piece = new Uint8Array(Math.min(PIECE_BYTES, left))
      for (let filled = 0; filled < piece.length; ) {
        const count = readSync(fd, piece, filled, piece.length - filled, at + filled)
        if (count === 0) throw new Error(`${path} became shorter while it was read`)
        filled += count
      }
      pieces.push(piece)
      at += piece.length
      left -= piece.length
    }
    return pieces
  } finally {
    closeSync(fd)
  }
}

async function replaceFile(
  temporary: string,
  target: string,
  chunks: readonly Uint8Array[],
): Promise<void> {
  let handle: FileHandle | undefined
  try {
    handle = await open(temporary, 'w')
    for (const chunk of chunks) await handle.writeFile(chunk)
    await handle.datasync()
    await handle.close()
    handle = undefined
    await rename(temporary, target)
  } catch (error) {
    await handle?.close().catch(() => {})
    await rm(temporary, { force: true }).catch(() => {})
    throw error
  }
}

/**
 * Opens, with its space allocated if asked for, and filled where it is created and `fill` says so. One that is created bears
 * the name `unfinished` until it is whole: the process or the host may end in between. Nothing is left behind where that fails.
 */
async function openFile(
  path: string,
  createBytes: number | undefined,
  recycle: string | undefined,
  fill: OpenOptions['fill'],
  gate: SyncGate,
  unfinished: string,
): Promise<number> {
  if (recycle !== undefined) await rename(recycle, path)
  if (createBytes === undefined) return openSync(path, 'r+')
  const there = openIfThere(path)
  // On a thread: the filesystem takes as long for a new name as several writes take.
  const fd = there ?? (await openOnThread(unfinished, 'wx+', 0o600))
  try {
    await ended((done) => native.allocate(fd, createBytes, done))
    if (there !== undefined) return fd
    if (fill !== undefined) await fillWithZeroes(fd, createBytes, fill === 'durably' ? gate : undefined)
    await rename(unfinished, path)
    return fd
  } catch (error) {
    closeSync(fd)
    if (there === undefined) rmSync(unfinished, { force: true })
    throw error
  }
}

function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, 'r+')
  } catch (error) {
    if (diskError(error).kind === 'absent') return undefined
    throw error
  }
}

/** What throws within a promise ends the process only when the tasks of the turn have run, on whatever state it left behind. */
const outsidePromise = queueMicrotask

/** Durably where there is a gate. */
async function fillWithZeroes(fd: number, bytes: number, gate: SyncGate | undefined): Promise<void> {
  for (let at = 0; at < bytes; at += FILL_BYTES) {
    await ended((done) => native.fill(fd, at, Math.min(FILL_BYTES, bytes - at), gate !== undefined, done))
  }
  if (gate !== undefined) await ended((done) => gate.datasync(fd, 0, 0, done))
}

function ended(begin: (done: (error: unknown) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    begin((error) => (error === undefined ? resolve() : reject(error)))
  })
}
