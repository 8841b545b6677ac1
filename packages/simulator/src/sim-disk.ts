/**
 * A disk in memory: what was written (page cache) apart from what survives the host (platter).
 *
 * A process crash keeps the page cache. A host crash loses any subset of the pages not yet made durable, and any
 * number of the newest changes of names: those reach the platter in order, as with a journal, and with any datasync.
 * A datasync that fails loses its pages at the next host crash, whatever a later one says, unless they are written anew.
 */
import { type Checksum, type Disk, type DiskDone, type DiskError, type DiskFile, joinBytes, type OpenOptions, tryReadOneByOne } from '@holdfast/base'
import { Inode, PAGE } from './sim-inode.ts'
import { SimNames } from './sim-names.ts'
import type { Life, SeededRandom, World } from './world.ts'

export interface SimDiskOptions {
  readonly world: World
  readonly checksum: Checksum
  readonly capacityBytes?: number
}

export type DiskOperation = 'read' | 'write' | 'datasync'

/** The platter of one host; survives its processes. */
export class SimPlatter {
  readonly #names = new SimNames()
  readonly #world: World
  readonly #checksum: Checksum
  readonly #random: SeededRandom
  capacityBytes: number
  /** Every latency is multiplied by it. */
  slowness = 1
  /** Operations that fail now. */
  readonly failing = new Set<DiskOperation>()
  /** Every `datasync` begun since the disk stood still; undefined: it does not. */
  #hung: (() => void)[] | undefined
  /** Some bit of it has flipped. */
  flipped = false
  /** Some sector of it has gone bad. */
  spoilt = false

  constructor({ world, checksum, capacityBytes = 2 ** 40 }: SimDiskOptions) {
    this.#world = world
    this.#checksum = checksum
    this.#random = world.random.child()
    this.capacityBytes = capacityBytes
  }

