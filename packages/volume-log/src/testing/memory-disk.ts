/**
 * A disk in memory with the page cache apart from the platter: a crash loses any subset of the 4 KiB
 * pages written since the last sync. Deterministic by seed. Names are durable at once, file contents are not.
 */
import { type Checksum, type Disk, type DiskDone, type DiskError, type DiskFile, joinBytes, type OpenOptions, type ReadPieces, tryReadOneByOne } from '@holdfast/base'
import { tableChecksum } from './crc32c.ts'
import type { ManualScheduler } from './manual-scheduler.ts'
import { SeededRandom } from './manual-scheduler.ts'

const PAGE = 4096
/** No multiple of anything: what is read whole must not depend on where its pieces end. */
const PIECE_BYTES = 2_999

class Inode {
  cache: Uint8Array
  platter: Uint8Array
  readonly dirty = new Set<number>()
  /** Pages that are not in the page cache: tryReadVerified misses. */
  readonly cold = new Set<number>()
  /** Pages that the disk gives an error for until they are written. */
  readonly bad = new Set<number>()
  constructor(bytes: number) {
    this.cache = new Uint8Array(bytes)
    this.platter = new Uint8Array(bytes)
  }
  resize(bytes: number): void {
    if (bytes === this.cache.length) return
    const grow = (old: Uint8Array): Uint8Array => {
      const fresh = new Uint8Array(bytes)
      fresh.set(old.subarray(0, Math.min(bytes, old.length)))
      return fresh
    }
    this.cache = grow(this.cache)
    this.platter = grow(this.platter)
  }
}

export interface MemoryDiskOptions {
  readonly scheduler: ManualScheduler
  readonly seed?: number
  readonly checksum?: Checksum
  /** Bytes that files may take in all. */
  readonly capacityBytes?: number
  /** Percent of writes that finish at once. */
  readonly immediatePercent?: number
}

export class MemoryDisk implements Disk {
  readonly #files = new Map<string, Inode>()
  readonly #scheduler: ManualScheduler
  readonly #random: SeededRandom
  readonly #checksum: Checksum
  readonly #immediatePercent: number
  capacityBytes: number
  /** Raised by a crash: files opened before do nothing any more. */
  #life = 0
  openFiles = 0
  /** Files that were asked to be filled, durably and in the page cache only. */
  readonly filled: string[] = []
  readonly filledInCache: string[] = []
  /** The next operation of that kind fails with an I/O error. */
  failNext: 'write' | 'datasync' | 'read' | 'read-whole' | 'save' | undefined

  /** Files with that in their path can't be read whole. */
  failWhole: string | undefined

  constructor(options: MemoryDiskOptions) {
    this.#scheduler = options.scheduler
    this.#random = new SeededRandom(options.seed ?? 1)
    this.#checksum = options.checksum ?? tableChecksum
    this.capacityBytes = options.capacityBytes ?? 2 ** 40
    this.#immediatePercent = options.immediatePercent ?? 50
  }

  makeDirectory(): void {}

  list(path: string): string[] {
    const names = new Set<string>()
    for (const name of this.#files.keys()) {
      if (name.startsWith(`${path}/`)) names.add(name.slice(path.length + 1).split('/')[0] ?? '')
    }
    return [...names].sort()
  }

