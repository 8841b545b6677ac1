/**
 * Logical block → place in the log. Pages of 1,024 32-bit entries, made when first needed; of a page with few blocks
 * the entries lie among the scattered ones (decision 23).
 *
 * An entry is 0 (unmapped: reads as zeroes) or 1 + slot * segmentBlocks + index; the segment set knows which
 * segment a slot stands for. Pages are copied on write from the moment that a checkpoint begins until it has written them.
 *
 * Invariant: a page's entries are all in the page or all scattered, and its group counts them.
 */
import type { BlockStatusExtent } from '@holdfast/base'
import { assert, BLOCK_BYTES } from '@holdfast/base'
import { ScatteredBlocks } from './scattered-blocks.ts'
import type { WordPool } from './word-pool.ts'

export const PAGE_ENTRIES = 1024
/** Pages of a group: what a huge volume has no block in costs a word for 1 GiB of it. */
const GROUP_PAGES = 256
/** Blocks up to which a page is not worth its memory. */
const SCATTERED_MAX = 64
/** A bucket of scattered blocks keys them by their lower 32 bits. */
const REGION_BLOCKS = 2 ** 32
/** Buckets of a region that are moved at once, which takes a few ms. */
const TRIMMED_BUCKETS = 1024
/** In a snapshot a bucket of region `r` has the number of this plus `r`: no page of a volume comes up to it. */
export const BUCKET_NUMBER = 2 ** 40

export interface MapSnapshot {
  /**
   * Page numbers in rising order, and the pages themselves; each immutable until it is `written`, or `release`. Buckets
   * come behind the pages.
   */
  readonly numbers: readonly number[]
  readonly pages: readonly Uint32Array[]
  readonly mappedBlocks: number
}

export interface BlockMapOptions {
  readonly segmentBlocks: number
  /** Pages below are never scattered: a volume that small gains nothing by it. */
  readonly wholePages: number
  /** Of the hash: something that clients can hardly choose their blocks by. */
  readonly seed: number
  readonly wordPool: WordPool
  /** Of the tables of scattered blocks; theirs by default. */
  readonly depthMax?: number | undefined
}

interface Group {
  /** None as long as all blocks are scattered: a look at an empty list is one wait for memory more. */
  pages: (Uint32Array | undefined)[] | undefined
  /** Mapped blocks by page. */
  readonly counts: Uint16Array
  /** Pages that are there. */
  pageCount: number
}

export class BlockMap {
  #groups: (Group | undefined)[] = []
  #regions: ScatteredBlocks[] = []
  /** As long as there is one. */
  #snapshot: MapSnapshot | undefined
  /** Pages that the snapshot doesn't hold, or that are written already: all others must be copied before a change. */
  #thawed = new Set<Uint32Array>()
  /** Those that a changed copy has taken the place of: nobody's once the snapshot is released. */
  #replaced: Uint32Array[] = []
  /** Tables of scattered blocks in a snapshot, and where in its pages the buckets of each begin. */
  #heldBuckets: { readonly region: ScatteredBlocks; readonly first: number }[] = []
  #mapped = 0
  readonly #shift: number
  readonly #options: BlockMapOptions
  /** Live blocks per slot. */
  live = new Uint32Array(64)

  constructor(options: BlockMapOptions) {
    this.#shift = Math.log2(options.segmentBlocks)
    this.#options = options
  }

  get mappedBlocks(): number {
    return this.#mapped
  }

  get(logicalBlock: number): number {
    // Volumes above 8 TiB have block numbers beyond 31 bits: no bit operations on them.
    const number = Math.floor(logicalBlock / PAGE_ENTRIES)
    const group = this.#groups[Math.floor(number / GROUP_PAGES)]
    if (group === undefined) return 0
    const page = group.pages?.[number % GROUP_PAGES]
    if (page !== undefined) return page[logicalBlock % PAGE_ENTRIES] as number
    return this.#regions[Math.floor(logicalBlock / REGION_BLOCKS)]?.get(inRegion(logicalBlock)) ?? 0
  }

