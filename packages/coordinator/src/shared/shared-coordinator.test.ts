import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MessageChannel } from 'node:worker_threads'
import { type BootInstant, bootInstant, type Coordinator, type LeaseHandler } from '@holdfast/base'
import { describe, expect, it } from 'vitest'
import { coordinatorContract, recordLease, recordWatch, transactOf } from '../contract.ts'
import { openEmbeddedCoordinator } from '../embedded/file-coordinator.ts'
import { LeaseMemory } from './lease-memory.ts'
import { remoteCoordinator } from './remote-coordinator.ts'
import { SharedCoordinator } from './shared-coordinator.ts'

const quiet = { event: () => undefined }
const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms))
const now = (): BootInstant => bootInstant(performance.now())
const closed = (one: Coordinator): Promise<void> => new Promise((done) => one.close(done))

/** As another thread would have it: over a real channel of messages. */
function remote(shared: SharedCoordinator): Coordinator {
  const { port1, port2 } = new MessageChannel()
  shared.serve(port1)
  return remoteCoordinator(port2, shared.memory.buffer)
}

coordinatorContract('of another thread', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-shared-'))
  const opened: Coordinator[] = []
  return {
    clientCountMax: 1,
    leaseTtlMs: 300,
    now,
    elapse: sleep,
    open: () => {
      const file = join(folder, 'c.journal')
      const one = remote(new SharedCoordinator(openEmbeddedCoordinator({ file, events: quiet })))
      opened.push(one)
      return one
    },
    crash: async () => {
      await Promise.all(opened.map((one) => closed(one)))
    },
    close: async () => {
      await Promise.all(opened.map((one) => closed(one)))
      rmSync(folder, { recursive: true })
    },
  }
})

/** A coordinator whose lease comes and goes as the test wants. */
class StagedLease implements Coordinator {
  handler: LeaseHandler | undefined
  validUntil = bootInstant(Number.NEGATIVE_INFINITY)
  holdCount = 0
  closeCount = 0
  holdLease(_ttlMs: number, handler: LeaseHandler): void {
    this.holdCount++
    this.handler = handler
  }
  leaseValidUntil(): BootInstant {
    return this.validUntil
  }
  range(): void {}
  transact(): void {}
  watch(): () => void {
    return () => {}
  }
  close(done: () => void): void {
    this.closeCount++
    queueMicrotask(done)
  }
}

describe('a lease that several threads have together', () => {
  it('is held once, told to all, and given back by the last', async () => {
    const staged = new StagedLease()
    const shared = new SharedCoordinator(staged)
    const [here, there] = [shared.local(), remote(shared)]
    const leases = [recordLease(here, 300), recordLease(there, 300)]
    await sleep(10)
    expect(staged.holdCount).toBe(1)
    staged.validUntil = bootInstant(1000)
    staged.handler?.gained()
    await sleep(10)
    expect(leases.map(({ gainedCount }) => gainedCount)).toEqual([1, 1])
    expect([here.leaseValidUntil(), there.leaseValidUntil()]).toEqual([1000, 1000])
    staged.validUntil = bootInstant(2000)
    await sleep(100)
    expect(there.leaseValidUntil()).toBe(2000)
    const ended = closed(there)
    await sleep(10)
    expect(staged.closeCount).toBe(0)
    await closed(here)
    await ended
    expect(staged.closeCount).toBe(1)
  })

  it('[I8] gives a thread that has not heard of its loss no time of the next one', async () => {
    const staged = new StagedLease()
    const shared = new SharedCoordinator(staged)
    const there = remote(shared)
    const lease = recordLease(there, 300)
    await sleep(10)
    staged.validUntil = bootInstant(1000)
    staged.handler?.gained()
    await sleep(10)
    expect(there.leaseValidUntil()).toBe(1000)
    // Both in one turn: the messages have not come when the thread looks.
    staged.validUntil = bootInstant(Number.NEGATIVE_INFINITY)
    staged.handler?.lost()
    staged.validUntil = bootInstant(9000)
    staged.handler?.gained()
    expect(there.leaseValidUntil()).toBe(Number.NEGATIVE_INFINITY)
    await sleep(10)
    expect(lease).toEqual({ gainedCount: 2, lostCount: 1 })
    expect(there.leaseValidUntil()).toBe(9000)
    await closed(there)
  })

  it('grows old while the main thread does nothing, and never young', () => {
    const memory = new LeaseMemory()
    const other = new LeaseMemory(memory.buffer)
    expect(other.read(0)).toBe(Number.NEGATIVE_INFINITY)
    memory.begin(1)
    expect(other.read(1)).toBe(Number.NEGATIVE_INFINITY)
    memory.publish(bootInstant(12.3456))
    expect(other.read(1)).toBe(12.345)
    expect(other.read(2)).toBe(Number.NEGATIVE_INFINITY)
    memory.publish(bootInstant(Number.POSITIVE_INFINITY))
    expect(other.read(1)).toBe(Number.POSITIVE_INFINITY)
    memory.publish(bootInstant(Number.NEGATIVE_INFINITY))
    expect(other.read(1)).toBe(Number.NEGATIVE_INFINITY)
  })
})

describe('a watch that several threads share', () => {
  it('tells who comes later what was before, once, and everything after it', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'holdfast-shared-'))
    const shared = new SharedCoordinator(openEmbeddedCoordinator({ file: join(folder, 'c.journal'), events: quiet }))
    const [here, there] = [shared.local(), remote(shared)]
    const put = (key: string) => transactOf(here, [{ op: 'put', key, value: key }])
    const first = recordWatch(here, 'w/')
    await put('w/1')
    const [second, third] = [recordWatch(there, 'w/'), recordWatch(here, 'w/')]
    await put('w/2')
    await sleep(20)
    for (const record of [first, second, third]) expect([...record.view.keys()]).toEqual(['w/1', 'w/2'])
    third.stop()
    await put('w/3')
    await sleep(20)
    expect([first, second, third].map(({ view }) => view.size)).toEqual([3, 3, 2])
    expect([first, second, third].map(({ snapshotCount }) => snapshotCount)).toEqual([1, 1, 1])
    await Promise.all([closed(here), closed(there)])
    rmSync(folder, { recursive: true })
  })
})
