import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type BootInstant, bootInstant, type Clock, type EventLog, instant } from '@holdfast/base'
import { Etcd3 } from 'etcd3'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import {
  coordinatorContract,
  recordLease,
  recordWatch,
  transactOf,
  valuesOf,
} from '../contract.ts'
import { type EtcdTestCluster, startEtcdForTests } from '../testing/etcd-process.ts'
import { EtcdCoordinator, type EtcdCoordinatorOptions } from './etcd-coordinator.ts'

const TTL_MS = 2000
const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms))
const now = (): BootInstant => bootInstant(performance.now())
const steady: Clock = { now: () => instant(performance.now()), sinceBoot: now, wallMs: () => Date.now() }
const closed = (one: EtcdCoordinator): Promise<void> => new Promise((done) => one.close(done))

async function until(what: string, holds: () => boolean, withinMs = 20_000): Promise<number> {
  const startedAt = performance.now()
  while (!holds()) {
    if (performance.now() - startedAt > withinMs) throw new Error(`${what}: not in time`)
    await sleep(10)
  }
  return performance.now() - startedAt
}

const unhandled: unknown[] = []
const onUnhandled = (reason: unknown): void => void unhandled.push(reason)
let folder: string
let opened: EtcdCoordinator[]
let eventTexts: string[]
const events: EventLog = { event: (_level, message) => void eventTexts.push(message) }

function open(etcd: EtcdTestCluster, more: Partial<EtcdCoordinatorOptions> = {}): EtcdCoordinator {
  const one = new EtcdCoordinator({ endpoints: etcd.endpoints, events, clock: steady, ...more })
  opened.push(one)
  return one
}

beforeAll(() => void process.on('unhandledRejection', onUnhandled))
afterAll(() => void process.removeListener('unhandledRejection', onUnhandled))
beforeEach(() => {
  opened = []
  eventTexts = []
  folder = mkdtempSync(join(tmpdir(), 'holdfast-etcd-test-'))
})
afterEach(() => {
  for (const one of opened) one.abandon()
  rmSync(folder, { recursive: true, force: true })
  expect(unhandled).toEqual([])
})

describe('one etcd for the contract', () => {
  let etcd: EtcdTestCluster
  beforeAll(async () => {
    etcd = await startEtcdForTests()
  })
  afterAll(() => etcd.close())

  coordinatorContract('etcd', async () => {
    const client = new Etcd3({ hosts: etcd.endpoints.map((endpoint) => `http://${endpoint}`) })
    await client.delete().all()
    client.close()
    return {
      clientCountMax: 8,
      leaseTtlMs: 1000,
      now,
      elapse: sleep,
      open: (node) => open(etcd, { leaseFile: join(folder, node) }),
      crash: async (coordinator) => {
        opened.find((one) => one === coordinator)?.abandon()
      },
      close: async () => {
        await Promise.all(opened.map((one) => closed(one)))
      },
    }
  })
})