  /** Maps `blockCount` blocks to consecutive entries from `entry` on. */
  setRun(logicalBlock: number, blockCount: number, entry: number): void {
    let block = logicalBlock
    let next = entry
    let left = blockCount
    while (left > 0) {
      const number = Math.floor(block / PAGE_ENTRIES)
      const start = block % PAGE_ENTRIES
      const count = Math.min(left, PAGE_ENTRIES - start)
      this.#setInPage(number, start, count, next)
      block += count
      next += count
      left -= count
    }
  }

  /** Maps one block anew only if it still points at `oldEntry`. */
  moveIf(logicalBlock: number, oldEntry: number, newEntry: number): void {
    if (this.get(logicalBlock) === oldEntry) this.setRun(logicalBlock, 1, newEntry)
  }

  /** Unmaps a range; costs only what is mapped. */
  clear(logicalBlock: number, blockCount: number): void {
    const end = logicalBlock + blockCount
    let block = logicalBlock
    while (block < end) {
      const number = Math.floor(block / PAGE_ENTRIES)
      const start = block % PAGE_ENTRIES
      const count = Math.min(end - block, PAGE_ENTRIES - start)
      const mapped = this.#countOf(number)
      if (mapped > 0) this.#clearInPage(number, start, count)
      block = mapped > 0 ? block + count : this.#nextPage(number)
    }
  }

  /** Runs of mapped and unmapped blocks from `first` on, `blockCount` blocks in all. */
  runs(first: number, blockCount: number, countMax: number): BlockStatusExtent[] {
    const extents: BlockStatusExtent[] = []
    const end = first + blockCount
    let block = first
    while (block < end && extents.length < countMax) {
      const start = block
      const hole = this.#isHole(block)
      while (block < end && this.#isHole(block) === hole) {
        const number = Math.floor(block / PAGE_ENTRIES)
        // A page without a block is a hole as a whole.
        block = hole && this.#countOf(number) === 0 ? this.#nextPage(number) : block + 1
      }
      block = Math.min(block, end)
      extents.push({ lengthBytes: (block - start) * BLOCK_BYTES, hole })
    }
    return extents
  }

