import { type Errno, errno } from '@holdfast/base'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { BufferPool } from './buffer-pool.ts'
import { readU32 } from './bytes.ts'
import * as nbd from './constants.ts'
import {
  concat,
  firstDifference,
  type Reply,
  type Request,
  replies,
  request,
  u32,
} from './testing/client-bytes.ts'
import { FakeCatalog, type FakeSession } from './testing/fake-session.ts'
import { Transmission, type TransmissionLimits } from './transmission.ts'

type Form = 'simple' | 'structured' | 'extended'
const forms: readonly Form[] = ['simple', 'structured', 'extended']
const SIZE = 256 * 1024
const MIB = 1024 * 1024
const wide: TransmissionLimits = { outstandingBytesMax: 64 * MIB, outstandingRequestsMax: 1024 }

interface Setup {
  readonly form?: Form
  readonly readOnly?: boolean
  readonly sizeBytes?: number
  readonly limits?: TransmissionLimits
  readonly blockStatus?: boolean
}

/** A transmission phase with everything it touches; `output` gathers what was sent. */
class Bench {
  readonly transmission: Transmission
  readonly session: FakeSession
  readonly form: Form
  readonly lengths = new Map<number, number>()
  allocated = 0
  readonly pool = new BufferPool((bytes) => {
    this.allocated += bytes
    return new Uint8Array(bytes)
  }, 2 ** 40)
  readyCalls = 0
  capacityCalls = 0
  disconnectedCalls = 0
  readonly #sent: Uint8Array[] = []

  constructor(setup: Setup = {}) {
    const { form = 'simple', readOnly = false, sizeBytes = SIZE, limits = wide } = setup
    this.form = form
    const catalog = new FakeCatalog({ name: 'vol', description: '', sizeBytes, readOnly })
    const session = catalog.open('vol', (token, error) => this.transmission.completed(token, error))
    const agreement = {
      session,
      structuredReplies: form !== 'simple',
      extendedHeaders: form === 'extended',
      blockStatus: setup.blockStatus ?? form !== 'simple',
    }
    const counters = { requests: 0, failedRequests: 0, readBytes: 0, writtenBytes: 0 }
    this.session = catalog.opened as FakeSession
    this.transmission = new Transmission(agreement, this.pool, limits, counters, {
      repliesReady: () => this.readyCalls++,
      largeReplyReady: () => this.takeReplies(),
      capacityAvailable: () => this.capacityCalls++,
      disconnected: () => this.disconnectedCalls++,
    })
  }

  bytes(...requests: Request[]): Uint8Array {
    for (const { type, cookie, length = 0 } of requests) {
      this.lengths.set(cookie, type === nbd.NBD_CMD_READ ? length : 0)
    }
    const form = this.form === 'extended' ? 'extended' : 'compact'
    return concat(...requests.map((wanted) => request(form, wanted)))
  }

  /** Feeds requests in one chunk and answers them all. */
  ask(...requests: Request[]): Reply[] {
    const bytes = this.bytes(...requests)
    expect(this.transmission.receive(bytes, 0, bytes.length)).toBe(bytes.length)
    this.session.completeAll()
    return this.answers()
  }

  takeReplies(): void {
    const queue = this.transmission.replies
    this.transmission.repliesTaken()
    const { parts, bounds, count } = queue.take()
    for (let i = 0; i < count; i++) this.#sent.push((parts[i] as Uint8Array).slice(bounds[2 * i], bounds[2 * i + 1]))
    queue.sent()
    this.transmission.repliesSent()
  }