  remove(path: string): void {
    for (const name of [...this.#files.keys()]) {
      if (name === path || name.startsWith(`${path}/`)) this.#files.delete(name)
    }
  }

  removeUnfinished(): void {}

  rename(from: string, to: string): void {
    const moved = [...this.#files].filter(([path]) => path === from || path.startsWith(`${from}/`))
    if (moved.length === 0) throw new Error(`rename: ${from} does not exist`)
    for (const [path, inode] of moved) {
      this.#files.delete(path)
      this.#files.set(to + path.slice(from.length), inode)
    }
  }

  syncDirectory(_path: string, done: DiskDone): void {
    this.#later(() => done(undefined))
  }

  readWhole(path: string): readonly Uint8Array[] | DiskError {
    const failure = this.#fails('read-whole')
    if (failure !== undefined) return failure
    if (this.failWhole !== undefined && path.includes(this.failWhole)) return { kind: 'io', message: 'read-whole failed' }
    const bytes = this.#files.get(path)?.cache
    if (bytes === undefined) return { kind: 'absent', message: `${path} does not exist` }
    const pieces: Uint8Array[] = []
    for (let at = 0; at < bytes.length; at += PIECE_BYTES) pieces.push(bytes.slice(at, at + PIECE_BYTES))
    return pieces
  }

  allocate(bytes: number): Uint8Array {
    return new Uint8Array(bytes)
  }

  sizeOf(path: string): number {
    return this.#files.get(path)?.cache.length ?? 0
  }

  tryReadPieces(pieces: ReadPieces, target: Uint8Array): boolean {
    return tryReadOneByOne(pieces, target)
  }

  writeAtomic(path: string, chunks: readonly Uint8Array[], done: DiskDone): void {
    const failure = this.#fails('save')
    if (failure !== undefined) return this.#later(() => done(failure))
    const bytes = joinBytes(chunks)
    const inode = new Inode(bytes.length)
    inode.cache.set(bytes)
    inode.platter.set(inode.cache)
    this.#later(() => {
      this.#files.set(path, inode)
      done(undefined)
    })
  }

