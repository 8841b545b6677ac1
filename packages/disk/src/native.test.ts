import { spawnSync } from 'node:child_process'
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, truncateSync, watch, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { native } from '@holdfast/addon'
import { type Disk, type DiskFile, joinBytes } from '@holdfast/base'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { nativeChecksum, openDisk } from './index.ts'

let folder: string
let disk: Disk
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-disk-'))
  disk = openDisk(folder)
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

const open = (path: string, createBytes?: number, fill?: 'durably' | 'cached'): Promise<DiskFile> =>
  new Promise((resolve, reject) => {
    const options = createBytes === undefined ? {} : { createBytes, fill }
    disk.open(path, options, (error, file) => (file === undefined ? reject(error) : resolve(file)))
  })
const whole = (path: string): Uint8Array => {
  const pieces = disk.readWhole(path)
  if ('kind' in pieces) throw new Error(pieces.message)
  return joinBytes(pieces)
}
const pattern = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (i * 31 + seed) & 0xff)

describe('files', () => {
  it.each([8192, 1024 * 1024, 6 * 1024 * 1024])('read back what was written, %i bytes', async (length) => {
    const file = await open('x', 8 * 1024 * 1024)
    const bytes = pattern(length, 7)
    await new Promise<void>((resolve, reject) => {
      if (file.write([bytes.subarray(0, 100), bytes.subarray(100)], 4096, (e) => (e ? reject(e) : resolve()))) resolve()
    })
    const crcs = new Uint32Array(length / 4096)
    nativeChecksum.crc32cBlocks(bytes, 0, crcs.length, crcs, 0)
    const target = new Uint8Array(length)
    expect(file.tryReadVerified(target, 0, crcs.length, 4096, crcs, 0)).toBe(crcs.length)
    // Not toEqual: it looks at each byte by itself, for most of a minute.
    expect(Buffer.compare(target, bytes)).toBe(0)
    crcs[1] = (crcs[1] ?? 0) ^ 1
    expect(file.tryReadVerified(target, 0, crcs.length, 4096, crcs, 0)).toBe(1)
    await new Promise<void>((resolve, reject) => file.datasync((e) => (e ? reject(e) : resolve())))
    file.close()
  })

  describe('are read in pieces of several at once', () => {
    /** Of a file of 64 blocks, block i is full of `fill` + i. */
    const contents = (fill: number): Uint8Array => Uint8Array.from({ length: 64 * 4096 }, (_, i) => fill + Math.floor(i / 4096))
    const crcsOf = (bytes: Uint8Array): Uint32Array => {
      const crcs = new Uint32Array(bytes.length / 4096)
      nativeChecksum.crc32cBlocks(bytes, 0, crcs.length, crcs, 0)
      return crcs
    }
    let one: DiskFile
    let two: DiskFile
    beforeEach(async () => {
      one = await open('one', 64 * 4096)
      two = await open('two', 64 * 4096)
      one.write([contents(1)], 0, () => {})
      two.write([contents(101)], 0, () => {})
    })
    afterEach(() => {
      one.close()
      two.close()
    })
    interface Wanted {
      readonly file: DiskFile
      readonly block: number
      readonly blocks: number
      readonly to: number
    }
    const piecesOf = (wanted: readonly Wanted[]) => ({
      count: wanted.length,
      files: wanted.map(({ file }) => file),
      positions: Float64Array.from(wanted, ({ block }) => block * 4096),
      blockCounts: Uint32Array.from(wanted, ({ blocks }) => blocks),
      targetOffsets: Uint32Array.from(wanted, ({ to }) => to * 4096),
      crcs: Uint32Array.from(
        wanted.flatMap(({ file, block, blocks }) => [...crcsOf(contents(file === one ? 1 : 101)).subarray(block, block + blocks)]),
      ),
    })
    const fills = (target: Uint8Array): number[] =>
      Array.from({ length: target.length / 4096 }, (_, i) => {
        const block = target.subarray(i * 4096, (i + 1) * 4096)
        return block.every((byte) => byte === block[0]) ? (block[0] ?? -1) : -1
      })
    const three = (): ReturnType<typeof piecesOf> =>
      piecesOf([
        { file: one, block: 3, blocks: 2, to: 1 },
        { file: two, block: 0, blocks: 1, to: 0 },
        { file: one, block: 60, blocks: 3, to: 5 },
      ])

    it('each to its place, however many, and few after many', () => {
      const many = Array.from({ length: 256 }, (_, i) => ({ file: i % 3 === 0 ? two : one, block: (i * 37) % 64, blocks: 1, to: 255 - i }))
      const large = new Uint8Array(256 * 4096)
      expect(disk.tryReadPieces(piecesOf(many), large)).toBe(true)
      expect(fills(large)).toEqual(many.map(({ file, block }) => (file === one ? 1 : 101) + block).reverse())
      const target = new Uint8Array(9 * 4096)
      expect(disk.tryReadPieces(three(), target)).toBe(true)
      expect(fills(target)).toEqual([101, 4, 5, 0, 0, 61, 62, 63, 0])
      expect(disk.tryReadPieces({ ...three(), count: 0 }, target)).toBe(true)
    })

    it('or not, where one is not what its checksum says or lies behind the end', () => {
      const target = new Uint8Array(9 * 4096)
      for (const wrong of [0, 2, 5]) {
        const pieces = three()
        pieces.crcs[wrong] = (pieces.crcs[wrong] ?? 0) ^ 1
        expect(disk.tryReadPieces(pieces, target), `checksum ${wrong}`).toBe(false)
      }
      expect(disk.tryReadPieces({ ...three(), positions: Float64Array.of(3 * 4096, 0, 62 * 4096) }, target)).toBe(false)
    })

    it('or none at all where one of them can not be', () => {
      const target = new Uint8Array(9 * 4096)
      const refused = (change: Partial<ReturnType<typeof piecesOf>>, into = target): void => {
        expect(() => disk.tryReadPieces({ ...three(), ...change }, into), JSON.stringify(change)).toThrow(RangeError)
      }
      refused({ positions: Float64Array.of(3 * 4096, 0) })
      refused({ blockCounts: Uint32Array.of(2, 1) })
      refused({ targetOffsets: Uint32Array.of(4096, 0) })
      refused({ crcs: new Uint32Array(5) })
      refused({ targetOffsets: Uint32Array.of(4096, 0, 7 * 4096) })
      refused({ targetOffsets: Uint32Array.of(4096, 0, 2 ** 32 - 1) })
      refused({ blockCounts: Uint32Array.of(2, 1, 2 ** 32 - 1) })
      for (const position of [Number.NaN, -1, 1.5, 2 ** 53, Number.POSITIVE_INFINITY]) {
        refused({ positions: Float64Array.of(3 * 4096, 0, position) })
      }
      refused({}, new Uint8Array(4096))
      expect(target.every((byte) => byte === 0)).toBe(true)
    })
  })

  it('flush much that is dirty step by step, and say what a step says', async () => {
    const file = await open('x', 8 * 1024 * 1024)
    const bytes = pattern(200 * 1024, 5)
    const positions = [0, 7 * 1024 * 1024, 4096 * 300, 4096 * 700, 4096 * 900, 4096 * 1200]
    for (const position of positions) file.write([bytes], position, () => {})
    const flushed = (): Promise<void> => new Promise((resolve, reject) => file.datasync((e) => (e ? reject(e) : resolve())))
    await flushed()
    await flushed()
    for (const position of positions) {
      const target = new Uint8Array(bytes.length)
      await new Promise<void>((resolve, reject) => file.read(target, 0, target.length, position, (e) => (e ? reject(e) : resolve())))
      expect(Buffer.compare(target, bytes)).toBe(0)
    }
    file.close()

    // What has no range to begin: the first call says ESPIPE, where the second would say EINVAL.
    spawnSync('mkfifo', [join(folder, 'pipe')])
    const pipe = openSync(join(folder, 'pipe'), 'r+')
    const complaint = (length: number): Promise<unknown> => new Promise((resolve) => native.datasync(pipe, 0, length, resolve))
    expect(await complaint(4096)).toMatchObject({ code: 'ESPIPE' })
    expect(await complaint(0)).toMatchObject({ code: 'EINVAL' })
    closeSync(pipe)
  })

  it('keep what they hold when they are to be created and are there already, also under a spare name', async () => {
    const size = 1024 * 1024
    const bytes = pattern(4096, 3)
    const made = await open('x', size)
    made.write([bytes], 8192, () => {})
    made.close()
    const holds = async (file: DiskFile): Promise<void> => {
      const target = new Uint8Array(4096)
      await new Promise<void>((resolve, reject) => file.read(target, 0, 4096, 8192, (e) => (e ? reject(e) : resolve())))
      expect(target).toEqual(bytes)
      file.close()
    }
    await holds(await open('x', size, 'durably'))
    const recycled = await new Promise<DiskFile>((resolve, reject) => {
      const options = { createBytes: size, recycle: 'x' }
      disk.open('y', options, (error, file) => (file === undefined ? reject(error) : resolve(file)))
    })
    await holds(recycled)
    expect(disk.list('.')).toEqual(['y'])
    await expect(open('none')).rejects.toMatchObject({ kind: 'absent' })
  })

  it('are filled when asked for: no extent is left that is allocated only', async () => {
    const extents = async (path: string, fill?: 'durably' | 'cached'): Promise<string> => {
      const file = await open(path, 3 * 1024 * 1024 + 4096, fill)
      file.close()
      expect(whole(path).every((byte) => byte === 0)).toBe(true)
      const said = spawnSync('filefrag', ['-v', join(folder, path)], { encoding: 'utf8' })
      return said.status === 0 ? said.stdout : ''
    }
    const merelyAllocated = await extents('allocated')
    const filled = await extents('filled', 'durably')
    // Some filesystems have no such extents, some machines no filefrag.
    if (merelyAllocated.includes('unwritten')) expect(filled).not.toContain('unwritten')
    await extents('cached', 'cached')
  })

  it('get all their pages in the cache when asked for, and none before they are written otherwise', async () => {
    const size = 3 * 1024 * 1024 + 4096
    const cached = async (path: string, fill?: 'cached'): Promise<number> => {
      const file = await open(path, size, fill)
      file.close()
      const said = spawnSync('fincore', ['--bytes', '--noheadings', '--output', 'RES', join(folder, path)], { encoding: 'utf8' })
      return said.status === 0 ? Number(said.stdout) : Number.NaN
    }
    const merelyAllocated = await cached('allocated')
    const filled = await cached('filled', 'cached')
    // A filesystem in memory has all its pages at once, some machines have no fincore.
    if (merelyAllocated < size) expect(filled).toBe(size)
  })

  it('say that a read behind the end failed, and that a file is absent', async () => {
    const file = await open('x', 4096)
    const target = new Uint8Array(8192)
    const error = await new Promise((resolve) => file.read(target, 0, 8192, 0, resolve))
    expect(error).toMatchObject({ kind: 'io' })
    file.close()
    await expect(open('absent')).rejects.toMatchObject({ kind: 'absent' })
  })

  it('that are closed refuse what is asked of them: their descriptor may be another file\'s', async () => {
    const closed = await open('closed', 8192)
    closed.close()
    const other = await open('other', 8192)
    const ask = (begin: (done: (error: unknown) => void) => unknown): Promise<unknown> => new Promise((resolve) => begin(resolve))
    const refusal = { message: 'the file is closed' }
    expect(await ask((done) => closed.write([pattern(4096, 1)], 0, done))).toMatchObject(refusal)
    expect(await ask((done) => closed.read(new Uint8Array(4096), 0, 4096, 0, done))).toMatchObject(refusal)
    expect(await ask((done) => closed.punchHole(0, 4096, done))).toMatchObject(refusal)
    expect(await ask((done) => closed.datasync(done))).toMatchObject(refusal)
    const target = pattern(4096, 9)
    expect(await ask((done) => other.read(target, 0, 4096, 0, done))).toBeUndefined()
    expect(target.every((byte) => byte === 0)).toBe(true)
    other.close()
  })

  it('are plain arrays when read as a whole, whose slice is a copy', async () => {
    await new Promise<void>((resolve) => disk.writeAtomic('meta', [pattern(100, 1)], () => resolve()))
    const bytes = whole('meta')
    expect(bytes).toEqual(pattern(100, 1))
    const copy = bytes.slice(0, 10)
    bytes.fill(0)
    expect(copy).toEqual(pattern(10, 1))
  })

  it('are read whole in pieces where they are large, and say why where they can not be', () => {
    const size = 150 * 1024 * 1024 + 5
    writeFileSync(join(folder, 'large'), '')
    truncateSync(join(folder, 'large'), size)
    const pieces = disk.readWhole('large')
    if ('kind' in pieces) throw new Error(pieces.message)
    expect(pieces.length).toBeGreaterThan(2)
    expect(pieces.reduce((sum, piece) => sum + piece.length, 0)).toBe(size)
    expect(disk.sizeOf('large')).toBe(size)
    expect(disk.sizeOf('none')).toBe(0)
    expect(disk.readWhole('none')).toMatchObject({ kind: 'absent' })
    disk.makeDirectory('directory')
    expect(disk.readWhole('directory')).toMatchObject({ kind: 'io' })
  })

  it('have their name only once they are whole, and are tidied up after a process that ended before', async () => {
    const sizes = new Set<number>()
    const watcher = watch(folder, (_event, name) => {
      if (name === 'x' && existsSync(join(folder, 'x'))) sizes.add(disk.sizeOf('x'))
    })
    const file = await open('x', 3 * 1024 * 1024, 'durably')
    sizes.add(disk.sizeOf('x'))
    watcher.close()
    file.close()
    expect([...sizes]).toEqual([3 * 1024 * 1024])
    expect(disk.list('.')).toEqual(['x'])
    disk.makeDirectory('volumes/v')
    disk.makeDirectory('volumes/v/mounted')
    const kept = ['mounted', 'segment-000000000006', 'segment-000000000007.new-x', 'somebodys.new-2026-file']
    for (const name of kept.slice(1)) writeFileSync(join(folder, 'volumes/v', name), 'whole')
    for (const name of ['segment-000000000007.new-1-0', 'meta.new-99.2-3', 'mounted/ours.new-1-0']) writeFileSync(join(folder, 'volumes/v', name), 'half')
    // Somebody's filesystem may be mounted below the data directory: opening it looks at nothing but its own names.
    openDisk(folder).removeUnfinished('volumes/v')
    expect(disk.list('volumes/v')).toEqual(kept)
    expect(disk.list('volumes/v/mounted')).toEqual(['ours.new-1-0'])
    disk.removeUnfinished('volumes/none')
  })
})

