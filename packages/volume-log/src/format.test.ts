/**
 * What logs of format 1 look like on the disk: kept byte for byte, so that data written by an older version can be read.
 * A change that breaks this needs a new format number and a way to open the old one, not a new golden file.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { deflateSync, inflateSync } from 'node:zlib'
import { epoch, sessionId } from '@holdfast/base'
import { describe, expect, it } from 'vitest'
import type { Batch } from './batch.ts'
import { BLOCK, Harness } from './testing/harness.ts'

const OPTIONS = { segmentBlocks: 16, sizeBlocks: 64 } as const
const SESSION = sessionId(7)

type Files = Readonly<Record<string, string>>

function filesOf(h: Harness): Files {
  const pack = (path: string): string => deflateSync(h.disk.bytesOf(path) ?? new Uint8Array()).toString('base64')
  return Object.fromEntries(h.disk.paths().map((path) => [path.slice(h.path.length + 1), pack(path)]))
}

function unpacked(files: Files): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(files).map(([name, packed]) => [name, inflateSync(Buffer.from(packed, 'base64')).toString('hex')]),
  )
}

function put(h: Harness, fill: (batch: Batch) => void): void {
  h.room()
  const batch = h.log.newBatch(16)
  fill(batch)
  h.log.seal(batch, h.epoch)
  h.wait<[]>((done) => {
    if (h.log.append(batch, () => done())) done()
  })
  batch.release()
}

function write(h: Harness, seq: number, block: number, ...fills: readonly number[]): void {
  put(h, (batch) => {
    const at = batch.addWrite(SESSION, seq, block, fills.length)
    fills.forEach((fill, i) => batch.buffer.fill(fill, at + i * BLOCK, at + (i + 1) * BLOCK))
  })
}

/** Two epochs, writes over writes, a zeroing, more size, a checkpoint in the middle, a pad at the end of a segment. */
function history(h: Harness): void {
  h.open()
  put(h, (batch) => batch.addEpoch(epoch(1)))
  write(h, 1, 0, 11, 12, 13)
  write(h, 2, 60, 14)
  write(h, 3, 1, 15)
  put(h, (batch) => batch.addZero(SESSION, 4, 2, 1))
  h.commit()
  h.flush()
  h.wait<[]>((done) => h.log.checkpointNow(() => done()))
  h.epoch = epoch(2)
  put(h, (batch) => batch.addEpoch(epoch(2)))
  write(h, 5, 8, 21, 22, 23, 24, 25, 26)
  put(h, (batch) => batch.addResize(80 * BLOCK))
  h.commit()
  write(h, 6, 70, 27)
  h.commit()
  h.flush()
  // On one copy only, perhaps: appended, not known to be committed.
  write(h, 7, 9, 28)
  h.close(false)
}

describe.each([
  ['log-v1', 'whole pages of the map', {}],
  // Checkpoints of version 2 (decision 23).
  ['log-v1-scattered', 'scattered blocks', { mapWholePages: 0 }],
] as const)('format 1 on the disk: %s, %s', (name, _what, settings) => {
  const file = new URL(`../../../test/golden/${name}.json`, import.meta.url)
  const golden = (): Files => JSON.parse(readFileSync(file, 'utf8')) as Files

  it('is what this version writes', () => {
    const h = new Harness({ ...OPTIONS, settings })
    history(h)
    if (process.env['HOLDFAST_WRITE_GOLDEN'] === name) writeFileSync(file, `${JSON.stringify(filesOf(h), null, 1)}\n`)
    expect(unpacked(filesOf(h))).toEqual(unpacked(golden()))
  })

  it.each([
    ['whole pages', {}],
    ['scattered blocks', { mapWholePages: 0 }],
  ])('is read by this version into %s', (_into, own) => {
    const h = new Harness({ ...OPTIONS, settings: own })
    for (const [path, packed] of Object.entries(golden())) {
      const bytes = inflateSync(Buffer.from(packed, 'base64'))
      h.wait<[unknown]>((done) => h.disk.writeAtomic(`${h.path}/${path}`, [bytes], done))
    }
    h.open()
    const { log } = h
    expect({ state: log.state, suspect: log.suspect, damage: h.report?.damage }).toEqual({ state: 'ok', suspect: false, damage: [] })
    expect(log.sizeBytes).toBe(80 * BLOCK)
    expect(log.epochTable).toEqual([
      { epoch: 1, firstLsn: 0 },
      { epoch: 2, firstLsn: 10 },
    ])
    h.commit()
    const fills = [0, 1, 2, 3, 8, 9, 10, 13, 60, 70].map((block) => h.fill(block))
    expect(fills).toEqual([11, 15, 0, 0, 21, 28, 23, 26, 14, 27])
    // What comes next goes on behind it.
    h.epoch = epoch(2)
    write(h, 8, 3, 31)
    h.commit()
    expect(h.fill(3)).toBe(31)
  })
})