describe('one etcd in trouble', () => {
  let etcd: EtcdTestCluster
  beforeEach(async () => {
    etcd = await startEtcdForTests()
  })
  afterEach(() => etcd.close())

  /** A holder with a leased key, and an observer on its own client. */
  async function holder() {
    const a = open(etcd, { leaseFile: join(folder, 'a') })
    const lease = recordLease(a, TTL_MS)
    await until('a lease', () => lease.gainedCount === 1)
    const put = await transactOf(a, [{ op: 'put', key: 'l/1', value: 'x', leased: true }])
    expect(put.kind).toBe('ok')
    const b = open(etcd)
    const seen = recordWatch(b, 'l/')
    await until('the key', () => seen.view.has('l/1'))
    return { a, lease, b, seen }
  }

  it('a pause longer than the lease: lost in time, and never valid once others see the key gone', async () => {
    const { a, lease, seen } = await holder()
    let validUntil = a.leaseValidUntil()
    let goneAt = 0
    const timer = setInterval(() => {
      if (lease.gainedCount === 1) {
        validUntil = bootInstant(Math.max(validUntil, a.leaseValidUntil()))
      }
      if (goneAt === 0 && !seen.view.has('l/1')) goneAt = performance.now()
    }, 2)
    const pausedAt = performance.now()
    etcd.members[0]?.signal('SIGSTOP')
    const lostAfterMs = await until('the loss', () => lease.lostCount === 1)
    expect(lostAfterMs).toBeLessThan(TTL_MS + 200)
    expect(lostAfterMs).toBeGreaterThan(TTL_MS / 2)
    expect(a.leaseValidUntil()).toBeLessThan(now())
    expect((await transactOf(a, [{ op: 'put', key: 'l/1', value: 'y', leased: true }])).kind).toBe(
      'no-lease',
    )
    const blind = await transactOf(a, [{ op: 'put', key: 'u', value: 'y' }])
    expect(blind.kind).toBe('unknown')
    await sleep(Math.max(0, pausedAt + TTL_MS * 2 - performance.now()))
    etcd.members[0]?.signal('SIGCONT')
    await until('a lease again', () => lease.gainedCount === 2)
    const again = await transactOf(a, [{ op: 'put', key: 'l/1', value: 'z', leased: true }])
    expect(again.kind).toBe('ok')
    await until('the new value', () => seen.view.get('l/1')?.value === 'z')
    clearInterval(timer)
    // etcd may have kept the lease through its own pause: then the key never went.
    if (goneAt > 0) expect(goneAt).toBeGreaterThan(validUntil)
    expect(validUntil).toBeGreaterThan(pausedAt + TTL_MS / 2)
    expect(eventTexts).toContain('the lease is lost')
  })

  it('a machine that slept for longer than the lease: over at once, before a word of it was heard', async () => {
    let sleptMs = 0
    const clock: Clock = { ...steady, sinceBoot: () => bootInstant(performance.now() + sleptMs) }
    const a = open(etcd, { leaseFile: join(folder, 'a'), clock })
    const lease = recordLease(a, TTL_MS)
    await until('a lease', () => lease.gainedCount === 1)
    expect(a.leaseValidUntil()).toBeGreaterThan(clock.sinceBoot())
    sleptMs = 3_600_000
    expect(a.leaseValidUntil()).toBeLessThan(clock.sinceBoot())
    const put = transactOf(a, [{ op: 'put', key: 'l/1', value: 'y', leased: true }])
    expect((await put).kind).toBe('no-lease')
    await until('the loss', () => lease.lostCount === 1)
    await until('a lease again', () => lease.gainedCount === 2)
    expect(a.leaseValidUntil()).toBeGreaterThan(clock.sinceBoot())
  })

  it('a holder that falls silent: the key vanishes for others only after its lease', async () => {
    const { a, seen } = await holder()
    await sleep(TTL_MS)
    const validUntil = a.leaseValidUntil()
    expect(validUntil).toBeGreaterThan(now())
    a.abandon()
    await until('the end of the key', () => !seen.view.has('l/1'))
    expect(performance.now()).toBeGreaterThan(validUntil)
  })

  it('a kill and restart on the same data: the lease survives, the watch goes on', async () => {
    const { a, lease, b, seen } = await holder()
    await etcd.members[0]?.stop()
    expect((await transactOf(b, [{ op: 'put', key: 'l/2', value: 'x' }])).kind).toBe('unknown')
    await etcd.members[0]?.start()
    await until('a valid lease', () => a.leaseValidUntil() > now() + TTL_MS / 2)
    expect(lease.gainedCount - lease.lostCount).toBe(1)
    if (lease.lostCount === 0) expect(await valuesOf(b, 'l/1')).toEqual({ 'l/1': 'x' })
    await until('an answer', () => {
      b.transact({ compares: [], operations: [{ op: 'put', key: 'l/3', value: 'x' }] }, () => {})
      return seen.view.has('l/3')
    })
  })

  it('a long outage: the lease is taken anew, or the old one goes on, and is told', async () => {
    const { a, lease, seen } = await holder()
    await etcd.members[0]?.stop()
    await until('the loss', () => lease.lostCount === 1)
    await sleep(TTL_MS)
    await etcd.members[0]?.start()
    await until('a lease again', () => lease.gainedCount === 2)
    const put = await transactOf(a, [{ op: 'put', key: 'l/9', value: 'x', leased: true }])
    expect(put.kind).toBe('ok')
    await until('the key', () => seen.view.has('l/9'))
  })

  it('a lease that someone revoked: lost at once, another one is taken', async () => {
    const { a, lease } = await holder()
    const id = readFileSync(join(folder, 'a'), 'utf8').trim()
    const client = new Etcd3({ hosts: etcd.endpoints.map((endpoint) => `http://${endpoint}`) })
    await client.leaseClient.leaseRevoke({ ID: id })
    client.close()
    const put = await transactOf(a, [{ op: 'put', key: 'l/2', value: 'x', leased: true }])
    expect(put.kind).toBe('no-lease')
    await until('another lease', () => lease.gainedCount === 2)
    expect(lease.lostCount).toBe(1)
    expect(readFileSync(join(folder, 'a'), 'utf8').trim()).not.toBe(id)
  })

  it('a compaction while the watch is disconnected: a snapshot anew, with nothing stale', async () => {
    const { b, seen } = await holder()
    await transactOf(b, [{ op: 'put', key: 'l/old', value: 'x' }])
    await until('the key', () => seen.view.has('l/old'))
    const { members, endpoints } = etcd
    // Only the watcher is cut off: it knows one way in, the others another.
    const proxy = await startProxy(endpoints[0] ?? '')
    const c = new EtcdCoordinator({ endpoints: [proxy.endpoint], events, clock: steady })
    opened.push(c)
    const cut = recordWatch(c, 'l/')
    await until('a snapshot', () => cut.view.has('l/old'))
    proxy.cut()
    await transactOf(b, [{ op: 'delete', key: 'l/old' }])
    const last = await transactOf(b, [{ op: 'put', key: 'l/new', value: 'x' }])
    const client = new Etcd3({ hosts: `http://${endpoints[0]}` })
    await client.kv.compact({ revision: last.kind === 'ok' ? last.revision : 0 })
    client.close()
    proxy.mend()
    await until('a snapshot anew', () => cut.snapshotCount === 2)
    expect([...cut.view.keys()].sort()).toEqual(['l/1', 'l/new'])
    c.abandon()
    proxy.close()
    expect(members).toHaveLength(1)
  })

  it('a short cut of the stream: goes on from the next revision without a snapshot', async () => {
    const { b } = await holder()
    const proxy = await startProxy(etcd.endpoints[0] ?? '')
    const c = new EtcdCoordinator({ endpoints: [proxy.endpoint], events, clock: steady })
    opened.push(c)
    const cut = recordWatch(c, 'l/')
    await until('a snapshot', () => cut.snapshotCount === 1)
    proxy.cut()
    for (let i = 0; i < 5; i++) await transactOf(b, [{ op: 'put', key: 'l/n', value: `${i}` }])
    proxy.mend()
    await until('all changes', () => cut.view.get('l/n')?.value === '4')
    expect(cut.calls.flatMap(({ changes }) => changes)).toHaveLength(5)
    expect(cut.snapshotCount).toBe(1)
    c.abandon()
    proxy.close()
  })

  it('etcd down at the start: is waited for', async () => {
    await etcd.members[0]?.stop()
    const a = open(etcd)
    const lease = recordLease(a, TTL_MS)
    const seen = recordWatch(a, 'l/')
    await until('an event', () => eventTexts.includes('etcd does not answer; trying on'))
    await etcd.members[0]?.start()
    await until('a lease', () => lease.gainedCount === 1, 5000)
    await until('a snapshot', () => seen.snapshotCount === 1, 5000)
  })

  it('close ends in time while etcd is gone', async () => {
    const { a } = await holder()
    await etcd.members[0]?.stop()
    const startedAt = performance.now()
    await closed(a)
    expect(performance.now() - startedAt).toBeLessThan(3000)
  })
})

