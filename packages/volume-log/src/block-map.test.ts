import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { BlockMap, type BlockMapOptions, BUCKET_NUMBER, type MapSnapshot, PAGE_ENTRIES } from './block-map.ts'
import { ScatteredBlocks } from './scattered-blocks.ts'
import { WordPool } from './word-pool.ts'

const SEGMENT_BLOCKS = 1024
const ENTRIES = 50 * SEGMENT_BLOCKS
const wordPool = new WordPool(1 << 20)

type Step =
  | { readonly kind: 'set' | 'clear'; readonly block: number; readonly count: number; readonly entry: number }
  | { readonly kind: 'move'; readonly block: number; readonly entry: number; readonly hits: boolean }
  | { readonly kind: 'snapshot' | 'release' | 'reload' }
  /** So many more pages of the snapshot are in the file. */
  | { readonly kind: 'written'; readonly count: number }

const bytesOf = (words: Uint32Array | undefined): Uint8Array =>
  words === undefined ? new Uint8Array() : new Uint8Array(words.buffer, words.byteOffset, words.byteLength)

const same = (page: Uint32Array, other: Uint32Array | undefined): boolean => {
  return Buffer.compare(bytesOf(page), bytesOf(other)) === 0
}

/** A map beside the plainest thing that does the same. */
class Checked {
  map: BlockMap
  readonly expected = new Map<number, number>()
  readonly #options: BlockMapOptions
  #held: { readonly snapshot: MapSnapshot; readonly copies: readonly Uint32Array[]; written: number } | undefined

  constructor(options: BlockMapOptions) {
    this.#options = options
    this.map = new BlockMap(options)
  }

  take(step: Step): void {
    switch (step.kind) {
      case 'set':
        this.map.setRun(step.block, step.count, step.entry)
        for (let i = 0; i < step.count; i++) this.expected.set(step.block + i, step.entry + i)
        return
      case 'clear':
        this.map.clear(step.block, step.count)
        for (let i = 0; i < step.count; i++) this.expected.delete(step.block + i)
        return
      case 'move': {
        const old = this.expected.get(step.block) ?? 0
        this.map.moveIf(step.block, step.hits ? old : old + 1, step.entry)
        if (step.hits) this.expected.set(step.block, step.entry)
        return
      }
      case 'snapshot':
        this.release()
        this.hold()
        return
      case 'written':
        return this.#write(step.count)
      case 'release':
        return this.release()
      case 'reload': {
        this.release()
        const { numbers, pages } = this.map.snapshot()
        const loaded = new BlockMap(this.#options)
        numbers.forEach((number, i) => loaded.loadPage(number, (pages[i] as Uint32Array).slice()))
        this.release()
        this.map = loaded
      }
    }
  }

  hold(): void {
    const snapshot = this.map.snapshot()
    this.#held = { snapshot, copies: snapshot.pages.map((page) => page.slice()), written: 0 }
  }

  #write(count: number): void {
    const held = this.#held
    if (held === undefined) return
    this.#checkFrozen()
    const { snapshot, written } = held
    held.written = Math.min(written + count, snapshot.pages.length)
    this.map.written(snapshot, written, held.written)
  }

  /** What is not written yet is as it was. */
  #checkFrozen(): void {
    const { snapshot, copies = [], written = 0 } = this.#held ?? {}
    expect(snapshot?.pages.filter((page, i) => i >= written && !same(page, copies[i])) ?? []).toEqual([])
  }

  release(): void {
    this.#checkFrozen()
    this.#held = undefined
    this.map.release()
  }

  check(blocks: Iterable<number>): void {
    const { map, expected } = this
    const wrong = [...blocks, ...expected.keys()].filter((block) => map.get(block) !== (expected.get(block) ?? 0))
    expect(wrong).toEqual([])
    expect(map.mappedBlocks).toBe(expected.size)
    const live = new Uint32Array(map.live.length)
    for (const entry of expected.values()) live[Math.floor((entry - 1) / SEGMENT_BLOCKS)]!++
    expect(map.live).toEqual(live)
    this.release()
  }
}