  open(
    path: string,
    options: OpenOptions,
    done: (error: DiskError | undefined, file: DiskFile | undefined) => void,
  ): void {
    if (options.fill === 'durably') this.filled.push(path)
    if (options.fill === 'cached') this.filledInCache.push(path)
    this.#later(() => {
      if (options.recycle !== undefined) this.rename(options.recycle, path)
      let inode = this.#files.get(path)
      const wanted = options.createBytes
      if (inode === undefined && wanted === undefined) {
        return done({ kind: 'absent', message: `${path} does not exist` }, undefined)
      }
      const more = (wanted ?? 0) - (inode?.cache.length ?? 0)
      if (wanted !== undefined && more > this.space().freeBytes) {
        return done({ kind: 'no-space', message: 'disk is full' }, undefined)
      }
      inode ??= new Inode(wanted ?? 0)
      if (wanted !== undefined) inode.resize(wanted)
      this.#files.set(path, inode)
      this.openFiles++
      done(undefined, this.#handle(inode))
    })
  }

  space(): { readonly freeBytes: number; readonly totalBytes: number } {
    let used = 0
    for (const inode of this.#files.values()) used += inode.cache.length
    return { freeBytes: this.capacityBytes - used, totalBytes: this.capacityBytes }
  }

  // --- What tests do to it.

  /**
   * Stops everything under way. `keepPercent` of the unsynced pages reach the platter: 100 is the end of the
   * process alone (the kernel keeps the page cache), less is the end of the host.
   */
  crash(keepPercent: number): void {
    this.#life++
    this.openFiles = 0
    this.#scheduler.clear()
    for (const inode of this.#files.values()) {
      for (const page of inode.dirty) {
        const start = page * PAGE
        if (!this.#random.chance(keepPercent)) continue
        inode.platter.set(inode.cache.subarray(start, start + PAGE), start)
      }
      inode.dirty.clear()
      inode.cold.clear()
      inode.cache.set(inode.platter)
    }
  }

  flipBit(path: string, position: number, bit: number): void {
    const inode = this.#existing(path)
    for (const bytes of [inode.cache, inode.platter]) {
      bytes[position] = (bytes[position] ?? 0) ^ (1 << bit)
    }
  }

  /** The page at `position` can't be read any more until it is written, or the returned function is called. */
  spoil(path: string, position: number): () => void {
    const inode = this.#existing(path)
    const page = Math.floor(position / PAGE)
    inode.bad.add(page)
    return () => inode.bad.delete(page)
  }

  /** Drops pages from the cache, so that they can't be read at once. */
  evict(path: string): void {
    const inode = this.#files.get(path)
    if (inode === undefined) return
    for (let page = 0; page * PAGE < inode.cache.length; page++) inode.cold.add(page)
  }

  bytesOf(path: string): Uint8Array | undefined {
    return this.#files.get(path)?.cache
  }

  paths(): string[] {
    return [...this.#files.keys()].sort()
  }

  #existing(path: string): Inode {
    const inode = this.#files.get(path)
    if (inode === undefined) throw new Error(`${path} does not exist`)
    return inode
  }

  #later(task: () => void): void {
    const life = this.#life
    this.#scheduler.after(this.#random.below(20) / 10, () => {
      if (life === this.#life) task()
    })
  }

  #fails(kind: 'write' | 'datasync' | 'read' | 'read-whole' | 'save'): DiskError | undefined {
    if (this.failNext !== kind) return undefined
    this.failNext = undefined
    return { kind: 'io', message: `${kind} failed` }
  }

  #handle(inode: Inode): DiskFile {
    const life = this.#life
    let open = true
    const alive = (): void => {
      if (!open || life !== this.#life) throw new Error('file is closed')
    }
    return {
      write: (buffers, position, done) => {
        alive()
        const error = this.#fails('write')
        const apply = (): void => put(inode, buffers, position)
        if (error === undefined && this.#random.chance(this.#immediatePercent)) {
          apply()
          return true
        }
        this.#later(() => {
          if (error === undefined) apply()
          done(error)
        })
        return false
      },
      tryReadVerified: (target, targetOffset, blockCount, position, crcs, crcIndex) => {
        alive()
        for (let page = position / PAGE; page < position / PAGE + blockCount; page++) {
          if (inode.cold.has(page) || inode.bad.has(page)) return -1
        }
        target.set(inode.cache.subarray(position, position + blockCount * PAGE), targetOffset)
        const found = new Uint32Array(blockCount)
        this.#checksum.crc32cBlocks(target, targetOffset, blockCount, found, 0)
        for (let i = 0; i < blockCount; i++) if (found[i] !== crcs[crcIndex + i]) return i
        return blockCount
      },
      read: (target, targetOffset, length, position, done) => {
        alive()
        const error = this.#fails('read')
        this.#later(() => {
          if (error !== undefined) return done(error)
          if (position + length > inode.cache.length) {
            return done({ kind: 'io', message: 'read behind the end of the file' })
          }
          for (let page = Math.floor(position / PAGE); page * PAGE < position + length; page++) {
            if (inode.bad.has(page)) return done({ kind: 'io', message: 'bad sector' })
          }
          target.set(inode.cache.subarray(position, position + length), targetOffset)
          for (let at = position; at < position + length; at += PAGE) inode.cold.delete(at / PAGE)
          done(undefined)
        })
      },
      datasync: (done) => {
        alive()
        const error = this.#fails('datasync')
        const pages = [...inode.dirty]
        this.#later(() => {
          if (error !== undefined) {
            // As Linux does: clean from now on, and never on the platter.
            for (const page of pages) inode.dirty.delete(page)
            return done(error)
          }
          for (const page of pages) {
            const start = page * PAGE
            inode.platter.set(inode.cache.subarray(start, start + PAGE), start)
            inode.dirty.delete(page)
          }
          done(undefined)
        })
      },
      punchHole: (position, length, done) => {
        alive()
        put(inode, [new Uint8Array(length)], position)
        this.#later(() => done(undefined))
      },
      close: () => {
        if (open && life === this.#life) this.openFiles--
        open = false
      },
    }
  }
}

function put(inode: Inode, buffers: readonly Uint8Array[], position: number): void {
  let at = position
  for (const buffer of buffers) {
    if (at + buffer.length > inode.cache.length) throw new Error('write behind the allocated end')
    inode.cache.set(buffer, at)
    at += buffer.length
  }
  for (let page = Math.floor(position / PAGE); page * PAGE < at; page++) {
    inode.dirty.add(page)
    inode.cold.delete(page)
    inode.bad.delete(page)
  }
}
