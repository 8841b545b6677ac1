import { createServer, connect, type Server, Socket, type AddressInfo } from 'node:net'
import { afterEach, expect, it, vi } from 'vitest'
import { Outlet } from './outlet.ts'

const servers: Server[] = []
afterEach(async () => {
  vi.restoreAllMocks()
  for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve))
})

/** Both ends of a connection. */
async function connected(): Promise<readonly [Socket, Socket]> {
  const server = createServer()
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve))
  const ours = connect((server.address() as AddressInfo).port, '127.0.0.1')
  return [ours, await accepted]
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
  const outlet = new Outlet(ours)
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

it('leaves to the stream what the kernel does not take, in order, and goes past it again once that is sent', async () => {
  const [ours, theirs] = await connected()
  theirs.pause()
  const outlet = new Outlet(ours)
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
  const outlet = new Outlet(ours)
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
