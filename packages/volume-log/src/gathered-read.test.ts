import { BLOCK_BYTES, tryReadOneByOne } from '@holdfast/base'
import type { ReadPieces } from '@holdfast/base'
import { describe, expect, it, vi } from 'vitest'
import { BLOCK, Harness } from './testing/harness.ts'

const BLOCKS = 700

/** What `count` blocks from `first` on are full of. */
const fills = (first: number, count: number): number[] => Array.from({ length: count }, (_, i) => ((first + i) % 251) + 1)

/** Every block written by itself, in an order in which no two neighbours lie behind one another; each full of its own byte. */
function scattered(): Harness {
  const h = new Harness({ segmentBlocks: 64, sizeBlocks: BLOCKS + 100, seed: 5, immediatePercent: 100 }).open()
  for (const odd of [0, 1]) {
    for (let block = odd; block < BLOCKS; block += 2) h.write([block, ...fills(block, 1)])
  }
  h.commit()
  return h
}

function expectBlocks(target: Uint8Array, first: number, count: number): void {
  for (let i = 0; i < count; i++) {
    const fill = first + i < BLOCKS ? fills(first + i, 1)[0] : 0
    const block = target.subarray(i * BLOCK, (i + 1) * BLOCK)
    if (!block.every((byte) => byte === fill)) throw new Error(`block ${first + i} is not full of ${fill}`)
  }
}

/** Counts what the disk is asked, and answers. */
function watched(h: Harness): { readonly counts: number[]; readonly segments: Set<unknown> } {
  const counts: number[] = []
  const segments = new Set<unknown>()
  vi.spyOn(h.disk, 'tryReadPieces').mockImplementation((pieces: ReadPieces, target) => {
    counts.push(pieces.count)
    for (const file of pieces.files) segments.add(file)
    return tryReadOneByOne(pieces, target)
  })
  return { counts, segments }
}

describe('a read of blocks that lie scattered', () => {
  it('asks the disk once for as many as fit, of all their segments', () => {
    const h = scattered()
    const asked = watched(h)
    const target = new Uint8Array(BLOCKS * BLOCK).fill(255)
    expect(h.log.tryRead(0, target.length, target, 0)).toBe(true)
    expectBlocks(target, 0, BLOCKS)
    expect(asked.counts).toEqual([256, 256, BLOCKS - 512])
    expect(asked.segments.size).toBeGreaterThan(10)
  })

  it('has zeroes for what was never written, runs of any length, and both ends within a block', () => {
    const h = scattered()
    h.write([100, ...fills(100, 31)])
    for (let block = 200; block < 296; block += 24) h.write([block, ...fills(block, 24)])
    h.commit()
    const count = BLOCKS + 100
    const target = new Uint8Array(count * BLOCK).fill(255)
    expect(h.log.tryRead(0, target.length, target, 0)).toBe(true)
    expectBlocks(target, 0, count)
    const part = new Uint8Array(3 * BLOCK)
    expect(h.log.tryRead(90 * BLOCK + 100, 2 * BLOCK + 1000, part, 7)).toBe(true)
    expect([part[7], part[7 + BLOCK - 101], part[7 + BLOCK - 100], part[7 + 2 * BLOCK + 999]]).toEqual([91, 91, 92, 93])
    expect(part[7 + 2 * BLOCK + 1000]).toBe(0)
  })

  it('asks for each long run by itself', () => {
    const h = new Harness({ segmentBlocks: 1024, sizeBlocks: 1000, immediatePercent: 100 }).open()
    let next = 0
    for (const count of [1, 64, 1, 65, 3, 200, 1]) {
      h.write([next, ...fills(next, count)])
      next += count
    }
    h.commit()
    const asked = watched(h)
    const target = new Uint8Array(next * BLOCK)
    expect(h.log.tryRead(0, target.length, target, 0)).toBe(true)
    expectBlocks(target, 0, next)
    expect(asked.counts).toEqual([5])
    // The 200 begin at block 134, behind six headers.
    const segment = h.disk.paths().find((path) => path.includes('/segment-')) ?? ''
    h.disk.flipBit(segment, (134 + 6 + 150) * BLOCK, 1)
    expect(h.log.tryRead(0, target.length, target, 0)).toBe(false)
    const [error] = h.wait<[unknown]>((done) => h.log.read(0, target.length, target, 0, done))
    expect(error).toMatchObject({ kind: 'damaged', logicalBlock: 284, blockCount: 1 })
  })

  it('is not answered at once where a block is not in the page cache, and leaves nothing to the next', () => {
    const h = scattered()
    const asked = watched(h)
    const first = h.disk.paths().find((path) => path.includes('/segment-')) ?? ''
    const target = new Uint8Array(64 * BLOCK)
    h.disk.evict(first)
    expect(h.log.tryRead(0, target.length, target, 0)).toBe(false)
    expect(h.wait<[unknown]>((done) => h.log.read(0, target.length, target, 0, done))[0]).toBeUndefined()
    expectBlocks(target, 0, 64)
    asked.counts.length = 0
    expect(h.log.tryRead(300 * BLOCK, 20 * BLOCK, target, 0)).toBe(true)
    expectBlocks(target, 300, 20)
    expect(asked.counts).toEqual([20])
  })

  it('that ended in the middle leaves nothing to the next', () => {
    const h = scattered()
    const asked = watched(h)
    const target = new Uint8Array(64 * BLOCK)
    const read = (first: number, count: number): boolean => h.log.tryRead(first * BLOCK, count * BLOCK, target, 0)
    vi.mocked(h.disk.tryReadPieces).mockImplementationOnce(() => {
      throw new Error('a mistake')
    })
    expect(() => read(0, 64)).toThrow('a mistake')
    expect(read(300, 20)).toBe(true)
    expect(asked.counts).toEqual([20])
    asked.counts.length = 0
    // After a start the checksums of segments come as they are asked for: a read may miss those of its last one.
    const again = h.reopen()
    const other = watched(again)
    let missed = 0
    for (let first = 0; first + 20 <= BLOCKS; first += 20) {
      if (!again.log.tryRead(first * BLOCK, 20 * BLOCK, target, 0)) missed++
    }
    expect(missed).toBeGreaterThan(0)
    expect(again.wait<[unknown]>((done) => again.log.read(300 * BLOCK, 20 * BLOCK, target, 0, done))[0]).toBeUndefined()
    target.fill(255)
    other.counts.length = 0
    expect(again.log.tryRead(300 * BLOCK, 20 * BLOCK, target, 0)).toBe(true)
    expectBlocks(target, 300, 20)
    expect(other.counts).toEqual([20])
    expect(target.subarray(20 * BLOCK).every((byte) => byte === 255)).toBe(true)
    expect(asked.counts).toEqual([])
  })

  it('says which block is damaged', () => {
    const h = scattered()
    const first = h.disk.paths().find((path) => path.includes('/segment-')) ?? ''
    h.disk.flipBit(first, 11 * BLOCK_BYTES + 5, 3)
    const target = new Uint8Array(64 * BLOCK)
    expect(h.log.tryRead(0, target.length, target, 0)).toBe(false)
    const [error] = h.wait<[unknown]>((done) => h.log.read(0, target.length, target, 0, done))
    expect(error).toEqual({ kind: 'damaged', lsn: 11, logicalBlock: 10, blockCount: 1 })
  })
})
