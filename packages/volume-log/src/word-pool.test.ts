import { volumeId } from '@holdfast/base'
import { describe, expect, it } from 'vitest'
import { BatchPool } from './batch.ts'
import { CrcCache } from './crc-cache.ts'
import { Geometry } from './geometry.ts'
import { type Segment, SegmentSet } from './segment-set.ts'
import { SummaryCache } from './summary-cache.ts'
import { ManualScheduler } from './testing/manual-scheduler.ts'
import { MemoryDisk } from './testing/memory-disk.ts'
import { defaultSettings } from './types.ts'
import { WordPool } from './word-pool.ts'

describe('arrays that were given up', () => {
  it('come back as zeroes, or as a copy', () => {
    const pool = new WordPool(1000)
    const given = pool.take(4).fill(7)
    pool.give(given)
    expect(pool.bytes).toBe(16)
    expect(pool.take(3)).not.toBe(given)
    expect(pool.take(4)).toBe(given)
    expect([...given]).toEqual([0, 0, 0, 0])
    pool.give(given)
    expect(pool.copy(Uint32Array.of(1, 2, 3, 4))).toBe(given)
    expect([...given]).toEqual([1, 2, 3, 4])
    expect(pool.bytes).toBe(0)
    expect([...pool.copy(given)]).toEqual([1, 2, 3, 4])
    expect(pool.copy(given)).not.toBe(given)
  })

  it('take no more memory than they may', () => {
    const pool = new WordPool(3 * 16)
    for (let i = 0; i < 5; i++) pool.give(new Uint32Array(4))
    expect(pool.bytes).toBe(3 * 16)
  })

  it('make room for those of another length', () => {
    const pool = new WordPool(3 * 16)
    for (let i = 0; i < 3; i++) pool.give(new Uint32Array(4))
    const given = new Uint32Array(8)
    pool.give(given)
    expect(pool.bytes).toBe(3 * 16)
    expect(pool.take(8)).toBe(given)
    expect(pool.bytes).toBe(16)
    pool.give(new Uint32Array(13))
    expect(pool.bytes, 'what has no room itself makes none').toBe(16)
    pool.give(given)
    pool.give(new Uint32Array(8))
    expect(pool.bytes).toBe(3 * 16)
  })
})

describe('the tables of a segment', () => {
  const SEGMENT_BLOCKS = 64

  function prepared() {
    const scheduler = new ManualScheduler()
    const disk = new MemoryDisk({ scheduler, seed: 1, immediatePercent: 100 })
    const geometry = new Geometry(SEGMENT_BLOCKS, volumeId('00112233445566aa'), 'volumes/00112233445566aa')
    const wordPool = new WordPool(1 << 20)
    const batchPool = new BatchPool((bytes) => new Uint8Array(bytes))
    const memory = { crcCache: new CrcCache(1 << 20), summaryCache: new SummaryCache(1 << 20), wordPool, batchPool }
    const segments = new SegmentSet(disk, geometry, memory, defaultSettings)
    const fresh = (number: number): Segment => {
      let made: Segment | undefined
      segments.create(number, { useReserve: false, fill: undefined }, (_error, segment) => {
        made = segment
      })
      scheduler.run(() => made !== undefined)
      if (made === undefined) throw new Error('no segment')
      segments.freshTables(made)
      return made
    }
    return { wordPool, segments, fresh }
  }

  it('are those of another one after it was freed, with nothing in them', () => {
    const { wordPool, segments, fresh } = prepared()
    const first = fresh(0)
    const tables = [first.crcs, first.summary]
    for (const table of tables) table?.fill(9)
    segments.free(first, true)
    expect([first.crcs, first.summary]).toEqual([undefined, undefined])
    expect(wordPool.bytes).toBe(2 * SEGMENT_BLOCKS * 4)
    const second = fresh(1)
    expect(wordPool.bytes).toBe(0)
    expect(tables.every((table) => table === second.crcs || table === second.summary)).toBe(true)
    expect(tables).toEqual([new Uint32Array(SEGMENT_BLOCKS), new Uint32Array(SEGMENT_BLOCKS)])
  })

  it('are nobody else\'s while a read of it is under way, nor behind that', () => {
    const { wordPool, segments, fresh } = prepared()
    const segment = fresh(0)
    const { crcs } = segment
    segments.retain(segment)
    segments.free(segment, true)
    expect(fresh(1).crcs).not.toBe(crcs)
    segments.release(segment)
    expect(wordPool.bytes).toBe(0)
  })
})
