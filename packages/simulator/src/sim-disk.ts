/**
 * A disk in memory: what was written (page cache) apart from what survives the host (platter).
 *
 * A process crash keeps the page cache; a host crash loses any subset of the pages not yet made durable.
 * Names are durable at once, as the real adapter makes them before it says that a file is open.
 */
import type { Disk, DiskError, DiskFile } from '@holdfast/base'
import type { Checksum } from '@holdfast/base'
import type { Life, SeededRandom, World } from './world.ts'

const PAGE = 4096

class Inode {
  readonly pages = new Map<number, Uint8Array>()
  /** What the platter holds of pages written since the last sync. */
  readonly before = new Map<number, Uint8Array | undefined>()
  size = 0

  write(bytes: Uint8Array, position: number): void {
    let at = 0
    while (at < bytes.length) {
      const page = Math.floor((position + at) / PAGE)
      const offset = (position + at) % PAGE
      const length = Math.min(PAGE - offset, bytes.length - at)
      const old = this.pages.get(page)
      if (!this.before.has(page)) this.before.set(page, old)
      const fresh = new Uint8Array(PAGE)
      if (old !== undefined && length < PAGE) fresh.set(old)
      fresh.set(bytes.subarray(at, at + length), offset)
      this.pages.set(page, fresh)
      at += length
    }
    this.size = Math.max(this.size, position + bytes.length)
  }

  read(target: Uint8Array, targetOffset: number, length: number, position: number): boolean {
    if (position + length > this.size) return false
    let at = 0
    while (at < length) {
      const page = this.pages.get(Math.floor((position + at) / PAGE))
      const offset = (position + at) % PAGE
      const count = Math.min(PAGE - offset, length - at)
      if (page === undefined) target.fill(0, targetOffset + at, targetOffset + at + count)
      else target.set(page.subarray(offset, offset + count), targetOffset + at)
      at += count
    }
    return true
  }

  loseUnsynced(random: SeededRandom): void {
    for (const [page, old] of this.before) {
      if (random.chance(0.5)) continue
      if (old === undefined) this.pages.delete(page)
      else this.pages.set(page, old)
    }
    this.before.clear()
  }
}

export interface SimDiskOptions {
  readonly world: World
  readonly checksum: Checksum
  readonly capacityBytes?: number
}

/** The platter of one host; survives its processes. */
export class SimPlatter {
  readonly #files = new Map<string, Inode>()
  readonly #world: World
  readonly #checksum: Checksum
  readonly #random: SeededRandom
  capacityBytes: number

  constructor({ world, checksum, capacityBytes = 2 ** 40 }: SimDiskOptions) {
    this.#world = world
    this.#checksum = checksum
    this.#random = world.random.child()
    this.capacityBytes = capacityBytes
  }

