import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { epoch, lsn, volumeId } from '@holdfast/base'
import { decodeMessage, type PeerMessage } from '@holdfast/wire'
import { afterEach, expect, it } from 'vitest'
import { decodeFrame } from './frame.ts'
import { FrameReader } from './frame-reader.ts'
import { LinkOutlet } from './link-outlet.ts'

const servers: Server[] = []
const sockets: Socket[] = []
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy()
  for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve))
})

const scope = { volume: volumeId('00112233aabbccdd'), epoch: epoch(3) }
const ack = (at: number): PeerMessage => ({ type: 'ack', ...scope, appendedLsn: lsn(at), durableLsn: lsn(0) })
const append = (at: number, payload: readonly Uint8Array[]): PeerMessage => {
  return { type: 'append', ...scope, lsn: lsn(at), committedLsn: lsn(0), payload }
}
/** One that is encoded the long way, with a head of `segments` times three bytes about. */
const subscribe = (at: number, segments: number): PeerMessage => ({
  ...{ type: 'subscribe', ...scope, seq: at, appendedLsn: lsn(at), committedLsn: lsn(0), durableLsn: lsn(0) },
  ...{ epochTable: [], lastHeaderCrc: 1, segments: Array.from({ length: segments }, (_, i) => 10_000 + i) },
})
const filled = (length: number, seed: number): Uint8Array => new Uint8Array(length).fill(seed)

interface Ends {
  readonly outlet: LinkOutlet
  readonly ours: Socket
  readonly theirs: Socket
  /** What has come, decoded. */
  readonly got: PeerMessage[]
}

/** The other end reads nothing before it is resumed. */
async function linked(): Promise<Ends> {
  const server = createServer({ pauseOnConnect: true })
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve))
  const ours = connect((server.address() as AddressInfo).port, '127.0.0.1')
  const theirs = await accepted
  sockets.push(ours, theirs)
  const got: PeerMessage[] = []
  const ignore = (): void => expect.fail('no such frame was sent')
  const reader = new FrameReader({
    begins: () => undefined,
    message: (fragments) => {
      const { header, payload } = decodeFrame(fragments)
      got.push(decodeMessage(header, payload))
    },
    ...{ ping: ignore, closing: ignore, malformed: ignore },
  })
  theirs.on('data', (chunk) => reader.bytesRead(chunk.length, chunk))
  theirs.pause()
  return { outlet: new LinkOutlet(ours, true), ours, theirs, got }
}

const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve))
}

function add(outlet: LinkOutlet, message: PeerMessage, sent?: () => void): void {
  const payload = 'payload' in message ? message.payload : []
  outlet.add(message, payload, payload.reduce((sum, { length }) => sum + length, 0), undefined, sent)
}

/** Until the stream has to hold something back. */
function fillUp({ outlet, ours }: Ends, expected: PeerMessage[]): void {
  while (ours.writableLength === 0) {
    const message = append(expected.length, [filled(500_000, expected.length), filled(3, 1)])
    expected.push({ ...message, payload: [Buffer.concat([filled(500_000, expected.length), filled(3, 1)])] } as PeerMessage)
    add(outlet, message)
    outlet.leave()
  }
}

it('sends messages of all kinds in order, past a stream that is full and behind it', async () => {
  const ends = await linked()
  const { outlet, ours, theirs, got } = ends
  const expected: PeerMessage[] = []
  const both = (message: PeerMessage): void => {
    expected.push(message)
    add(outlet, message)
  }
  fillUp(ends, expected)
  for (let i = 0; i < 2000; i++) {
    both(ack(expected.length))
    if (i % 100 === 0) both(subscribe(expected.length, i % 300 === 0 ? 9000 : 50))
    if (i % 7 === 0) both(append(expected.length, [filled(5000, i)]))
    if (i % 3 === 0) outlet.leave()
  }
  outlet.leave()
  theirs.resume()
  // Not only has the stream nothing left: the kernel has room again, too.
  await until(() => got.length === expected.length)
  expect(ours.writableLength).toBe(0)
  both(ack(expected.length))
  both(append(expected.length, [filled(70_000, 7)]))
  both(ack(expected.length))
  outlet.leave()
  expect(ours.writableLength).toBe(0)
  await until(() => got.length === expected.length)
  got.forEach((message, i) => {
    const payload = (one: PeerMessage | undefined): Buffer => Buffer.concat(one !== undefined && 'payload' in one ? one.payload : [])
    expect({ ...message, payload: [] }).toEqual({ ...expected[i], payload: [] })
    expect(payload(message).equals(payload(expected[i]))).toBe(true)
  })
})

it('keeps little memory for the small messages that a peer does not take', async () => {
  const ends = await linked()
  fillUp(ends, [])
  const before = process.memoryUsage().arrayBuffers
  for (let i = 0; i < 5000; i++) {
    add(ends.outlet, ack(i))
    ends.outlet.leave()
  }
  // Some seventy bytes each; 80 MB if each had a piece of its own.
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4e6)
})

it('says once of each message that it has left, in order, also to those that send another then', async () => {
  const ends = await linked()
  const { outlet, theirs, got } = ends
  const said: string[] = []
  const say = (what: string, then?: () => void) => (): void => {
    said.push(what)
    then?.()
  }
  add(outlet, append(0, [filled(9, 0)]), say('0', () => add(outlet, append(1, [filled(9, 1)]), say('1'))))
  add(outlet, ack(0), say('ack'))
  // The first leaves for it, and so does what that sends.
  add(outlet, append(2, [filled(9, 2)]), say('2'))
  expect(said).toEqual(['0', 'ack', '1'])
  outlet.leave()
  expect(said).toEqual(['0', 'ack', '1', '2'])
  theirs.resume()
  await until(() => got.length === 4)
  expect(got.map((message) => ('lsn' in message ? message.lsn : message.type))).toEqual([0, 'ack', 1, 2])

  theirs.pause()
  fillUp(ends, [])
  for (let i = 3; i < 9; i++) {
    add(outlet, i % 2 === 0 ? ack(i) : append(i, [filled(9, i)]), i === 5 ? undefined : say(String(i)))
    outlet.leave()
  }
  expect(said).toHaveLength(4)
  theirs.resume()
  await until(() => said.length === 9)
  expect(said.slice(4)).toEqual(['3', '4', '6', '7', '8'])
})

it('says it of what is dropped, too', async () => {
  const { outlet } = await linked()
  let said = 0
  add(outlet, ack(1), () => said++)
  outlet.drop()
  outlet.drop()
  expect([said, outlet.bytes]).toEqual([1, 0])
})