describe('the block map', () => {
  // Pages that fill and empty, the edges of pages and regions, and blocks far from any other.
  const base = fc.constantFrom(0, 900, PAGE_ENTRIES * 70, 2 ** 31 - 40, 2 ** 32 - 40, 2 ** 34 - 2048)
  const near = fc.tuple(base, fc.nat(200)).map(([at, more]) => at + more)
  const far = fc.nat(2 ** 22).map((at) => at * 1021)
  const block = fc.oneof({ arbitrary: near, weight: 4 }, { arbitrary: far, weight: 2 })
  const count = fc.oneof(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 120 }))
  // A run lies in one segment.
  const entry = fc.tuple(fc.nat(49), fc.nat(900)).map(([slot, index]) => 1 + slot * SEGMENT_BLOCKS + index)
  const step = fc.oneof(
    { arbitrary: fc.record({ kind: fc.constant('set' as const), block, count, entry }), weight: 6 },
    { arbitrary: fc.record({ kind: fc.constant('clear' as const), block, count, entry }), weight: 2 },
    { arbitrary: fc.record({ kind: fc.constant('move' as const), block, entry, hits: fc.boolean() }), weight: 2 },
    { arbitrary: fc.record({ kind: fc.constantFrom('snapshot' as const, 'release' as const, 'reload' as const) }), weight: 1 },
    { arbitrary: fc.record({ kind: fc.constant('written' as const), count: fc.integer({ min: 1, max: 4 }) }), weight: 1 },
  )

  it.each([
    ['whole pages only', { wholePages: Number.POSITIVE_INFINITY }],
    ['few blocks of a page scattered', { wholePages: 0 }],
    ['some pages whole', { wholePages: 64 }],
    ['no room for more than a bucket of them', { wholePages: 0, depthMax: 0 }],
  ])('gives what was put there: %s', (_what, options) => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), fc.nat(), (steps, seed) => {
        const checked = new Checked({ segmentBlocks: SEGMENT_BLOCKS, wordPool, seed, ...options })
        const asked = new Set<number>()
        for (const one of steps) {
          checked.take(one)
          if ('block' in one) for (let i = -2; i < 130; i++) asked.add(Math.max(0, one.block + i))
        }
        checked.check(asked)
      }),
      { numRuns: 60 },
    )
  })

  it.each([[18], [3], [0]])('holds many scattered blocks, forgets them, and holds others (depth %i)', (depthMax) => {
    const checked = new Checked({ segmentBlocks: SEGMENT_BLOCKS, wordPool, seed: 9, wholePages: 0, depthMax })
    const blocks = Array.from({ length: 6_000 }, (_, i) => (i * 2_654_435_761) % 2 ** 33)
    blocks.forEach((at, i) => checked.take({ kind: 'set', block: at, count: 1, entry: 1 + (i % ENTRIES) }))
    checked.hold()
    blocks.forEach((at, i) => i % 3 !== 0 && checked.take({ kind: 'clear', block: at, count: 1, entry: 1 }))
    checked.check(blocks)
    checked.take({ kind: 'reload' })
    blocks.forEach((at, i) => checked.take({ kind: 'set', block: at + 1, count: 1, entry: 1 + ((i * 7) % ENTRIES) }))
    checked.check(blocks)
    checked.map.clear(0, 2 ** 33 + 1)
    checked.expected.clear()
    checked.check(blocks)
    expect(checked.map.snapshot().pages).toEqual([])
  })

  it('uses pages again that a snapshot held, once it is released', () => {
    const pool = new WordPool(1 << 20)
    const map = new BlockMap({ segmentBlocks: SEGMENT_BLOCKS, wordPool: pool, seed: 1, wholePages: 1 })
    const change = (entry: number): void => {
      map.setRun(0, 2, entry)
      map.setRun(PAGE_ENTRIES * 5, 1, entry + 2)
    }
    change(1)
    const { pages } = map.snapshot()
    change(11)
    expect(pool.bytes).toBe(0)
    map.release()
    expect(pool.bytes).toBe(4096)
    const next = map.snapshot()
    change(21)
    expect(pool.bytes).toBe(0)
    expect([next.pages[0]?.[0], next.pages[1]?.includes(13), next.pages[1]?.includes(23)]).toEqual([11, true, false])
    map.release()
    const [page, bucket] = map.snapshot().pages
    expect(page).toBe(pages[0])
    // Two buckets in turn.
    expect([pages[1]?.byteOffset, next.pages[1]?.byteOffset, bucket?.byteOffset]).toEqual([0, 4096, 0])
    expect([map.get(0), map.get(1), map.get(PAGE_ENTRIES * 5)]).toEqual([21, 22, 23])
  })

  it('changes in place what is written already, and copies what is not', () => {
    const pool = new WordPool(1 << 20)
    const map = new BlockMap({ segmentBlocks: SEGMENT_BLOCKS, wordPool: pool, seed: 1, wholePages: 2 })
    const blocks = [0, PAGE_ENTRIES, PAGE_ENTRIES * 5, 2 ** 32 + PAGE_ENTRIES * 5]
    const change = (entry: number): void => blocks.forEach((block, i) => map.setRun(block, 1, entry + i))
    change(1)
    const snapshot = map.snapshot()
    // A page, a page, and the only bucket of each of two tables.
    expect(snapshot.numbers).toEqual([0, 1, BUCKET_NUMBER, BUCKET_NUMBER + 1])
    map.written(snapshot, 0, 1)
    map.written(snapshot, 2, 3)
    change(11)
    const changed = snapshot.pages.map((page, i) => page.includes(11 + i))
    expect(changed).toEqual([true, false, true, false])
    map.release()
    expect(blocks.map((block) => map.get(block))).toEqual([11, 12, 13, 14])
    expect(pool.bytes).toBe(4096)
  })

  it('lets nothing be changed by what is written of a snapshot from before all was forgotten', () => {
    const map = new BlockMap({ segmentBlocks: SEGMENT_BLOCKS, wordPool, seed: 1, wholePages: 1 })
    const change = (entry: number): void => [0, PAGE_ENTRIES * 5].forEach((block) => map.setRun(block, 1, entry))
    change(1)
    const before = map.snapshot()
    map.reset()
    change(11)
    const after = map.snapshot()
    map.written(before, 0, 2)
    change(21)
    const holds = (entry: number) => (page: Uint32Array): boolean => page.includes(entry)
    expect([before.pages.every(holds(1)), after.pages.every(holds(11)), after.pages.some(holds(21))]).toEqual([true, true, false])
    map.written(after, 0, 2)
    map.release()
    expect([map.get(0), map.get(PAGE_ENTRIES * 5)]).toEqual([21, 21])
  })

  it('uses no page again that was still held when all was forgotten', () => {
    const pool = new WordPool(1 << 20)
    const map = new BlockMap({ segmentBlocks: SEGMENT_BLOCKS, wordPool: pool, seed: 1, wholePages: 1 })
    map.setRun(0, 2, 1)
    map.snapshot()
    map.setRun(0, 2, 11)
    map.reset()
    map.release()
    expect(pool.bytes).toBe(0)
  })

  it('takes the memory of what is mapped, not of the volume', () => {
    const map = new BlockMap({ segmentBlocks: SEGMENT_BLOCKS, wordPool, seed: 1, wholePages: 64 })
    const blocks = 20_000
    for (let i = 0; i < blocks; i++) map.setRun(i * 53_687, 1, 1 + (i % ENTRIES))
    const { pages, numbers } = map.snapshot()
    expect(numbers.filter((number) => number < BUCKET_NUMBER)).toEqual([0, 52])
    // Buckets are half full or more on average: 8 bytes of each block's own, and as many again.
    expect((pages.length * 4096) / blocks).toBeLessThan(20)
  })

  it('loads a page whose blocks find no room as a page', () => {
    const checked = new Checked({ segmentBlocks: SEGMENT_BLOCKS, wordPool, seed: 5, wholePages: 0, depthMax: 0 })
    for (let i = 0; i < 407; i++) checked.take({ kind: 'set', block: i * PAGE_ENTRIES, count: 1, entry: 1 + i })
    const page = new Uint32Array(PAGE_ENTRIES)
    for (let i = 0; i < 4; i++) {
      page[i * 3] = 5_000 + i
      checked.expected.set(500 * PAGE_ENTRIES + i * 3, 5_000 + i)
    }
    checked.map.loadPage(500, page)
    checked.check([])
  })

  it('makes a page of a run that is long enough at once', () => {
    const map = new BlockMap({ segmentBlocks: SEGMENT_BLOCKS, wordPool, seed: 1, wholePages: 0 })
    map.setRun(4_200, 256, 1)
    expect(map.snapshot().numbers).toEqual([4])
    expect(map.runs(4_199, 300, 10)).toMatchObject([{ hole: true }, { hole: false, lengthBytes: 256 * 4096 }, { hole: true }])
  })
})

