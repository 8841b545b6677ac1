import type { Batch } from '@holdfast/volume-log'
import { describe, expect, it } from 'vitest'
import { Harness } from '../../volume-log/src/testing/harness.ts'
import { type RelocationHost, Relocations } from './relocation.ts'

const BLOCKS = 96

/** A log that lies in many segments, each mostly dead. */
function scattered(): Harness {
  const settings = { compactionSlackSegments: 1, deadSegmentsMax: 1000, softDeadSegmentsMin: 0 }
  const h = new Harness({ segmentBlocks: 64, sizeBlocks: BLOCKS, settings }).open()
  let seed = 3
  for (let i = 0; i < 600; i++) {
    seed = (seed * 1103515245 + 12345) % 2 ** 31
    const block = i < BLOCKS ? i : Math.floor(seed / 65536) % BLOCKS
    h.write([block, 1 + (block % 200)])
  }
  h.commit()
  return h
}

class Host implements RelocationHost {
  mayRelocate = true
  /** When each relocation was appended, in ms. */
  readonly appended: number[] = []
  readonly #h: Harness

  constructor(h: Harness) {
    this.#h = h
  }

  appendRelocation(batch: Batch): void {
    const { log, scheduler, epoch } = this.#h
    log.seal(batch, epoch)
    log.append(batch, () => undefined)
    log.commitTo(log.appendedLsn)
    batch.release()
    this.appended.push(scheduler.now)
  }
}

/** Steps through `ms` in which `task` is called each millisecond. */
function eachMillisecond(h: Harness, ms: number, task: () => void): void {
  const end = h.scheduler.now + ms
  const again = (): void => {
    task()
    if (h.scheduler.now < end) h.scheduler.after(1, again)
  }
  again()
  h.scheduler.run(() => h.scheduler.now > end)
}

describe('relocations', () => {
  it('follow one another with a pause, however often they are asked for, and change nothing that is read', () => {
    const h = scattered()
    const host = new Host(h)
    const relocations = new Relocations(h.log, h.scheduler, 64, host)
    eachMillisecond(h, 60, () => {
      for (let i = 0; i < 5; i++) relocations.begin()
    })
    const { appended } = host
    expect(appended.length).toBeGreaterThan(5)
    for (let i = 1; i < appended.length; i++) {
      expect((appended[i] as number) - (appended[i - 1] as number)).toBeGreaterThanOrEqual(2)
    }
    for (let block = 0; block < BLOCKS; block++) expect(h.fill(block)).toBe(1 + (block % 200))
  })

  it('end while the host may not append, and go on later', () => {
    const h = scattered()
    const host = new Host(h)
    const relocations = new Relocations(h.log, h.scheduler, 64, host)
    eachMillisecond(h, 10, () => relocations.begin())
    const before = host.appended.length
    expect(before).toBeGreaterThan(0)
    host.mayRelocate = false
    eachMillisecond(h, 20, () => relocations.begin())
    expect(host.appended.length).toBe(before)
    expect(relocations.busy).toBe(false)
    host.mayRelocate = true
    eachMillisecond(h, 20, () => relocations.begin())
    expect(host.appended.length).toBeGreaterThan(before)
  })
})