  /** Freezes the present contents. One at a time; ends with `release`. */
  snapshot(): MapSnapshot {
    assert(this.#snapshot === undefined, 'a second snapshot of the map', { mapped: this.#mapped })
    const numbers: number[] = []
    const pages: Uint32Array[] = []
    this.#heldBuckets = []
    this.#groups.forEach((group, at) => {
      if (group === undefined || group.pageCount === 0) return
      group.pages?.forEach((page, i) => {
        if (page === undefined) return
        numbers.push(at * GROUP_PAGES + i)
        pages.push(page)
      })
    })
    this.#regions.forEach((region, at) => {
      this.#heldBuckets.push({ region, first: pages.length })
      for (const bucket of region.freeze()) {
        numbers.push(BUCKET_NUMBER + at)
        pages.push(bucket)
      }
    })
    this.#snapshot = { numbers, pages, mappedBlocks: this.#mapped }
    return this.#snapshot
  }

  /** The snapshot's pages `first` to `end - 1` are in a file: whoever changes them need not copy them. None of one from before `reset`. */
  written(snapshot: MapSnapshot, first: number, end: number): void {
    if (snapshot !== this.#snapshot) return
    const { pages } = snapshot
    const pagesEnd = Math.min(end, this.#heldBuckets[0]?.first ?? end)
    for (let i = first; i < pagesEnd; i++) this.#thawed.add(pages[i] as Uint32Array)
    this.#heldBuckets.forEach(({ region, first: start }, at) => {
      const behind = this.#heldBuckets[at + 1]?.first ?? pages.length
      region.thaw(Math.max(first, start) - start, Math.min(end, behind) - start)
    })
  }

  release(): void {
    this.#snapshot = undefined
    this.#thawed.clear()
    for (const { region } of this.#heldBuckets.splice(0)) region.release()
    for (const page of this.#replaced.splice(0)) this.#options.wordPool.give(page)
  }

  /** Gives back memory that copies for checkpoints took, a bounded piece at a time: call it again while nothing is changed. */
  trim(): void {
    for (const region of this.#regions) region.trim(TRIMMED_BUCKETS)
  }

  /** Takes a page, or a bucket, of a checkpoint; counts are brought up by it. */
  loadPage(number: number, page: Uint32Array): void {
    if (number >= BUCKET_NUMBER) return this.#loadBucket(number - BUCKET_NUMBER, page)
    let count = 0
    for (let i = 0; i < PAGE_ENTRIES; i++) if (page[i] !== 0) count++
    const scattered = number >= this.#options.wholePages && count <= SCATTERED_MAX
    for (let i = 0; i < PAGE_ENTRIES; i++) {
      const entry = page[i] as number
      if (entry === 0) continue
      // The page comes into being on the way where there is no room for all.
      if (scattered) this.#setInPage(number, i, 1, entry)
      else this.#addLive((entry - 1) >>> this.#shift, 1)
    }
    if (scattered || count === 0) return
    this.#putPage(number, page)
    this.#addCount(number, count)
  }

  #loadBucket(region: number, bucket: Uint32Array): void {
    for (let i = 0; i < PAGE_ENTRIES; i += 2) {
      const entry = bucket[i + 1] as number
      if (entry > 0) this.setRun(region * REGION_BLOCKS + (bucket[i] as number), 1, entry)
    }
  }

  reset(): void {
    this.#groups = []
    this.#regions = []
    this.#snapshot = undefined
    this.#thawed.clear()
    // It may still be read.
    this.#replaced = []
    this.#heldBuckets = []
    this.#mapped = 0
    this.live = new Uint32Array(64)
  }

  #addLive(slot: number, count: number): void {
    if (slot >= this.live.length) {
      const grown = new Uint32Array(Math.max(slot + 1, this.live.length * 2))
      grown.set(this.live)
      this.live = grown
    }
    this.live[slot] = (this.live[slot] ?? 0) + count
  }

  /** Asks what counts the page's blocks first: a hole is seldom alone, and a search for nothing is as dear as any. */
  #isHole(block: number): boolean {
    return this.#countOf(Math.floor(block / PAGE_ENTRIES)) === 0 || this.get(block) === 0
  }

  #countOf(number: number): number {
    return this.#groups[Math.floor(number / GROUP_PAGES)]?.counts[number % GROUP_PAGES] ?? 0
  }

  #pageOf(number: number): Uint32Array | undefined {
    return this.#groups[Math.floor(number / GROUP_PAGES)]?.pages?.[number % GROUP_PAGES]
  }

  /** First block of the next page that may have any. */
  #nextPage(number: number): number {
    const at = Math.floor(number / GROUP_PAGES)
    const next = this.#groups[at] === undefined ? (at + 1) * GROUP_PAGES : number + 1
    return next * PAGE_ENTRIES
  }

  #groupOf(number: number): Group {
    const at = Math.floor(number / GROUP_PAGES)
    // Never an array with holes, which would be slower.
    while (this.#groups.length <= at) this.#groups.push(undefined)
    return (this.#groups[at] ??= {
      pages: undefined,
      counts: new Uint16Array(GROUP_PAGES),
      pageCount: 0,
    })
  }

  #addCount(number: number, change: number): void {
    const { counts } = this.#groupOf(number)
    counts[number % GROUP_PAGES] = (counts[number % GROUP_PAGES] as number) + change
    this.#mapped += change
  }

  #putPage(number: number, page: Uint32Array | undefined): void {
    const group = this.#groupOf(number)
    group.pages ??= Array.from({ length: GROUP_PAGES }, () => undefined)
    if (group.pages[number % GROUP_PAGES] === undefined) group.pageCount++
    if (page === undefined) group.pageCount--
    group.pages[number % GROUP_PAGES] = page
    if (group.pageCount === 0) group.pages = undefined
  }

  #region(logicalBlock: number): ScatteredBlocks {
    const at = Math.floor(logicalBlock / REGION_BLOCKS)
    while (this.#regions.length <= at) this.#regions.push(this.#emptyRegion())
    return this.#regions[at] as ScatteredBlocks
  }

  #emptyRegion(): ScatteredBlocks {
    const { seed, depthMax } = this.#options
    return new ScatteredBlocks(seed, depthMax)
  }

  /** Returns the scattered block's entry, or 0. The last one takes its table along, which a snapshot may still hold. */
  #unscatter(block: number): number {
    const region = this.#region(block)
    const entry = region.remove(inRegion(block))
    if (entry > 0 && region.size === 0) this.#regions[Math.floor(block / REGION_BLOCKS)] = this.#emptyRegion()
    return entry
  }

  /** The page, fit to be changed; its blocks are scattered no more. */
  #writable(number: number): Uint32Array {
    const page = this.#pageOf(number)
    if (page !== undefined && (this.#snapshot === undefined || this.#thawed.has(page))) return page
    if (page !== undefined) this.#replaced.push(page)
    const own = page === undefined ? this.#gathered(number) : this.#options.wordPool.copy(page)
    if (this.#snapshot !== undefined) this.#thawed.add(own)
    this.#putPage(number, own)
    return own
  }

  #gathered(number: number): Uint32Array {
    const page = this.#options.wordPool.take(PAGE_ENTRIES)
    const first = number * PAGE_ENTRIES
    let left = this.#countOf(number)
    for (let i = 0; left > 0; i++) {
      assert(i < PAGE_ENTRIES, 'a page has fewer scattered blocks than are counted', { number })
      const entry = this.#unscatter(first + i)
      if (entry === 0) continue
      page[i] = entry
      left--
    }
    return page
  }

  #setInPage(number: number, start: number, count: number, entry: number): void {
    const scattered = this.#pageOf(number) === undefined && number >= this.#options.wholePages
    if (scattered && this.#countOf(number) + count <= SCATTERED_MAX) {
      this.#scatter(number, start, count, entry)
      return
    }
    const page = this.#writable(number)
    this.#addLive((entry - 1) >>> this.#shift, count)
    let fresh = 0
    for (let i = 0; i < count; i++) {
      const old = page[start + i] as number
      if (old === 0) fresh++
      else this.#lost(old)
      page[start + i] = entry + i
    }
    this.#addCount(number, fresh)
  }

  #scatter(number: number, start: number, count: number, entry: number): void {
    const block = number * PAGE_ENTRIES + start
    const region = this.#region(block)
    for (let i = 0; i < count; i++) {
      const old = region.put(inRegion(block + i), entry + i)
      // No room: the page is made after all.
      if (old < 0) {
        const page = this.#writable(number)
        assert(page[start + i] === 0, 'there was room for a block that is scattered', { number })
        page[start + i] = entry + i
      }
      this.#addLive((entry + i - 1) >>> this.#shift, 1)
      if (old > 0) this.#lost(old)
      else this.#addCount(number, 1)
      if (old < 0) return this.#setInPage(number, start + i + 1, count - i - 1, entry + i + 1)
    }
  }

  #clearInPage(number: number, start: number, count: number): void {
    const before = this.#countOf(number)
    const page = this.#pageOf(number) === undefined ? undefined : this.#writable(number)
    const block = number * PAGE_ENTRIES + start
    let gone = 0
    for (let i = 0; i < count && gone < before; i++) {
      const old = page === undefined ? this.#unscatter(block + i) : (page[start + i] as number)
      if (old === 0) continue
      if (page !== undefined) page[start + i] = 0
      this.#lost(old)
      gone++
    }
    this.#addCount(number, -gone)
    if (page !== undefined && gone === before) this.#putPage(number, undefined)
  }

  #lost(entry: number): void {
    const slot = (entry - 1) >>> this.#shift
    this.live[slot] = (this.live[slot] ?? 0) - 1
  }
}

/** The lower 32 bits of a block number, which may have more. */
function inRegion(block: number): number {
  return block >>> 0
}