  get usedBytes(): number {
    let used = 0
    for (const inode of this.#names.inodes()) used += inode.size
    return used
  }

  /** Another disk takes its place, with nothing on it. */
  replace(): void {
    for (const path of this.#names.paths()) this.#names.remove(path)
    this.#names.makeDurable(this.#names.mark())
  }

  /** From now on no `datasync` ends, while the page cache takes writes as ever. */
  hang(): void {
    this.#hung ??= []
  }

  /** It goes on, and what was begun meanwhile ends. */
  goOn(): void {
    const hung = this.#hung ?? []
    this.#hung = undefined
    for (const task of hung) task()
  }

  /** Power is gone: unsynced pages and names with it. */
  hostCrashed(): void {
    this.#names.loseUnsynced(this.#random)
    for (const inode of this.#names.inodes()) inode.loseUnsynced(this.#random)
  }

  /** Flips one bit of a segment at rest. Returns where, or undefined when nothing is written yet. */
  flipBit(): string | undefined {
    const where = this.#somewhere((inode) => inode.flipBit(this.#random))
    this.flipped ||= where !== undefined
    return where
  }

  /** A page of a segment can't be read any more before it is written anew on the platter. Returns where, as `flipBit` does. */
  spoil(): string | undefined {
    const where = this.#somewhere((inode) => inode.spoil(this.#random))
    this.spoilt ||= where !== undefined
    return where
  }

  #somewhere(what: (inode: Inode) => number | undefined): string | undefined {
    const segments = this.#names.paths().filter((path) => path.includes('/segment-'))
    const path = segments[this.#random.below(Math.max(1, segments.length))]
    const inode = path === undefined ? undefined : this.#names.get(path)
    const page = inode && what(inode)
    return page === undefined ? undefined : `${path} page ${page}`
  }

  /** The same at a place of the caller's choice; false when nothing was ever written there. */
  flipBitAt(path: string, page: number): boolean {
    const flipped = this.#names.get(path)?.flipBit(this.#random, page) !== undefined
    this.flipped ||= flipped
    return flipped
  }

  /** Every sector can be read again. */
  heal(): void {
    for (const inode of this.#names.inodes()) inode.heal()
  }

  /** The disk as one process sees it. */
  attach(life: Life): Disk {
    const names = this.#names
    return {
      allocate: (bytes) => new Uint8Array(bytes),
      makeDirectory: () => {},
      list: (path) => names.list(path),
      remove: (path) => names.remove(path),
      removeUnfinished: () => {},
      rename: (from, to) => names.rename(from, to),
      syncDirectory: (_path, done) => {
        const mark = names.mark()
        this.#later(life, 0.05, 1, () => {
          names.makeDurable(mark)
          done(undefined)
        })
      },
      readWhole: (path) => {
        const inode = names.get(path)
        if (inode === undefined) return { kind: 'absent', message: `${path} is absent` }
        const bytes = new Uint8Array(inode.size)
        inode.read(bytes, 0, inode.size, 0)
        return [bytes]
      },
      sizeOf: (path) => names.get(path)?.size ?? 0,
      writeAtomic: (path, chunks, done) => this.#writeAtomic(path, joinBytes(chunks), life, done),
      open: (path, options, done) => this.#later(life, 0.05, 1, () => this.#open(path, options, life, done)),
      tryReadPieces: tryReadOneByOne,
      space: () => ({
        freeBytes: Math.max(0, this.capacityBytes - this.usedBytes),
        totalBytes: this.capacityBytes,
      }),
    }
  }

  #later(life: Life, low: number, high: number, task: () => void): void {
    this.#world.schedule(this.#random.between(low, high) * this.slowness, life, task)
  }

  #writeAtomic(path: string, bytes: Uint8Array, life: Life, done: DiskDone): void {
    this.#later(life, 0.05, 1, () => {
      if (this.failing.has('write')) return done(ioError('writing', path))
      const old = this.#names.get(path)?.size ?? 0
      if (this.usedBytes - old + bytes.length > this.capacityBytes) return done(NO_SPACE)
      const inode = new Inode()
      inode.write(bytes, 0)
      inode.makeDurable(inode.unsynced)
      this.#names.set(path, inode)
      this.#names.makeDurable(this.#names.mark())
      return done(undefined)
    })
  }

  #open(
    path: string,
    options: OpenOptions,
    life: Life,
    done: (error: DiskError | undefined, file: DiskFile | undefined) => void,
  ): void {
    if (options.recycle !== undefined) this.#names.rename(options.recycle, path)
    let inode = this.#names.get(path)
    if (inode === undefined && options.createBytes === undefined) {
      return done({ kind: 'absent', message: `${path} is absent` }, undefined)
    }
    if (inode === undefined) {
      if (this.usedBytes + (options.createBytes ?? 0) > this.capacityBytes) return done(NO_SPACE, undefined)
      inode = new Inode()
      this.#names.set(path, inode)
    }
    inode.size = Math.max(inode.size, options.createBytes ?? 0)
    return done(undefined, this.#file(inode, path, life))
  }

  #file(inode: Inode, path: string, life: Life): DiskFile {
    return {
      write: (buffers, position, done) => {
        if (this.failing.has('write')) {
          this.#later(life, 0.01, 1, () => done(ioError('writing', path)))
          return false
        }
        let at = position
        for (const buffer of buffers) {
          inode.write(buffer, at)
          at += buffer.length
        }
        if (this.#random.chance(this.slowness > 1 ? 0.4 : 0.8)) return true
        this.#later(life, 0.01, 1, () => done(undefined))
        return false
      },
      tryReadVerified: (target, targetOffset, blockCount, position, crcs, crcIndex) => {
        if (this.failing.has('read') || this.#random.chance(0.2)) return -1
        if (inode.isBad(blockCount * PAGE, position)) return -1
        if (!inode.read(target, targetOffset, blockCount * PAGE, position)) return -1
        for (let at = 0; at < blockCount; at++) {
          const start = targetOffset + at * PAGE
          if (this.#checksum.crc32c(target, start, start + PAGE, 0) !== crcs[crcIndex + at]) return at
        }
        return blockCount
      },
      read: (target, targetOffset, length, position, done) => {
        this.#later(life, 0.02, 1, () => {
          if (this.failing.has('read') || inode.isBad(length, position)) return done(ioError('reading', path))
          const whole = inode.read(target, targetOffset, length, position)
          return done(whole ? undefined : { kind: 'io', message: 'read behind the end of the file' })
        })
      },
      datasync: (done) => {
        // What was written when it was asked for; later writes may or may not be covered.
        const covered = inode.unsynced
        const mark = this.#names.mark()
        const end = (): void => this.#later(life, 0.1, 3, () => {
          if (this.failing.has('datasync')) {
            inode.dropUnsynced(covered)
            return done(ioError('making durable', path))
          }
          inode.makeDurable(covered)
          this.#names.makeDurable(mark)
          return done(undefined)
        })
        if (this.#hung === undefined) end()
        else this.#hung.push(end)
      },
      punchHole: (position, length, done) => {
        inode.write(new Uint8Array(length), position)
        this.#later(life, 0.01, 0.5, () => done(undefined))
      },
      close: () => {},
    }
  }
}

const NO_SPACE: DiskError = { kind: 'no-space', message: 'the simulated disk is full' }

function ioError(what: string, path: string): DiskError {
  return { kind: 'io', message: `${what} ${path}: simulated I/O error` }
}