describe('three members', () => {
  let etcd: EtcdTestCluster
  const leads = async (endpoint: string): Promise<boolean> => {
    const client = new Etcd3({ hosts: `http://${endpoint}` })
    try {
      const { leader, header } = await client.maintenance.status()
      return leader === header.member_id
    } finally {
      client.close()
    }
  }
  beforeEach(async () => {
    etcd = await startEtcdForTests({ memberCount: 3 })
  })
  afterEach(() => etcd.close())

  it.each(['stop', 'SIGSTOP'] as const)(
    'any one member may die or hang (%s): the lease lives, the watch and transactions go on',
    async (how) => {
      const losses: unknown[] = []
      const reasons: EventLog = {
        event: (_level, message, fields) => {
          if (message === 'the lease is lost') losses.push(fields?.['reason'])
        },
      }
      const a = open(etcd, { events: reasons })
      // A new leader may take these members two seconds, and the last renewal may be a quarter of a lease old.
      const ttlMs = 5000
      const lease = recordLease(a, ttlMs)
      const seen = recordWatch(a, 'k')
      await until('a start', () => lease.gainedCount === 1 && seen.snapshotCount === 1)
      let revocationsMax = 0
      for (const member of etcd.members) {
        const led = await leads(member.endpoint)
        const before = lease.lostCount
        if (how === 'stop') await member.stop()
        else member.signal('SIGSTOP')
        const value = `${member.endpoint} ${how}`
        const startedAt = performance.now()
        let kind = 'unknown'
        while (kind === 'unknown') {
          expect(performance.now() - startedAt).toBeLessThan(10_000)
          kind = (await transactOf(a, [{ op: 'put', key: 'k', value, leased: true }])).kind
        }
        expect(kind, `lost: ${losses.join()}`).toBe('ok')
        await until('the change', () => seen.view.get('k')?.value === value, 6000)
        // Who stayed with that member would have lost the lease by now.
        await sleep(ttlMs + 500)
        expect(lease.lostCount).toBe(before)
        if (how === 'stop') await member.start()
        else member.signal('SIGCONT')
        // etcd looks for leases that have run out twice a second, and a leader that wakes may, before its pull request
        // 16822, revoke what was renewed with its successor (docs/LIMITS.md).
        await sleep(1500)
        if (how === 'SIGSTOP' && led) revocationsMax++
        await until('a lease again', () => lease.gainedCount === lease.lostCount + 1, 1000)
        expect(lease.lostCount).toBeLessThanOrEqual(revocationsMax)
      }
      // It was etcd that let go of it: it was renewed in time whatever hung.
      expect(losses).toHaveLength(lease.lostCount)
      for (const reason of losses) expect(['etcd does not know the lease', 'the lease expired at etcd']).toContain(reason)
      expect(seen.snapshotCount).toBe(1)
    },
  )

  it('a transaction goes to another member where the first one surely never got it', async () => {
    const a = open(etcd)
    await etcd.members[0]?.stop()
    // Long enough for an election, should that have been the leader.
    await sleep(3000)
    const results = []
    for (let i = 0; i < 6; i++) {
      results.push(await transactOf(a, [{ op: 'put', key: 'k', value: `${i}` }]))
    }
    expect(results.map(({ kind }) => kind)).toEqual(Array(6).fill('ok'))
  })
})

/** A TCP proxy that can be cut and mended. */
async function startProxy(target: string) {
  const { connect, createServer } = await import('node:net')
  const [host = '', port = ''] = target.split(':')
  const sockets = new Set<import('node:net').Socket>()
  let isCut = false
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    if (isCut) {
      socket.destroy()
      return
    }
    const upstream = connect(Number(port), host)
    upstream.on('error', () => socket.destroy())
    upstream.on('close', () => socket.destroy())
    socket.on('close', () => {
      upstream.destroy()
      sockets.delete(socket)
    })
    sockets.add(socket)
    socket.pipe(upstream).pipe(socket)
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const address = server.address()
  const cut = (): void => {
    isCut = true
    for (const socket of sockets) socket.destroy()
  }
  return {
    endpoint: `127.0.0.1:${typeof address === 'object' ? address?.port : 0}`,
    cut,
    mend: () => {
      isCut = false
    },
    close: () => {
      cut()
      server.close()
    },
  }
}