  get usedBytes(): number {
    let used = 0
    for (const inode of this.#files.values()) used += inode.size
    return used
  }

  hostCrashed(): void {
    for (const inode of this.#files.values()) inode.loseUnsynced(this.#random)
  }

  /** The disk as one process sees it. */
  attach(life: Life): Disk {
    const later = (task: () => void): void => {
      this.#world.schedule(this.#latency(), life, task)
    }
    return {
      makeDirectory: () => {},
      list: (path) => this.#list(path),
      remove: (path) => {
        for (const name of [...this.#files.keys()]) {
          if (name === path || name.startsWith(`${path}/`)) this.#files.delete(name)
        }
      },
      rename: (from, to) => this.#rename(from, to),
      syncDirectory: (_path, done) => later(() => done(undefined)),
      readWhole: (path) => {
        const inode = this.#files.get(path)
        if (inode === undefined) return undefined
        const bytes = new Uint8Array(inode.size)
        inode.read(bytes, 0, inode.size, 0)
        return bytes
      },
      writeAtomic: (path, chunks, done) => {
        const bytes = concatenate(chunks)
        later(() => {
          const old = this.#files.get(path)?.size ?? 0
          if (this.usedBytes - old + bytes.length > this.capacityBytes) return done(NO_SPACE)
          const inode = new Inode()
          inode.write(bytes, 0)
          inode.before.clear()
          this.#files.set(path, inode)
          return done(undefined)
        })
      },
      open: (path, options, done) => later(() => this.#open(path, options, life, done)),
      space: () => ({
        freeBytes: Math.max(0, this.capacityBytes - this.usedBytes),
        totalBytes: this.capacityBytes,
      }),
    }
  }

  #list(path: string): string[] {
    const names = new Set<string>()
    for (const name of this.#files.keys()) {
      if (name.startsWith(`${path}/`)) names.add(name.slice(path.length + 1).split('/')[0] ?? '')
    }
    return [...names].sort()
  }

  #rename(from: string, to: string): void {
    const inode = this.#files.get(from)
    if (inode !== undefined) {
      this.#files.delete(from)
      this.#files.set(to, inode)
      return
    }
    for (const [name, moved] of [...this.#files]) {
      if (!name.startsWith(`${from}/`)) continue
      this.#files.delete(name)
      this.#files.set(to + name.slice(from.length), moved)
    }
  }

  #open(
    path: string,
    options: { readonly createBytes?: number; readonly recycle?: string | undefined },
    life: Life,
    done: (error: DiskError | undefined, file: DiskFile | undefined) => void,
  ): void {
    if (options.recycle !== undefined) this.#rename(options.recycle, path)
    let inode = this.#files.get(path)
    if (inode === undefined && options.createBytes === undefined) {
      return done({ kind: 'absent', message: `${path} is absent` }, undefined)
    }
    if (inode === undefined) {
      if (this.usedBytes + (options.createBytes ?? 0) > this.capacityBytes) return done(NO_SPACE, undefined)
      inode = new Inode()
      this.#files.set(path, inode)
    }
    inode.size = Math.max(inode.size, options.createBytes ?? 0)
    return done(undefined, this.#file(inode, life))
  }

  #file(inode: Inode, life: Life): DiskFile {
    const later = (low: number, high: number, task: () => void): void => {
      this.#world.schedule(this.#random.between(low, high), life, task)
    }
    return {
      write: (buffers, position, done) => {
        let at = position
        for (const buffer of buffers) {
          inode.write(buffer, at)
          at += buffer.length
        }
        if (this.#random.chance(0.8)) return true
        later(0.01, 1, () => done(undefined))
        return false
      },
      tryReadVerified: (target, targetOffset, blockCount, position, crcs, crcIndex) => {
        if (this.#random.chance(0.2)) return -1
        if (!inode.read(target, targetOffset, blockCount * PAGE, position)) return -1
        for (let at = 0; at < blockCount; at++) {
          const start = targetOffset + at * PAGE
          if (this.#checksum.crc32c(target, start, start + PAGE, 0) !== crcs[crcIndex + at]) return at
        }
        return blockCount
      },
      read: (target, targetOffset, length, position, done) => {
        later(0.02, 1, () => {
          const whole = inode.read(target, targetOffset, length, position)
          done(whole ? undefined : { kind: 'io', message: 'read behind the end of the file' })
        })
      },
      datasync: (done) => {
        // What was written when it was asked for; later writes may or may not be covered.
        const covered = [...inode.before.keys()]
        later(0.1, 3, () => {
          for (const page of covered) inode.before.delete(page)
          done(undefined)
        })
      },
      punchHole: (position, length, done) => {
        inode.write(new Uint8Array(length), position)
        later(0.01, 0.5, () => done(undefined))
      },
      close: () => {},
    }
  }

  #latency(): number {
    return this.#random.between(0.05, 1)
  }
}

const NO_SPACE: DiskError = { kind: 'no-space', message: 'the simulated disk is full' }

function concatenate(chunks: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0))
  let at = 0
  for (const chunk of chunks) {
    bytes.set(chunk, at)
    at += chunk.length
  }
  return bytes
}
