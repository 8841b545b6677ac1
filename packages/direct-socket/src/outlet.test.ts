import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, connect, type Server, Socket, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, it, vi } from 'vitest'
import { Outlet } from './outlet.ts'

const APART_BYTES = 128 * 1024
const servers: Server[] = []
const folders: string[] = []
afterEach(async () => {
  vi.restoreAllMocks()
  for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve))
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true })
})

const opened = (socket: Socket): Promise<Socket> =>
  new Promise((resolve) => socket.once('connect', () => resolve(socket)))

/** Both ends of a connection over TCP, or over a unix socket. */
async function connected(kind: 'tcp' | 'unix' = 'tcp'): Promise<readonly [Socket, Socket]> {
  const server = createServer()
  servers.push(server)
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve))
  if (kind === 'unix') {
    const folder = mkdtempSync(join(tmpdir(), 'outlet-'))
    folders.push(folder)
    const path = join(folder, 'socket')
    await new Promise<void>((resolve) => server.listen(path, resolve))
    return [await opened(connect(path)), await accepted]
  }
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return [await opened(connect((server.address() as AddressInfo).port, '127.0.0.1')), await accepted]
}

const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve))
}
const letters = (length: number, seed: number): Buffer =>
  Buffer.from(Uint8Array.from({ length }, (_, i) => (Math.imul(i + seed, 2_654_435_761) >>> 13) & 0xff))
const bounds = (...ranges: readonly (readonly [number, number])[]): Uint32Array => Uint32Array.from(ranges.flat())
const never = (): void => expect.fail('called though the kernel took everything')

/** What comes to an end, as it grows. */
function gathered(socket: Socket): { bytes: Buffer } {
  const got = { bytes: Buffer.alloc(0) }
  socket.on('data', (chunk) => (got.bytes = Buffer.concat([got.bytes, chunk])))
  return got
}

it('hands the parts to the kernel, without the stream', async () => {
  const [ours, theirs] = await connected()
  const written = vi.spyOn(Socket.prototype, 'write')
  const got = gathered(theirs)
  const outlet = new Outlet(ours, APART_BYTES)
  const parts = [letters(10, 1), letters(4096, 2), letters(10, 1)]
  expect(outlet.send(parts, bounds([2, 5], [0, 4096], [5, 10]), 3, never)).toBe(true)
  // More parts than one system call takes.
  const many = Array.from({ length: 150 }, (_, i) => letters(7, i))
  expect(outlet.send(many, bounds(...many.map(() => [0, 7] as const)), 150, never)).toBe(true)
  const expected = Buffer.concat([letters(10, 1).subarray(2, 5), letters(4096, 2), letters(10, 1).subarray(5), ...many])
  await until(() => got.bytes.length === expected.length)
  expect(got.bytes.equals(expected)).toBe(true)
  expect(written).not.toHaveBeenCalled()
  ours.destroy()
})

const taken = 'leaves to the stream what the kernel does not take, in order, and goes past it again once that is sent'
it.each([
  ['tcp', undefined],
  ['unix', APART_BYTES],
] as const)(`${taken}: %s`, async (kind, apartBytes) => {
  const [ours, theirs] = await connected(kind)
  theirs.pause()
  const outlet = new Outlet(ours, apartBytes)
  const expected: Buffer[] = []
  let done = 0
  let queued = 0
  for (let i = 0; i < 40; i++) {
    const parts = [letters(300_000, i), letters(20, i), letters(500_000, i + 1)]
    expected.push(...parts)
    if (!outlet.send(parts, bounds([0, 300_000], [0, 20], [0, 500_000]), 3, () => done++)) queued++
  }
  expect(queued).toBeGreaterThan(20)
  expect(done).toBe(0)
  const whole = Buffer.concat(expected)
  const got: Buffer[] = []
  theirs.on('data', (chunk) => got.push(chunk))
  theirs.resume()
  await until(() => done === queued)
  await until(() => got.reduce((sum, { length }) => sum + length, 0) === whole.length)
  expect(Buffer.concat(got).equals(whole)).toBe(true)
  expect(outlet.send([letters(9, 9)], bounds([0, 9]), 1, never)).toBe(true)
  ours.destroy()
})