describe('CRC32C', () => {
  it('gives the check value of the catalogue and continues from a seed', () => {
    const text = new TextEncoder().encode('123456789')
    expect(nativeChecksum.crc32c(text, 0, 9, 0)).toBe(0xe3069283)
    expect(nativeChecksum.crc32c(text, 4, 9, nativeChecksum.crc32c(text, 0, 4, 0))).toBe(0xe3069283)
  })

  it('is the same by every implementation, over any length, alignment and seed, in pieces and as a whole', () => {
    const kinds = native.crc32cKinds
    expect(kinds.at(-1)).toBe('table')
    const bytes = pattern(9000, 3)
    for (let i = 0; i < bytes.length; i++) bytes[i] = ((bytes[i] ?? 0) * 167 + (i >> 8) * 13) & 0xff
    const part = fc.record({
      start: fc.integer({ min: 0, max: 200 }),
      // Around the steps of 64 and 256 bytes, the least length that is folded, and a block.
      length: fc.oneof(fc.integer({ min: 0, max: 1100 }), fc.integer({ min: 4000, max: 8700 })),
      cut: fc.double({ min: 0, max: 1, noNaN: true }),
      seed: fc.integer({ min: 0, max: 0xffffffff }),
    })
    fc.assert(
      fc.property(part, ({ start, length, cut, seed }) => {
        const end = start + length
        const middle = start + Math.floor(length * cut)
        const right = native.crc32cBy(kinds.length - 1, bytes, start, end, seed)
        for (let kind = 0; kind < kinds.length; kind++) {
          expect(native.crc32cBy(kind, bytes, start, end, seed)).toBe(right)
          const first = native.crc32cBy(kind, bytes, start, middle, seed)
          expect(native.crc32cBy(kind, bytes, middle, end, first)).toBe(right)
        }
        expect(nativeChecksum.crc32c(bytes, start, end, seed)).toBe(right)
      }),
      { numRuns: 3_000 },
    )
  })
})

