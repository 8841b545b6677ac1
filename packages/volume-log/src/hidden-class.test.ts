/** Compiled code outlives the first flush, checkpoint and soft checkpoint of a log (`WIDE`). */
import { setFlagsFromString } from 'node:v8'
import { volumeId } from '@holdfast/base'
import { expect, it } from 'vitest'
import { BatchPool } from './batch.ts'
import { CrcCache } from './crc-cache.ts'
import { SummaryCache } from './summary-cache.ts'
import { WordPool } from './word-pool.ts'
import { HeaderView } from './header-codec.ts'
import { LogCore } from './log-core.ts'
import { newMeta } from './meta.ts'
import { tableChecksum } from './testing/crc32c.ts'
import { ManualScheduler } from './testing/manual-scheduler.ts'
import { MemoryDisk } from './testing/memory-disk.ts'

setFlagsFromString('--allow-natives-syntax')
const sameHiddenClass = new Function('a', 'b', 'return %HaveSameMap(a, b)') as (a: object, b: object) => boolean
setFlagsFromString('--no-allow-natives-syntax')

function core(): LogCore {
  const scheduler = new ManualScheduler()
  const options = {
    disk: new MemoryDisk({ scheduler, seed: 1, immediatePercent: 100 }),
    checksum: tableChecksum,
    scheduler,
    events: { event: () => undefined },
    path: 'volumes/00112233445566aa',
    volume: volumeId('00112233445566aa'),
    segmentBlocks: 8,
    sizeBytes: 4096,
    bootId: 'boot-1',
    crcCache: new CrcCache(1 << 20),
    summaryCache: new SummaryCache(1 << 20),
    wordPool: new WordPool(1 << 20),
    batchPool: new BatchPool((bytes) => new Uint8Array(bytes)),
  }
  return new LogCore(options, newMeta(options))
}

const POSITIONS = ['appendedLsn', 'writtenLsn', 'committedLsn', 'durableLsn', 'damagedBelowLsn', 'softLsn', 'softFreedEnd']

it.each<[string, () => object, readonly string[]]>([
  ['log', core, [...POSITIONS, 'lastHeaderCrc', 'committedCrc']],
  [
    'decoded header',
    () => new HeaderView(tableChecksum),
    ['lsn', 'epoch', 'committedLsn', 'durableLsn', 'previousHeaderCrc', 'seed', 'sealer', 'headerCrc'],
  ],
])('a %s keeps its hidden class when its numbers outgrow 31 bits', (_, make, fields) => {
  const fresh = make()
  for (const field of fields) {
    const used = make()
    expect(used, field).toHaveProperty(field)
    Reflect.set(used, field, 2 ** 40)
    expect(sameHiddenClass(used, fresh), field).toBe(true)
  }
})
