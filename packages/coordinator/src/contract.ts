/**
 * What every Coordinator must do, whatever is behind it: run by vitest against etcd, the embedded
 * journal and the simulator's fake.
 *
 * Time passes only through the cluster's `elapse`, so that a fake may have its own.
 */
import type {
  BootInstant,
  Coordinator,
  CoordinatorEntry,
  Operation,
  RangeResult,
  TransactionResult,
  WatchChange,
} from '@holdfast/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'

export interface ContractCluster {
  /** How many coordinators may be open at once: 1 for one that serves a single process. */
  readonly clientCountMax: number
  /** A lease short enough for a test, milliseconds. */
  readonly leaseTtlMs: number
  /** Opens the coordinator of a node. A name opened again is the same node, started anew. */
  open(node: string): Coordinator
  /** Ends one as a crash would: without giving the lease back. */
  crash(coordinator: Coordinator): Promise<void>
  /** The clock that `leaseValidUntil` is read against. */
  now(): BootInstant
  /** Lets time pass and everything that is under way go on. */
  elapse(ms: number): Promise<void>
  /** Ends everything that is still open. */
  close(): Promise<void>
}

/** What a watch has told, kept as the view it describes. */
export interface WatchRecord {
  readonly view: Map<string, CoordinatorEntry>
  readonly calls: { readonly changes: readonly WatchChange[]; readonly revision: number }[]
  snapshotCount: number
  revision: number
  stop(): void
}

/** Watches and checks what holds for every watch: revisions rise, changes come whole and in order. */
export function recordWatch(coordinator: Coordinator, prefix: string): WatchRecord {
  const record: WatchRecord = {
    view: new Map(),
    calls: [],
    snapshotCount: 0,
    revision: 0,
    stop: () => undefined,
  }
  record.stop = coordinator.watch(prefix, {
    snapshot: (entries, revision) => {
      record.snapshotCount++
      record.revision = revision
      record.view.clear()
      for (const entry of entries) record.view.set(entry.key, entry)
    },
    changes: (changes, revision) => {
      expect(record.snapshotCount, 'a snapshot comes first').toBeGreaterThan(0)
      expect(changes.length).toBeGreaterThan(0)
      let before = record.revision
      for (const change of changes) {
        const at = change.change === 'put' ? change.entry.modRevision : change.modRevision
        expect(at).toBeGreaterThan(record.revision)
        expect(at).toBeGreaterThanOrEqual(before)
        before = at
        const key = change.change === 'put' ? change.entry.key : change.key
        expect(key.startsWith(prefix)).toBe(true)
        if (change.change === 'put') record.view.set(key, change.entry)
        else record.view.delete(key)
      }
      expect(before).toBe(revision)
      record.revision = revision
      record.calls.push({ changes, revision })
    },
  })
  return record
}

export function transactOf(
  coordinator: Coordinator,
  operations: readonly Operation[],
  compares: readonly { key: string; modRevision: number }[] = [],
): Promise<TransactionResult> {
  return new Promise((done) => {
    let returned = false
    coordinator.transact({ compares, operations }, (result) => {
      expect(returned, 'completion comes after the call').toBe(true)
      done(result)
    })
    returned = true
  })
}

export function rangeOf(coordinator: Coordinator, prefix: string): Promise<RangeResult> {
  return new Promise((done) => coordinator.range(prefix, done))
}

/** The entries of a range that must succeed, as key → value. */
export async function valuesOf(
  coordinator: Coordinator,
  prefix: string,
): Promise<Record<string, string>> {
  const result = await rangeOf(coordinator, prefix)
  if (result.kind !== 'ok') throw new Error(`range failed: ${result.reason}`)
  return Object.fromEntries(result.entries.map(({ key, value }) => [key, value]))
}

export interface LeaseRecord {
  gainedCount: number
  lostCount: number
}

export function recordLease(coordinator: Coordinator, ttlMs: number): LeaseRecord {
  const record: LeaseRecord = { gainedCount: 0, lostCount: 0 }
  coordinator.holdLease(ttlMs, {
    gained: () => {
      record.gainedCount++
    },
    lost: () => {
      record.lostCount++
    },
  })
  return record
}