describe('the addon', () => {
  it('throws a TypeError or RangeError for bad arguments and never ends the process', () => {
    const odd = fc.oneof(
      fc.constantFrom(undefined, null, Number.NaN, -1, 1.5, 2 ** 53, 2 ** 31, 'x', {}, [], true),
      fc.constantFrom(new Uint8Array(3), new Uint32Array(2), new Float64Array(4), new ArrayBuffer(8)),
      fc.constantFrom([new Uint8Array(2), 5], [undefined], 10_000, () => {}),
    )
    // What the time is, nobody can ask wrongly.
    const functions = Object.entries(native).filter(([name, value]) => typeof value === 'function' && name !== 'millisecondsSinceBoot')
    expect(functions.length).toBe(24)
    const opens = ['netlinkSocket', 'unixSocket']
    let refused = 0
    fc.assert(
      fc.property(fc.constantFrom(...functions), fc.array(odd, { maxLength: 8 }), ([name, call], args) => {
        // A descriptor that is certainly not open, so that even good arguments touch nothing.
        const ofMany = name === 'tryReadPieces'
        const withFd = ofMany || name.startsWith('crc32c') || name === 'addressRest' || opens.includes(name) ? args : [1_000_000, ...args]
        try {
          const result = (call as (...all: unknown[]) => unknown)(...withFd)
          // Even an odd time limit may be one.
          if (opens.includes(name)) closeSync(result as number)
        } catch (error) {
          refused++
          const allowed = opens.includes(name) ? ['ENOENT', 'EINVAL', 'ECONNREFUSED', 'EDOM'] : ['EBADF']
          const system = error instanceof Error && 'code' in error && allowed.includes(String(error.code))
          expect(error instanceof TypeError || error instanceof RangeError || system).toBe(true)
        }
      }),
      { numRuns: 5_000 },
    )
    expect(refused).toBeGreaterThan(4_000)
  })

  it('checks the arguments of a read of many pieces, of the right kinds and of any contents', () => {
    const word = fc.constantFrom(0, 1, 2, 4096, 8192, 2 ** 31, 2 ** 32 - 1)
    const words = fc.array(word, { maxLength: 3 }).map((all) => Uint32Array.from(all))
    const fds = fc.array(fc.constantFrom(1_000_000, -1), { maxLength: 3 }).map((all) => Int32Array.from(all))
    const position = fc.constantFrom(Number.NaN, -1, 0, 1.5, 4096, 2 ** 53, Number.POSITIVE_INFINITY)
    const positions = fc.array(position, { maxLength: 3 }).map((all) => Float64Array.from(all))
    const outcomes = new Set<unknown>()
    fc.assert(
      fc.property(fc.nat(4), fds, positions, words, words, words, (count, descriptors, at, blocks, offsets, crcs) => {
        try {
          outcomes.add(native.tryReadPieces(count, new Uint8Array(8192), descriptors, at, blocks, offsets, crcs))
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError)
          outcomes.add('refused')
        }
      }),
      { numRuns: 5_000 },
    )
    expect([...outcomes].sort()).toEqual([false, 'refused', true])
  })
})