describe('scattered blocks', () => {
  it('say that there is no room, and keep what they have', () => {
    const scattered = new ScatteredBlocks(3, 0)
    let held = 0
    while (scattered.put(held * 977, held + 1) === 0) held++
    expect(held).toBeGreaterThan(300)
    expect(scattered.size).toBe(held)
    for (let i = 0; i < held; i++) expect(scattered.get(i * 977)).toBe(i + 1)
    expect(scattered.put(0, 77)).toBe(1)
    expect(scattered.remove(0)).toBe(77)
    expect(scattered.put(held * 977, 5)).toBe(0)
  })

  it('need no more buckets for one snapshot after the other', () => {
    const scattered = new ScatteredBlocks(3)
    const put = (entry: number): void => {
      for (let i = 0; i < 5_000; i++) scattered.put(i * 977, entry)
    }
    put(1)
    const buffers = new Set<ArrayBufferLike>()
    for (let entry = 2; entry < 40; entry++) {
      const frozen = scattered.freeze()
      for (const { buffer } of frozen) buffers.add(buffer)
      put(entry)
      expect(frozen.every((bucket) => bucket.includes(entry - 1) && !bucket.includes(entry))).toBe(true)
      scattered.release()
    }
    expect(scattered.get(977)).toBe(39)
    // The first chunk, and what it had grown into for the copies.
    expect(buffers.size).toBeLessThanOrEqual(2)
  })

  it('are found in many chunks, and give back what the copies for a snapshot took', () => {
    const scattered = new ScatteredBlocks(3)
    const blocks = 200_000
    const put = (entry: number): void => {
      for (let i = 0; i < blocks; i++) scattered.put(i * 977, entry + (i % 7))
    }
    const rights = (entry: number): boolean => {
      for (let i = 0; i < blocks; i++) if (scattered.get(i * 977) !== entry + (i % 7)) return false
      return true
    }
    put(1)
    const bytes = scattered.bucketBytes
    expect(bytes).toBeGreaterThan(2 * 2 ** 20)
    for (const entry of [11, 21, 31]) {
      const frozen = scattered.freeze()
      scattered.thaw(0, frozen.length >> 1)
      const kept = frozen.slice(frozen.length >> 1).map((bucket) => [bucket, bucket.slice()] as const)
      put(entry)
      expect(kept.every(([bucket, copy]) => same(bucket, copy))).toBe(true)
      scattered.release()
      expect(rights(entry)).toBe(true)
    }
    // All of them copied once.
    scattered.freeze()
    put(41)
    scattered.release()
    const most = scattered.bucketBytes
    expect(most).toBeGreaterThan(1.5 * bytes)
    scattered.trim(100)
    expect([scattered.bucketBytes, rights(41)]).toEqual([most, true])
    // Not while somebody reads where it would be moved from.
    scattered.freeze()
    scattered.trim(1_000_000)
    scattered.release()
    expect(scattered.bucketBytes).toBe(most)
    // Others are put where it has been begun.
    scattered.trim(100)
    for (let i = 0; i < 20_000; i++) scattered.put(i * 977 + 1, 42)
    scattered.trim(1_000_000)
    expect(scattered.bucketBytes).toBeLessThanOrEqual(bytes + 2 ** 20)
    expect(rights(41)).toBe(true)
    const frozen = scattered.freeze()
    const copies = frozen.map((bucket) => bucket.slice())
    for (let i = 0; i < blocks; i++) scattered.put(i * 977 + 2, 51)
    expect(frozen.every((bucket, i) => same(bucket, copies[i]))).toBe(true)
    scattered.release()
    expect(rights(41)).toBe(true)
    for (let i = 0; i < blocks; i++) expect(scattered.get(i * 977 + 2)).toBe(51)
    for (let i = 0; i < 20_000; i++) expect(scattered.get(i * 977 + 1)).toBe(42)
  })

  it('give back a second chunk, of which the first has room for all', () => {
    const scattered = new ScatteredBlocks(3)
    const put = (entry: number): void => {
      for (let i = 0; i < 50_000; i++) scattered.put(i * 977, entry)
    }
    put(1)
    const bytes = scattered.bucketBytes
    expect(bytes).toBeLessThanOrEqual(2 ** 20)
    scattered.freeze()
    put(2)
    scattered.release()
    expect(scattered.bucketBytes).toBe(2 * 2 ** 20)
    scattered.trim(1_000_000)
    expect(scattered.bucketBytes).toBe(2 ** 20)
    put(3)
    for (let i = 0; i < 50_000; i++) expect(scattered.get(i * 977)).toBe(3)
  })

  it('leave what a snapshot holds alone when all of them are removed', () => {
    const scattered = new ScatteredBlocks(3)
    for (let i = 0; i < 600; i++) scattered.put(i * 977, i + 1)
    const frozen = scattered.freeze()
    const copies = frozen.map((bucket) => bucket.slice())
    for (let i = 0; i < 600; i++) scattered.remove(i * 977)
    for (let i = 0; i < 600; i++) scattered.put(i * 31, i + 1)
    scattered.thaw(0, frozen.length)
    scattered.release()
    expect(frozen.map((bucket) => bucket.slice())).toEqual(copies)
    expect(scattered.size).toBe(600)
    for (let i = 0; i < 600; i++) expect(scattered.get(i * 31)).toBe(i + 1)
  })
})