it('says that it is done where the connection has ended, and sends to no descriptor of another', async () => {
  const [ours, theirs] = await connected()
  const outlet = new Outlet(ours, APART_BYTES)
  theirs.destroy()
  ours.resume().destroy()
  // Gets the number that was ours, most likely.
  const [other, otherEnd] = await connected()
  const got = gathered(otherEnd)
  await new Promise<void>((resolve) => {
    expect(outlet.send([letters(5, 1)], bounds([0, 5]), 1, resolve)).toBe(false)
  })
  other.end('x')
  await until(() => got.bytes.length > 0)
  expect(got.bytes.toString()).toBe('x')
})

it('gives the stream no more than one part where large ones wait behind it, so that these leave by themselves', async () => {
  const [ours, theirs] = await connected('unix')
  theirs.pause()
  const written = vi.spyOn(Socket.prototype, 'write')
  const outlet = new Outlet(ours, APART_BYTES)
  const parts = Array.from({ length: 40 }, (_, i) => letters(i % 2 === 0 ? 28 : 300_000, i))
  let done = 0
  expect(outlet.send(parts, bounds(...parts.map(({ length }) => [0, length] as const)), 40, () => done++)).toBe(false)
  expect(written).toHaveBeenCalledTimes(1)
  const got = gathered(theirs)
  theirs.resume()
  const whole = Buffer.concat(parts)
  await until(() => done > 0 && got.bytes.length === whole.length)
  expect(got.bytes.equals(whole)).toBe(true)
  expect(done).toBe(1)
  expect(outlet.send([letters(9, 9)], bounds([0, 9]), 1, never)).toBe(true)
  // One part at a time: what was cut, or what the kernel took nothing of.
  for (const [bytes] of written.mock.calls) expect((bytes as Uint8Array).length).toBeLessThanOrEqual(300_000)
  expect(written.mock.calls.length).toBeLessThanOrEqual(40)
  ours.destroy()
})

it.each(['theirs', 'ours'])('says once that it is done where %s ends while large parts wait', async (which) => {
  const [ours, theirs] = await connected('unix')
  theirs.pause()
  ours.on('error', () => {})
  const closed = new Promise((resolve) => ours.once('close', resolve))
  const outlet = new Outlet(ours, APART_BYTES)
  const parts = Array.from({ length: 20 }, (_, i) => letters(300_000, i))
  let done = 0
  expect(outlet.send(parts, bounds(...parts.map(() => [0, 300_000] as const)), 20, () => done++)).toBe(false)
  if (which === 'theirs') theirs.destroy()
  else ours.destroy()
  await until(() => done > 0)
  ours.destroy()
  theirs.destroy()
  await closed
  expect(done).toBe(1)
})

it('keeps the order where more is given while large parts wait', async () => {
  const [ours, theirs] = await connected('unix')
  theirs.pause()
  const outlet = new Outlet(ours, APART_BYTES)
  const whole: Buffer[] = []
  const called: number[] = []
  for (let i = 0; i < 5; i++) {
    const parts = [letters(28, i), letters(300_000, i), letters(28, i + 9), letters(200_000, i + 1), letters(7, i)]
    whole.push(...parts)
    const ranges = parts.map(({ length }) => [0, length] as const)
    expect(outlet.send(parts, bounds(...ranges), parts.length, () => called.push(i))).toBe(false)
  }
  const got = gathered(theirs)
  theirs.resume()
  await until(() => called.length === 5)
  const expected = Buffer.concat(whole)
  await until(() => got.bytes.length === expected.length)
  expect(got.bytes.equals(expected)).toBe(true)
  expect(called).toEqual([0, 1, 2, 3, 4])
  ours.destroy()
})

it('needs the lists no longer than the call, unless large parts are to leave by themselves', async () => {
  const [ours, theirs] = await connected('unix')
  theirs.pause()
  const outlet = new Outlet(ours)
  const parts = Array.from({ length: 20 }, (_, i) => letters(300_000, i))
  const expected = Buffer.concat(parts)
  const ranges = bounds(...parts.map(() => [0, 300_000] as const))
  let done = 0
  expect(outlet.send(parts, ranges, 20, () => done++)).toBe(false)
  parts.fill(letters(1, 1))
  ranges.fill(0)
  const got = gathered(theirs)
  theirs.resume()
  await until(() => done === 1 && got.bytes.length === expected.length)
  expect(got.bytes.equals(expected)).toBe(true)
  ours.destroy()
})