const put = (key: string, value: string): Operation => ({ op: 'put', key, value })
const leased = (key: string, value: string): Operation => ({ op: 'put', key, value, leased: true })

export function coordinatorContract(
  name: string,
  makeCluster: () => Promise<ContractCluster>,
): void {
  describe(`coordinator contract: ${name}`, () => {
    let cluster: ContractCluster
    const until = async (what: string, holds: () => boolean, withinMs = 10_000): Promise<void> => {
      for (let waited = 0; !holds(); waited += 10) {
        if (waited > withinMs) throw new Error(`${what}: not within ${withinMs} ms`)
        await cluster.elapse(10)
      }
    }
    /** Drives time on while something is under way: a fake's clock stands still otherwise. */
    const settled = async <T>(promise: Promise<T>): Promise<T> => {
      let value: { readonly it: T } | undefined
      let failure: unknown
      promise.then(
        (it) => {
          value = { it }
        },
        (error: unknown) => {
          failure = error ?? new Error('rejected')
        },
      )
      await until('an answer', () => value !== undefined || failure !== undefined)
      if (value === undefined) throw failure
      return value.it
    }
    const transact = (...args: Parameters<typeof transactOf>): Promise<TransactionResult> =>
      settled(transactOf(...args))
    const values = (coordinator: Coordinator, prefix: string): Promise<Record<string, string>> =>
      settled(valuesOf(coordinator, prefix))
    const revisionOf = (result: TransactionResult): number => {
      if (result.kind !== 'ok') throw new Error(`transaction ended as ${result.kind}`)
      return result.revision
    }
    const closed = (coordinator: Coordinator): Promise<void> =>
      settled(new Promise((done) => coordinator.close(done)))
    const openHeld = async (node: string): Promise<{ a: Coordinator; lease: LeaseRecord }> => {
      const a = cluster.open(node)
      const lease = recordLease(a, cluster.leaseTtlMs)
      await until('a lease', () => lease.gainedCount === 1)
      return { a, lease }
    }

    beforeEach(async () => {
      cluster = await makeCluster()
    })
    afterEach(async () => {
      await cluster.close()
    })

    describe('transact', () => {
      it('applies when all compares hold, at one revision', async () => {
        const a = cluster.open('a')
        const revision = revisionOf(
          await transact(a, [put('k/1', 'one'), put('k/2', 'two')], [{ key: 'k/1', modRevision: 0 }]),
        )
        const range = await settled(rangeOf(a, 'k/'))
        expect(range).toEqual({
          kind: 'ok',
          revision,
          entries: [
            { key: 'k/1', value: 'one', modRevision: revision, leased: false },
            { key: 'k/2', value: 'two', modRevision: revision, leased: false },
          ],
        })
      })

      it('applies nothing when one compare fails', async () => {
        const a = cluster.open('a')
        const first = revisionOf(await transact(a, [put('k/1', 'one')]))
        const second = revisionOf(await transact(a, [put('k/1', 'two')]))
        expect(second).toBeGreaterThan(first)
        const stale = [
          { key: 'k/1', modRevision: first },
          { key: 'k/9', modRevision: 0 },
        ]
        expect(await transact(a, [put('k/2', 'no')], stale)).toEqual({ kind: 'conflict' })
        const present = [{ key: 'k/1', modRevision: 0 }]
        expect(await transact(a, [put('k/2', 'no')], present)).toEqual({ kind: 'conflict' })
        const absent = [{ key: 'k/9', modRevision: second }]
        expect(await transact(a, [put('k/2', 'no')], absent)).toEqual({ kind: 'conflict' })
        expect(await values(a, 'k/')).toEqual({ 'k/1': 'two' })
      })

      it('deletes, and lets a deleted key be created anew', async () => {
        const a = cluster.open('a')
        const first = revisionOf(await transact(a, [put('k', 'one')]))
        const compares = [{ key: 'k', modRevision: first }]
        revisionOf(await transact(a, [{ op: 'delete', key: 'k' }], compares))
        expect(await values(a, 'k')).toEqual({})
        expect(await transact(a, [put('k', 'x')], compares)).toEqual({ kind: 'conflict' })
        revisionOf(await transact(a, [put('k', 'two')], [{ key: 'k', modRevision: 0 }]))
        expect(await values(a, 'k')).toEqual({ k: 'two' })
      })

      it('makes no revision when nothing changes', async () => {
        const a = cluster.open('a')
        const first = revisionOf(await transact(a, [put('k', 'one')]))
        const compares = [{ key: 'k', modRevision: first }]
        const second = revisionOf(await transact(a, [{ op: 'delete', key: 'absent' }], compares))
        expect(second).toBe(first)
        expect(revisionOf(await transact(a, [], compares))).toBe(first)
      })

      it('lets exactly one of many competitors win', async () => {
        const a = cluster.open('a')
        const b = cluster.clientCountMax > 1 ? cluster.open('b') : a
        const compares = [{ key: 'prize', modRevision: 0 }]
        const results = await settled(
          Promise.all(
            Array.from({ length: 20 }, (_, i) =>
              transactOf(i % 2 === 0 ? a : b, [put('prize', `${i}`)], compares),
            ),
          ),
        )
        const winners = results.flatMap((result, i) => (result.kind === 'ok' ? [`${i}`] : []))
        expect(winners).toHaveLength(1)
        expect(results.filter(({ kind }) => kind === 'conflict')).toHaveLength(19)
        expect(await values(a, 'prize')).toEqual({ prize: winners[0] })
      })

      it('keeps values of any characters, and keys apart that share a beginning', async () => {
        const a = cluster.open('a')
        const odd = '{"ü":"\u0000\n\u2028😀"}'
        revisionOf(await transact(a, [put('k/a', odd), put('k0', 'x'), put('k', 'y')]))
        expect(await values(a, 'k/')).toEqual({ 'k/a': odd })
        expect(Object.keys(await values(a, ''))).toEqual(['k', 'k/a', 'k0'])
      })

      it('refuses, as a bug, a transaction that changes a key twice', () => {
        const a = cluster.open('a')
        const operations = [put('k', '1'), put('k', '2')]
        expect(() => a.transact({ compares: [], operations }, () => undefined)).toThrow(/twice/)
      })
    })

    describe('watch', () => {
      it('begins with a snapshot and goes on with every change', async () => {
        const a = cluster.open('a')
        revisionOf(await transact(a, [put('w/1', 'one'), put('other', 'x')]))
        const record = recordWatch(a, 'w/')
        await until('a snapshot', () => record.snapshotCount === 1)
        expect([...record.view.keys()]).toEqual(['w/1'])
        revisionOf(await transact(a, [put('other', 'y')]))
        revisionOf(await transact(a, [put('w/2', 'two'), { op: 'delete', key: 'w/1' }]))
        const last = revisionOf(await transact(a, [put('w/2', 'three')]))
        await until('the last change', () => record.revision === last)
        expect([...record.view.values()]).toEqual([
          { key: 'w/2', value: 'three', modRevision: last, leased: false },
        ])
        expect(record.snapshotCount).toBe(1)
      })

      it('delivers the changes of one transaction together', async () => {
        const a = cluster.open('a')
        const record = recordWatch(a, 'w/')
        await until('a snapshot', () => record.snapshotCount === 1)
        const many = Array.from({ length: 100 }, (_, i) => put(`w/${i}`, 'x'.repeat(1000)))
        const revision = revisionOf(await transact(a, many))
        await until('the changes', () => record.revision === revision)
        expect(record.calls.map(({ changes }) => changes.length)).toEqual([100])
      })

      it('misses nothing that happens around its beginning', async () => {
        const a = cluster.open('a')
        const records: WatchRecord[] = []
        const pending: Promise<TransactionResult>[] = []
        for (let i = 0; i < 30; i++) {
          pending.push(transactOf(a, [put(`w/${i}`, `${i}`)]))
          if (i % 3 === 0) records.push(recordWatch(a, 'w/'))
          if (i % 5 === 0) await cluster.elapse(1)
        }
        const last = Math.max(...(await settled(Promise.all(pending))).map(revisionOf))
        for (const record of records) {
          await until('everything', () => record.revision >= last)
          expect(record.view.size).toBe(30)
          expect(record.snapshotCount).toBe(1)
        }
      })

      it('is silent after it was stopped', async () => {
        const a = cluster.open('a')
        const stopped = recordWatch(a, 'w/')
        const neverBegun = recordWatch(a, 'w/')
        neverBegun.stop()
        await until('a snapshot', () => stopped.snapshotCount === 1)
        stopped.stop()
        const other = recordWatch(a, 'w/')
        const revision = revisionOf(await transact(a, [put('w/1', 'x')]))
        await until('the other watch', () => other.revision >= revision)
        expect(stopped.calls).toEqual([])
        expect(neverBegun.snapshotCount).toBe(0)
      })
    })

    describe('lease', () => {
      it('refuses leased puts while none is held, and applies nothing of them', async () => {
        const a = cluster.open('a')
        expect(await transact(a, [put('l/1', 'x'), leased('l/2', 'x')])).toEqual({ kind: 'no-lease' })
        expect(await values(a, 'l/')).toEqual({})
        expect(a.leaseValidUntil()).toBeLessThan(cluster.now())
      })

      it('stays valid for many times its length and its keys stay', async () => {
        const { a, lease } = await openHeld('a')
        revisionOf(await transact(a, [leased('l/1', 'x'), put('l/2', 'y')]))
        for (let passedMs = 0; passedMs < cluster.leaseTtlMs * 2; passedMs += 50) {
          await cluster.elapse(50)
          expect(a.leaseValidUntil()).toBeGreaterThan(cluster.now())
        }
        expect(await values(a, 'l/')).toEqual({ 'l/1': 'x', 'l/2': 'y' })
        const range = await settled(rangeOf(a, 'l/'))
        const flags = range.kind === 'ok' ? range.entries.map((entry) => entry.leased) : []
        expect(flags).toEqual([true, false])
        expect(lease).toEqual({ gainedCount: 1, lostCount: 0 })
      })

      it('takes its keys along when it is given back', async () => {
        const { a } = await openHeld('a')
        revisionOf(await transact(a, [leased('l/1', 'x'), put('l/2', 'y')]))
        await closed(a)
        expect(a.leaseValidUntil()).toBeLessThan(cluster.now())
        expect(await values(cluster.open('b'), 'l/')).toEqual({ 'l/2': 'y' })
      })

      it('a node started anew after a crash finds its old leased keys gone', async () => {
        const { a } = await openHeld('a')
        revisionOf(await transact(a, [leased('l/1', 'x'), put('l/2', 'y')]))
        await cluster.crash(a)
        const { a: again } = await openHeld('a')
        expect(await values(again, 'l/')).toEqual({ 'l/2': 'y' })
        revisionOf(await transact(again, [leased('l/1', 'z')], [{ key: 'l/1', modRevision: 0 }]))
      })

      it("a crashed node's keys vanish for the others, not before its lease ended", async () => {
        if (cluster.clientCountMax < 2) return
        const { a } = await openHeld('a')
        const b = cluster.open('b')
        revisionOf(await transact(a, [leased('l/1', 'x')]))
        const record = recordWatch(b, 'l/')
        await until('the key', () => record.view.size === 1)
        const validUntil = a.leaseValidUntil()
        expect(validUntil).toBeGreaterThan(cluster.now())
        await cluster.crash(a)
        await until('the end of the key', () => record.view.size === 0, 30_000)
        expect(cluster.now()).toBeGreaterThan(validUntil)
      })
    })

    describe('close', () => {
      it('ends the watch, answers later calls with unknown, and keeps what was written', async () => {
        const a = cluster.open('a')
        const record = recordWatch(a, 'k')
        await until('a snapshot', () => record.snapshotCount === 1)
        revisionOf(await transact(a, [put('k', 'kept')]))
        await until('the change', () => record.calls.length === 1)
        await closed(a)
        expect((await transact(a, [put('k', 'late')])).kind).toBe('unknown')
        expect((await settled(rangeOf(a, 'k'))).kind).toBe('unknown')
        expect(await values(cluster.open('b'), 'k')).toEqual({ k: 'kept' })
        expect(record.calls).toHaveLength(1)
      })
    })
  })
}
