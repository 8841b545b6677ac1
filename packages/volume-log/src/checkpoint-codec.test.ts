import { epoch, lsn } from '@holdfast/base'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeCheckpoint, encodeHead, encodeTrailer } from './checkpoint-codec.ts'
import { Dedupe, RING, seqsOf, sessionEntry } from './dedupe.ts'
import { FilePieces } from './file-pieces.ts'
import { tableChecksum } from './testing/crc32c.ts'

const BLOCK = 4096

function throughFile(dedupe: Dedupe, at: number): { readonly dedupe: Dedupe; readonly headBytes: number } {
  const page = new Uint8Array(BLOCK).fill(9)
  const head = encodeHead({
    lsn: at,
    lastHeaderCrc: 1,
    sizeBytes: 2 ** 45,
    segmentBlocks: 1024,
    seed: 3,
    slots: [5, -1, 7],
    epochs: [{ epoch: epoch(1), firstLsn: lsn(0) }],
    sessions: dedupe.snapshot(at),
    pageNumbers: [2 ** 20 + 1],
    mappedBlocks: 17,
  })
  const before = [head, page]
  const crc = before.reduce((sum, bytes) => tableChecksum.crc32c(bytes, 0, bytes.length, sum), 0)
  const pieces = [...before, encodeTrailer(crc, head.length + BLOCK)]
  const checkpoint = decodeCheckpoint(new FilePieces(pieces), tableChecksum)
  if (checkpoint === undefined) throw new Error('the checkpoint is no good')
  expect([checkpoint.slots, checkpoint.pageNumbers, checkpoint.sizeBytes, checkpoint.bytes]).toEqual([
    [5, -1, 7],
    [2 ** 20 + 1],
    2 ** 45,
    head.length + 2 * BLOCK,
  ])
  expect(new Uint8Array(checkpoint.page(0).buffer)).toEqual(page)
  const loaded = new Dedupe()
  loaded.load(checkpoint.sessions, at)
  return { dedupe: loaded, headBytes: head.length }
}

describe('a checkpoint', () => {
  it.each([1, 8, 9, 64])('knows what %i sessions have done, and takes little room for many', (count) => {
    const dedupe = new Dedupe()
    const first = 2 ** 32 - 1030
    const seqs = [first, first + 2, ...Array.from({ length: 1020 }, (_, i) => first + 3 + i)]
    const last = first + 1022
    for (let session = 1; session <= count; session++) for (const seq of seqs) dedupe.note(session, seq, seq === last ? 20 : 10)
    // Each time: what was noted since the last snapshot must be in the next.
    const early = throughFile(dedupe, 10)
    const { dedupe: loaded, headBytes } = throughFile(dedupe, 20)
    expect(headBytes).toBeLessThanOrEqual(18 * BLOCK)
    for (let session = 1; session <= count; session++) {
      expect(early.dedupe.find(session, last - 1)).toBe(10)
      expect(early.dedupe.find(session, last)).toBe(-1)
      for (const seq of seqs) expect(loaded.find(session, seq)).toBe(20)
      expect(loaded.find(session, last + 1)).toBe(-1)
      expect(loaded.find(session, first + 1)).toBe(-1)
    }
    expect(loaded.find(count + 1, last)).toBe(-1)
  })
})

describe('the entry of a session', () => {
  it('has the numbers that were within a ring of the last one, wherever they begin', () => {
    const offsets = fc.uniqueArray(fc.nat(3 * RING), { minLength: 1, maxLength: 200 })
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 32 - 1 - 3 * RING }), offsets, (first, given) => {
        const seqs = given.map((offset) => first + offset)
        const entry = sessionEntry(5, seqs)
        const last = Math.max(...seqs)
        expect(entry?.last).toBe(last)
        expect(new Set(entry && seqsOf(entry))).toEqual(new Set(seqs.filter((seq) => last - seq < RING)))
      }),
    )
  })

  it('is undefined where there is none', () => {
    expect(sessionEntry(5, [])).toBeUndefined()
    expect(sessionEntry(5, [0, 0])).toBeUndefined()
  })
})