  answers(): Reply[] {
    this.takeReplies()
    const all = concat(...this.#sent.splice(0))
    return replies(all, (cookie) => this.lengths.get(cookie) ?? 0)
  }

  errors(...requests: Request[]): number[] {
    return this.ask(...requests).map(({ error }) => error)
  }
}

const pattern = (length: number, seed: number): Uint8Array =>
  new Uint8Array(length).map((_, i) => (i * 7 + seed) & 0xff)

describe.each(forms)('%s replies', (form) => {
  test('a write is read back, in place and late, small and large', () => {
    for (const lateReads of [false, true]) {
      const bench = new Bench({ form })
      bench.session.lateReads = lateReads
      const small = pattern(5000, 1)
      const large = pattern(100_000, 2)
      const found = bench.ask(
        { type: nbd.NBD_CMD_WRITE, cookie: 1, offset: 3, payload: small },
        { type: nbd.NBD_CMD_WRITE, cookie: 2, offset: 50_001, payload: large },
        { type: nbd.NBD_CMD_READ, cookie: 3, offset: 3, length: 5000 },
        { type: nbd.NBD_CMD_READ, cookie: 4, offset: 50_001, length: 100_000 },
      )
      const byCookie = new Map(found.map((reply) => [reply.cookie, reply]))
      expect([...byCookie.keys()].sort()).toEqual([1, 2, 3, 4])
      expect(byCookie.get(3)?.data).toEqual(small)
      expect(firstDifference(byCookie.get(4)?.data as Uint8Array, large)).toBe(-1)
      expect(byCookie.get(4)?.form).toBe(form)
      expect(bench.session.calls[1]).toBe('writeReserved 50001 100000')
      expect(bench.session.reserved.size).toBe(0)
    }
  })

  test('data of a large read are a segment of their own, which begins with a line of the cache', () => {
    for (const lateReads of [false, true]) {
      const bench = new Bench({ form })
      bench.session.lateReads = lateReads
      bench.takeReplies = () => {}
      const bytes = bench.bytes(
        { type: nbd.NBD_CMD_READ, cookie: 1, offset: 0, length: 100_000 },
        { type: nbd.NBD_CMD_READ, cookie: 2, offset: 0, length: 200_000 },
      )
      bench.transmission.receive(bytes, 0, bytes.length)
      bench.session.completeAll()
      const { parts, bounds, count } = bench.transmission.replies.take()
      expect(count).toBe(3)
      expect(parts[2]).toBe(parts[1])
      expect(bounds[4]).toBe(bounds[3])
      expect((bounds[5] as number) - (bounds[4] as number)).toBe(200_000)
      expect(((parts[2] as Uint8Array).byteOffset + (bounds[4] as number)) % 64).toBe(0)
    }
  })

  test('the cookie is opaque: all 64 bits come back', () => {
    const bench = new Bench({ form })
    const bytes = bench.bytes({ type: nbd.NBD_CMD_FLUSH, cookie: 0 })
    bytes.set([0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa, 0xf9, 0xf8], 8)
    bench.transmission.receive(bytes, 0, bytes.length)
    bench.session.completeAll()
    const { parts, bounds } = bench.transmission.replies.take()
    const reply = (parts[0] as Uint8Array).subarray(bounds[0], bounds[1])
    expect([...reply.subarray(8, 16)]).toEqual([0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa, 0xf9, 0xf8])
  })

  test('each command reaches the session with its flags', () => {
    const bench = new Bench({ form })
    const fua = nbd.NBD_CMD_FLAG_FUA
    const zeroFlags = fua | nbd.NBD_CMD_FLAG_NO_HOLE | nbd.NBD_CMD_FLAG_FAST_ZERO
    const found = bench.errors(
      { type: nbd.NBD_CMD_WRITE, cookie: 1, offset: 1, payload: pattern(2, 0), flags: fua },
      { type: nbd.NBD_CMD_WRITE_ZEROES, cookie: 2, offset: 2, length: 3, flags: zeroFlags },
      { type: nbd.NBD_CMD_TRIM, cookie: 3, offset: 3, length: 4, flags: fua },
      { type: nbd.NBD_CMD_CACHE, cookie: 4, offset: 4, length: 5 },
      { type: nbd.NBD_CMD_FLUSH, cookie: 5 },
    )
    expect(found).toEqual([0, 0, 0, 0, 0])
    expect(bench.session.calls).toEqual([
      'write 1 2 fua',
      'zero 2 3 fua keep',
      'zero 3 4 fua',
      'cache 4 5',
      'flush',
    ])
  })

  test('requests of length 0 succeed without the session', () => {
    const bench = new Bench({ form })
    const types = [nbd.NBD_CMD_READ, nbd.NBD_CMD_TRIM, nbd.NBD_CMD_WRITE_ZEROES, nbd.NBD_CMD_CACHE]
    const found = bench.errors(...types.map((type, cookie) => ({ type, cookie, offset: 9 })))
    const empty = { type: nbd.NBD_CMD_WRITE, cookie: 9, payload: new Uint8Array(0) }
    expect([...found, ...bench.errors(empty)]).toEqual([0, 0, 0, 0, 0])
    expect(bench.session.calls).toEqual([])
  })

  test('what is wrong gets the error of the document, and the stream stays in step', () => {
    const bench = new Bench({ form })
    const cases: readonly (Request & { readonly expected: Errno })[] = [
      { type: nbd.NBD_CMD_READ, cookie: 1, offset: SIZE - 1, length: 2, expected: errno.EINVAL },
      { type: nbd.NBD_CMD_READ, cookie: 2, offset: 2 ** 52, length: 1, expected: errno.EINVAL },
      { type: nbd.NBD_CMD_WRITE, cookie: 3, offset: SIZE, payload: pattern(9, 1), expected: errno.ENOSPC },
      { type: nbd.NBD_CMD_WRITE_ZEROES, cookie: 4, offset: SIZE, length: 1, expected: errno.ENOSPC },
      { type: nbd.NBD_CMD_TRIM, cookie: 5, offset: 1, length: SIZE, expected: errno.EINVAL },
      { type: nbd.NBD_CMD_CACHE, cookie: 6, offset: 1, length: SIZE, expected: errno.EINVAL },
      { type: nbd.NBD_CMD_FLUSH, cookie: 7, offset: 1, expected: errno.EINVAL },
      { type: nbd.NBD_CMD_FLUSH, cookie: 8, length: 1, expected: errno.EINVAL },
      { type: 8, cookie: 9, expected: errno.EINVAL },
      { type: 0xffff, cookie: 10, expected: errno.EINVAL },
      { type: nbd.NBD_CMD_READ, cookie: 11, length: 1, flags: 2, expected: errno.EINVAL },
      { type: nbd.NBD_CMD_WRITE, cookie: 12, payload: pattern(3, 1), flags: 4, expected: errno.EINVAL },
      { type: nbd.NBD_CMD_TRIM, cookie: 13, length: 1, flags: 0x8000, expected: errno.EINVAL },
      { type: nbd.NBD_CMD_BLOCK_STATUS, cookie: 14, length: SIZE + 1, expected: errno.EINVAL },
    ]
    const found = bench.ask(...cases, { type: nbd.NBD_CMD_READ, cookie: 99, length: 1 })
    expect(found.map(({ cookie, error }) => [cookie, error])).toEqual([
      ...cases.map(({ cookie, expected }) => [cookie, expected]),
      [99, 0],
    ])
    expect(bench.session.calls).toEqual(['read 0 1'])
  })

  test('a read-only export refuses every change with EPERM', () => {
    const bench = new Bench({ form, readOnly: true })
    const found = bench.errors(
      { type: nbd.NBD_CMD_WRITE, cookie: 1, payload: pattern(70_000, 1) },
      { type: nbd.NBD_CMD_TRIM, cookie: 2, length: 1 },
      { type: nbd.NBD_CMD_WRITE_ZEROES, cookie: 3, length: 1 },
      { type: nbd.NBD_CMD_FLUSH, cookie: 4 },
    )
    expect(found).toEqual([errno.EPERM, errno.EPERM, errno.EPERM, 0])
    expect(bench.session.calls).toEqual(['flush'])
  })

  test('errors of the storage are passed on, and read buffers given back', () => {
    const bench = new Bench({ form })
    bench.session.failure = errno.EIO
    const found = bench.errors(
      { type: nbd.NBD_CMD_READ, cookie: 1, length: 100 },
      { type: nbd.NBD_CMD_READ, cookie: 2, length: 200_000 },
      { type: nbd.NBD_CMD_WRITE, cookie: 3, payload: pattern(10, 1) },
    )
    expect(found).toEqual([errno.EIO, errno.EIO, errno.EIO])
    expect(bench.pool.keptBytes).toBe(bench.allocated)
  })

  test('a bad magic is a violation; nothing after it is looked at', () => {
    const bench = new Bench({ form })
    const bytes = bench.bytes(
      { type: nbd.NBD_CMD_READ, cookie: 1, length: 1 },
      { type: nbd.NBD_CMD_READ, cookie: 2, length: 1 },
      { type: nbd.NBD_CMD_READ, cookie: 3, length: 1 },
    )
    bytes[bytes.length / 3] = 0x99
    bench.transmission.receive(bytes, 0, bytes.length)
    expect(bench.transmission.violation).toBeDefined()
    expect(bench.session.calls).toEqual(['read 0 1'])
  })

  test('DISC waits for what is outstanding, and nothing after it counts', () => {
    const bench = new Bench({ form })
    const bytes = bench.bytes(
      { type: nbd.NBD_CMD_WRITE, cookie: 1, payload: pattern(10, 1) },
      { type: nbd.NBD_CMD_DISC, cookie: 2 },
      { type: nbd.NBD_CMD_FLUSH, cookie: 3 },
    )
    bench.transmission.receive(bytes, 0, bytes.length)
    expect(bench.disconnectedCalls).toBe(0)
    bench.session.completeAll()
    expect(bench.disconnectedCalls).toBe(1)
    expect(bench.answers().map(({ cookie }) => cookie)).toEqual([1])
    expect(bench.session.calls).toEqual(['write 0 10'])
  })

  test('during a shutdown new requests get ESHUTDOWN and earlier ones their answer', () => {
    const bench = new Bench({ form })
    const first = bench.bytes({ type: nbd.NBD_CMD_FLUSH, cookie: 1 })
    bench.transmission.receive(first, 0, first.length)
    bench.transmission.shutDown()
    const found = bench.ask(
      { type: nbd.NBD_CMD_WRITE, cookie: 2, payload: pattern(10, 1) },
      { type: nbd.NBD_CMD_READ, cookie: 3, length: 1 },
    )
    const errors = new Map(found.map(({ cookie, error }) => [cookie, error]))
    expect([1, 2, 3].map((cookie) => errors.get(cookie))).toEqual([0, errno.ESHUTDOWN, errno.ESHUTDOWN])
  })
})

describe('what only some forms have', () => {
  test('oversized reads: EINVAL in simple form, EOVERFLOW where chunks were negotiated', () => {
    const expected = { simple: errno.EINVAL, structured: errno.EOVERFLOW, extended: errno.EOVERFLOW }
    for (const form of forms) {
      const bench = new Bench({ form, sizeBytes: 64 * MIB })
      const found = bench.errors({ type: nbd.NBD_CMD_READ, cookie: 1, length: 32 * MIB + 1 })
      expect(found).toEqual([expected[form]])
    }
  })

  test('an oversized compact write is drained and refused; an extended one is a violation', () => {
    const bench = new Bench({ sizeBytes: 64 * MIB })
    const length = 32 * MIB + 1
    const header = bench.bytes({ type: nbd.NBD_CMD_WRITE, cookie: 1, length })
    bench.transmission.receive(header, 0, header.length)
    const piece = new Uint8Array(MIB)
    for (let i = 0; i < 32; i++) bench.transmission.receive(piece, 0, MIB)
    expect(bench.answers()).toEqual([])
    const rest = concat(new Uint8Array(1), bench.bytes({ type: nbd.NBD_CMD_FLUSH, cookie: 2 }))
    bench.transmission.receive(rest, 0, rest.length)
    bench.session.completeAll()
    expect(bench.answers().map(({ cookie, error }) => [cookie, error])).toEqual([
      [1, errno.EINVAL],
      [2, 0],
    ])
    expect(bench.session.calls).toEqual(['flush'])

    const extended = new Bench({ form: 'extended', sizeBytes: 64 * MIB })
    const long = extended.bytes({ type: nbd.NBD_CMD_WRITE, cookie: 1, length, payload: piece })
    extended.transmission.receive(long, 0, 32)
    expect(extended.transmission.violation).toBeDefined()
  })

  test('DF needs chunks, and then is one chunk anyway', () => {
    const df = { type: nbd.NBD_CMD_READ, cookie: 1, length: 70_000, flags: nbd.NBD_CMD_FLAG_DF }
    expect(new Bench().errors(df)).toEqual([errno.EINVAL])
    for (const form of ['structured', 'extended'] as const) {
      expect(new Bench({ form }).ask(df).map(({ data }) => data.length)).toEqual([70_000])
    }
  })

  test('lengths beyond 32 bits are for extended headers', () => {
    const bench = new Bench({ form: 'extended', sizeBytes: SIZE })
    const long = { type: nbd.NBD_CMD_TRIM, cookie: 1, length: 2 ** 33 }
    expect(bench.errors(long)).toEqual([errno.EINVAL])
    const [reply] = bench.ask({ type: nbd.NBD_CMD_TRIM, cookie: 1, offset: 77, length: 5 })
    expect(reply).toMatchObject({ form: 'extended', type: nbd.NBD_REPLY_TYPE_NONE, offset: 77 })
  })

  test('extended: a payload where none belongs is drained; a write without one is refused', () => {
    const bench = new Bench({ form: 'extended' })
    const found = bench.errors(
      { type: nbd.NBD_CMD_READ, cookie: 1, payload: pattern(50, 1) },
      { type: nbd.NBD_CMD_WRITE, cookie: 2, length: 50 },
      { type: nbd.NBD_CMD_FLUSH, cookie: 3, payload: pattern(100_000, 1) },
      { type: nbd.NBD_CMD_FLUSH, cookie: 4 },
    )
    expect(found).toEqual([errno.EINVAL, errno.EINVAL, errno.EINVAL, 0])
    const compact = { type: nbd.NBD_CMD_FLUSH, cookie: 1, flags: nbd.NBD_CMD_FLAG_PAYLOAD_LEN }
    expect(new Bench().errors(compact)).toEqual([errno.EINVAL])
  })

  test('CACHE is bounded to what a read may ask for', () => {
    const bench = new Bench({ sizeBytes: 64 * MIB })
    expect(bench.errors({ type: nbd.NBD_CMD_CACHE, cookie: 1, length: 64 * MIB })).toEqual([0])
    expect(bench.session.calls).toEqual([`cache 0 ${32 * MIB}`])
  })

  test('BLOCK_STATUS in both descriptor forms', () => {
    const extents = [{ lengthBytes: 4096, hole: false }, { lengthBytes: 8192, hole: true }]
    const wanted = { type: nbd.NBD_CMD_BLOCK_STATUS, cookie: 1, offset: 4, length: 12_288 }
    const structured = new Bench({ form: 'structured' })
    structured.session.extents = extents
    const [first] = structured.ask(wanted)
    expect(first?.type).toBe(nbd.NBD_REPLY_TYPE_BLOCK_STATUS)
    expect(first?.data).toEqual(concat(...[1, 4096, 0, 8192, 3].map(u32)))

    const extended = new Bench({ form: 'extended' })
    extended.session.extents = extents
    const [second] = extended.ask(wanted)
    expect(second?.type).toBe(nbd.NBD_REPLY_TYPE_BLOCK_STATUS_EXT)
    expect(second?.data).toEqual(concat(...[1, 2, 0, 4096, 0, 0, 0, 8192, 0, 3].map(u32)))
    expect(second?.offset).toBe(4)
  })

  test('REQ_ONE gets one extent; without a context there is no BLOCK_STATUS', () => {
    const bench = new Bench({ form: 'structured' })
    bench.session.extents = [{ lengthBytes: 1, hole: false }, { lengthBytes: 2, hole: true }]
    const wanted = { type: nbd.NBD_CMD_BLOCK_STATUS, cookie: 1, length: 3 }
    const [one] = bench.ask({ ...wanted, flags: nbd.NBD_CMD_FLAG_REQ_ONE })
    expect(one?.data.length).toBe(12)
    expect(bench.session.calls).toEqual(['status 0 3 1'])
    const without = new Bench({ form: 'structured', blockStatus: false })
    expect(without.errors(wanted)).toEqual([errno.EINVAL])
  })

  test('a long BLOCK_STATUS reply is whole', () => {
    const bench = new Bench({ form: 'extended' })
    bench.session.extents = Array.from({ length: 16 * 1024 }, (_, i) => ({
      lengthBytes: 1 + i,
      hole: i % 2 === 0,
    }))
    const [reply] = bench.ask({ type: nbd.NBD_CMD_BLOCK_STATUS, cookie: 1, length: SIZE })
    const data = reply?.data as Uint8Array
    expect(data.length).toBe(8 + 16 * 16 * 1024)
    expect(readU32(data, data.length - 12)).toBe(16 * 1024)
  })

  test('the payload form of BLOCK_STATUS selects contexts by id', () => {
    const status = (...words: number[]): Request => ({
      type: nbd.NBD_CMD_BLOCK_STATUS,
      cookie: 1,
      payload: concat(...words.map(u32)),
    })
    const ask = (...words: number[]): number | undefined => {
      const bench = new Bench({ form: 'extended' })
      bench.session.extents = [{ lengthBytes: 4096, hole: false }]
      return bench.errors(status(...words))[0]
    }
    expect(ask(0, 4096, 1)).toBe(0)
    expect(ask(0, 4096, 2)).toBe(errno.EINVAL)
    expect(ask(0, 4096, 1, 1)).toBe(errno.EINVAL)
    expect(ask(0, 4096)).toBe(errno.EINVAL)
    expect(ask(1, 0, 1)).toBe(errno.EINVAL)
  })
})

describe('bounds', () => {
  test('outstanding bytes stop the parsing until completions and the client make room', () => {
    const limits = { outstandingBytesMax: 10_000, outstandingRequestsMax: 1024 }
    const bench = new Bench({ limits })
    bench.session.lateReads = true
    const reads = Array.from({ length: 8 }, (_, i) => ({
      type: nbd.NBD_CMD_READ,
      cookie: i,
      length: 4096,
    }))
    const bytes = bench.bytes(...reads)
    let at = bench.transmission.receive(bytes, 0, bytes.length)
    expect(bench.session.calls.length).toBe(3)
    expect(at).toBe(3 * 28)
    bench.session.completeAll()
    // The replies are made but not taken: that is no room yet.
    expect(bench.capacityCalls).toBe(0)
    const cookies: number[] = []
    while (at < bytes.length) {
      const before = bench.capacityCalls
      cookies.push(...bench.answers().map(({ cookie }) => cookie))
      expect(bench.capacityCalls).toBe(before + 1)
      at = bench.transmission.receive(bytes, at, bytes.length)
      bench.session.completeAll()
    }
    cookies.push(...bench.answers().map(({ cookie }) => cookie))
    expect(cookies).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
  })

  test('the number of requests is bounded too', () => {
    const limits = { outstandingBytesMax: 64 * MIB, outstandingRequestsMax: 3 }
    const bench = new Bench({ limits })
    const flushes = Array.from({ length: 5 }, (_, cookie) => ({ type: nbd.NBD_CMD_FLUSH, cookie }))
    const bytes = bench.bytes(...flushes)
    const at = bench.transmission.receive(bytes, 0, bytes.length)
    expect(bench.session.pendingCount).toBe(3)
    bench.session.completeAll()
    expect(bench.capacityCalls).toBe(1)
    bench.transmission.receive(bytes, at, bytes.length)
    expect(bench.session.pendingCount).toBe(2)
  })

  test('slow reads that pin shared buffers count with all they pin', () => {
    const limits = { outstandingBytesMax: MIB, outstandingRequestsMax: 1024 }
    const bench = new Bench({ limits })
    let read = 0
    while (bench.transmission.hasCapacity && read < 100_000) {
      // One slow read among many quick ones that leave at once.
      bench.session.lateReads = read % 60 === 0
      const bytes = bench.bytes({ type: nbd.NBD_CMD_READ, cookie: read++, length: 4096 })
      bench.transmission.receive(bytes, 0, bytes.length)
      bench.takeReplies()
    }
    expect(bench.allocated).toBeLessThan(2 * MIB)
    expect(read).toBeGreaterThan(200)
    bench.session.completeAll()
    bench.takeReplies()
    expect(bench.pool.keptBytes).toBe(bench.allocated)
    expect(bench.transmission.hasCapacity).toBe(true)
  })

  test('replies are announced once until they are taken', () => {
    const bench = new Bench()
    const bytes = bench.bytes(
      { type: nbd.NBD_CMD_FLUSH, cookie: 1 },
      { type: nbd.NBD_CMD_FLUSH, cookie: 2 },
    )
    bench.transmission.receive(bytes, 0, bytes.length)
    bench.session.completeAll()
    expect(bench.readyCalls).toBe(1)
    bench.takeReplies()
    bench.transmission.receive(bytes, 0, bytes.length)
    bench.session.completeAll()
    expect(bench.readyCalls).toBe(2)
  })

  test('a connection that ends inside a payload hands its buffer back', () => {
    const bench = new Bench()
    const bytes = bench.bytes({ type: nbd.NBD_CMD_WRITE, cookie: 1, payload: pattern(100_000, 1) })
    bench.transmission.receive(bytes, 0, 50_000)
    expect(bench.session.reserved.size).toBe(1)
    bench.transmission.close()
    expect(bench.session.reserved.size).toBe(0)
    expect(bench.session.closed).toBe(true)
  })

  test('a large payload can be read straight to its place', () => {
    const bench = new Bench()
    const payload = pattern(100_000, 3)
    const bytes = bench.bytes({ type: nbd.NBD_CMD_WRITE, cookie: 1, offset: 5, payload })
    bench.transmission.receive(bytes, 0, 1028)
    for (let at = 1000; at < payload.length; ) {
      const target = bench.transmission.payloadTarget() as Uint8Array
      const count = Math.min(33_333, target.length)
      target.set(payload.subarray(at, at + count))
      bench.transmission.payloadReceived(count)
      at += count
    }
    expect(bench.transmission.payloadTarget()).toBeUndefined()
    // The last part comes with the request itself.
    expect(bench.session.receivedBytes).toEqual([34_333, 67_666])
    expect(firstDifference(bench.session.bytes.slice(5, 100_005), payload)).toBe(-1)
  })
})

describe('any requests, in any splits, completed at any time', () => {
  const lengths = fc.oneof(
    fc.integer({ min: 1, max: 300 }),
    fc.constantFrom(4096, 16_384, 65_535, 65_536, 65_537, 100_000),
  )
  const requests = fc.array(
    fc.record({
      kind: fc.constantFrom('read', 'write', 'zero', 'flush', 'bad'),
      offset: fc.nat(SIZE - 100_000),
      length: lengths,
      late: fc.boolean(),
      seed: fc.nat(255),
    }),
    { minLength: 1, maxLength: 25 },
  )

  const typeOf = {
    read: nbd.NBD_CMD_READ,
    write: nbd.NBD_CMD_WRITE,
    zero: nbd.NBD_CMD_WRITE_ZEROES,
    flush: nbd.NBD_CMD_FLUSH,
    bad: 77,
  } as const

  test.each(forms)('%s: every request has its one right answer', (form) => {
    fc.assert(
      fc.property(
        requests,
        fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.boolean()), { maxLength: 40 }),
        fc.boolean(),
        fc.boolean(),
        (wanted, cuts, late, reversed) => {
          const bench = new Bench({ form })
          bench.session.lateReads = late
          const disk = new Uint8Array(SIZE)
          const expected = new Map<number, { error: number; data: Uint8Array }>()
          const sent = wanted.map(({ kind, offset, length, seed }, cookie): Request => {
            const none = new Uint8Array(0)
            const common = { type: typeOf[kind], cookie }
            expected.set(cookie, { error: kind === 'bad' ? errno.EINVAL : 0, data: none })
            if (kind === 'write') {
              const payload = pattern(length, seed)
              disk.set(payload, offset)
              return { ...common, offset, payload }
            }
            if (kind === 'flush') return common
            if (kind === 'zero') disk.fill(0, offset, offset + length)
            if (kind === 'read') {
              expected.set(cookie, { error: 0, data: disk.slice(offset, offset + length) })
            }
            return { ...common, offset, length }
          })
          const bytes = bench.bytes(...sent)
          const found: Reply[] = []
          let start = 0
          const ends = cuts.map(([at, act]) => ({ end: Math.floor(at * bytes.length), act }))
          ends.sort((a, b) => a.end - b.end)
          for (const { end, act } of [...ends, { end: bytes.length, act: true }]) {
            expect(bench.transmission.receive(bytes, start, end)).toBe(end)
            start = end
            if (!act) continue
            bench.session.completeAll(reversed)
            found.push(...bench.answers())
          }
          expect(new Set(found.map(({ cookie }) => cookie)).size).toBe(wanted.length)
          expect(found.length).toBe(wanted.length)
          for (const { cookie, error, data } of found) {
            const right = expected.get(cookie)
            expect([error, firstDifference(data, right?.data as Uint8Array)]).toEqual([right?.error, -1])
          }
          expect(firstDifference(bench.session.bytes, disk)).toBe(-1)
          expect(bench.pool.keptBytes).toBe(bench.allocated)
          expect(bench.transmission.outstandingRequests).toBe(0)
          expect(bench.transmission.replies.heldBytes).toBe(0)
        },
      ),
      { numRuns: 60 },
    )
  })

