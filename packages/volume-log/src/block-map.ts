/**
 * Logical block → place in the log. Pages of 1,024 32-bit entries, made when first needed.
 *
 * An entry is 0 (unmapped: reads as zeroes) or 1 + slot * segmentBlocks + index; the segment set knows which
 * segment a slot stands for. Pages are copied on write while a checkpoint is being written.
 */
import type { BlockStatusExtent } from '@holdfast/base'
import { BLOCK_BYTES } from '@holdfast/base'

export const PAGE_ENTRIES = 1024

export interface MapSnapshot {
  /** Page numbers in rising order, and the pages themselves; immutable until `release`. */
  readonly numbers: readonly number[]
  readonly pages: readonly Uint32Array[]
  readonly mappedBlocks: number
}

export class BlockMap {
  #pages: (Uint32Array | undefined)[] = []
  #counts: number[] = []
  /** Pages that a snapshot holds and that must be copied before a change. */
  #frozen: Set<Uint32Array> | undefined
  #mapped = 0
  readonly #shift: number
  /** Live blocks per slot. */
  live = new Uint32Array(64)

  constructor(segmentBlocks: number) {
    this.#shift = Math.log2(segmentBlocks)
  }

  get mappedBlocks(): number {
    return this.#mapped
  }

  get(logicalBlock: number): number {
    // Volumes above 8 TiB have block numbers beyond 31 bits: no bit operations on them.
    const page = this.#pages[Math.floor(logicalBlock / PAGE_ENTRIES)]
    return page === undefined ? 0 : (page[logicalBlock % PAGE_ENTRIES] ?? 0)
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
      if (number >= this.#pages.length) return
      const start = block % PAGE_ENTRIES
      const count = Math.min(end - block, PAGE_ENTRIES - start)
      if (this.#pages[number] !== undefined) this.#clearInPage(number, start, count)
      block += count
    }
  }

  /** Runs of mapped and unmapped blocks from `first` on, `blockCount` blocks in all. */
  runs(first: number, blockCount: number, countMax: number): BlockStatusExtent[] {
    const extents: BlockStatusExtent[] = []
    const end = first + blockCount
    let block = first
    while (block < end && extents.length < countMax) {
      const start = block
      const hole = this.get(block) === 0
      while (block < end && (this.get(block) === 0) === hole) {
        const whole = this.#pages[Math.floor(block / PAGE_ENTRIES)] === undefined
        // A page that does not exist is a hole as a whole.
        block = whole ? (Math.floor(block / PAGE_ENTRIES) + 1) * PAGE_ENTRIES : block + 1
      }
      block = Math.min(block, end)
      extents.push({ lengthBytes: (block - start) * BLOCK_BYTES, hole })
    }
    return extents
  }

  /** Freezes the present contents. One at a time; ends with `release`. */
  snapshot(): MapSnapshot {
    const numbers: number[] = []
    const pages: Uint32Array[] = []
    this.#pages.forEach((page, number) => {
      if (page === undefined) return
      numbers.push(number)
      pages.push(page)
    })
    this.#frozen = new Set(pages)
    return { numbers, pages, mappedBlocks: this.#mapped }
  }

  release(): void {
    this.#frozen = undefined
  }

  /** Takes a page of a checkpoint; counts are brought up by it. */
  loadPage(number: number, page: Uint32Array): void {
    let count = 0
    for (let i = 0; i < PAGE_ENTRIES; i++) {
      const entry = page[i] ?? 0
      if (entry === 0) continue
      count++
      this.#addLive((entry - 1) >>> this.#shift, 1)
    }
    if (count === 0) return
    while (this.#pages.length <= number) {
      this.#pages.push(undefined)
      this.#counts.push(0)
    }
    this.#pages[number] = page
    this.#counts[number] = count
    this.#mapped += count
  }

  reset(): void {
    this.#pages = []
    this.#counts = []
    this.#frozen = undefined
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

  /** The page, fit to be changed. */
  #writable(number: number): Uint32Array {
    while (this.#pages.length <= number) {
      this.#pages.push(undefined)
      this.#counts.push(0)
    }
    let page = this.#pages[number]
    if (page === undefined) {
      page = new Uint32Array(PAGE_ENTRIES)
      this.#pages[number] = page
    } else if (this.#frozen?.has(page) === true) {
      page = page.slice()
      this.#pages[number] = page
    }
    return page
  }

  #setInPage(number: number, start: number, count: number, entry: number): void {
    const page = this.#writable(number)
    const shift = this.#shift
    this.#addLive((entry - 1) >>> shift, count)
    const live = this.live
    let fresh = 0
    for (let i = 0; i < count; i++) {
      const old = page[start + i] ?? 0
      if (old === 0) fresh++
      else live[(old - 1) >>> shift] = (live[(old - 1) >>> shift] ?? 0) - 1
      page[start + i] = entry + i
    }
    this.#counts[number] = (this.#counts[number] ?? 0) + fresh
    this.#mapped += fresh
  }

  #clearInPage(number: number, start: number, count: number): void {
    const page = this.#writable(number)
    const shift = this.#shift
    const live = this.live
    let gone = 0
    for (let i = start; i < start + count; i++) {
      const old = page[i] ?? 0
      if (old === 0) continue
      live[(old - 1) >>> shift] = (live[(old - 1) >>> shift] ?? 0) - 1
      page[i] = 0
      gone++
    }
    const left = (this.#counts[number] ?? 0) - gone
    this.#counts[number] = left
    this.#mapped -= gone
    if (left === 0) this.#pages[number] = undefined
  }
}