  test.each(forms)('%s: byte by byte', (form) => {
    const bench = new Bench({ form })
    const bytes = bench.bytes(
      { type: nbd.NBD_CMD_WRITE, cookie: 1, offset: 7, payload: pattern(70_000, 1) },
      { type: nbd.NBD_CMD_WRITE, cookie: 2, offset: 9, payload: pattern(100, 2) },
      { type: nbd.NBD_CMD_READ, cookie: 3, offset: 7, length: 70_000 },
    )
    for (let at = 0; at < bytes.length; at++) bench.transmission.receive(bytes, at, at + 1)
    bench.session.completeAll()
    const read = bench.answers().find(({ cookie }) => cookie === 3)
    const expected = pattern(70_000, 1)
    expected.set(pattern(100, 2), 2)
    expect(firstDifference(read?.data as Uint8Array, expected)).toBe(-1)
  })

  test.each(forms)('%s: random bytes never throw', (form) => {
    const magic = form === 'extended' ? nbd.NBD_EXTENDED_REQUEST_MAGIC : nbd.NBD_REQUEST_MAGIC
    const noise = fc.array(fc.tuple(fc.boolean(), fc.uint8Array({ minLength: 24, maxLength: 40 })))
    fc.assert(
      fc.property(noise, (pieces) => {
        const bench = new Bench({ form, limits: { outstandingBytesMax: MIB, outstandingRequestsMax: 9 } })
        for (const [right, piece] of pieces) {
          const bytes = right ? concat(u32(magic), piece) : piece
          bench.transmission.receive(bytes, 0, bytes.length)
          bench.session.completeAll()
          bench.takeReplies()
        }
        bench.transmission.close()
        expect(bench.session.reserved.size).toBe(0)
      }),
      { numRuns: 200 },
    )
  })
})
