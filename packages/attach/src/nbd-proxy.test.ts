/** The proxy against a node that is played by the test, request by request. */
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FrameReader } from './frame-reader.ts'
import { Gate, sleep } from './gate.ts'
import { offerExport, requestExport } from './nbd-handshake.ts'
import { NbdProxy } from './nbd-proxy.ts'
import { EIO, ESHUTDOWN, NBD_CMD_READ, NBD_CMD_WRITE } from './nbd-wire.ts'
import { dialUnix, socketChannel } from './socket-channel.ts'

const FLUSH = 3
const FLAGS = 0b1101101 | (1 << 8)

function request(command: number, cookie: bigint, offset: number, body: Buffer | number): Buffer {
  const header = Buffer.alloc(28)
  header.writeUInt32BE(0x25609513, 0)
  header.writeUInt16BE(command, 6)
  header.writeBigUInt64BE(cookie, 8)
  header.writeBigUInt64BE(BigInt(offset), 16)
  header.writeUInt32BE(typeof body === 'number' ? body : body.length, 24)
  return typeof body === 'number' ? header : Buffer.concat([header, body])
}

function reply(cookie: bigint, error = 0, data: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(16)
  header.writeUInt32BE(0x67446698, 0)
  header.writeUInt32BE(error, 4)
  header.writeBigUInt64BE(cookie, 8)
  return Buffer.concat([header, data])
}

/** A node: takes connections, shows what came in, answers nothing by itself. */
class PlayedNode {
  readonly path: string
  readonly received: Buffer[] = []
  size = 1024 * 1024
  connections = 0
  socket: Socket | undefined
  #server: Server | undefined

  constructor(path: string) {
    this.path = path
  }
  async start(): Promise<void> {
    const server = createServer({ pauseOnConnect: true }, (socket) => void this.#serve(socket))
    this.#server = server
    await new Promise<void>((resolve) => server.listen(this.path, resolve))
  }
  async #serve(socket: Socket): Promise<void> {
    socket.on('error', () => undefined)
    if (!(await offerExport(socketChannel(socket), { size: this.size, flags: FLAGS }).catch(() => false)))
      return
    this.connections++
    this.received.length = 0
    this.socket = socket
    const bytes = (header: Buffer): number =>
      header.readUInt16BE(6) === NBD_CMD_WRITE ? 28 + header.readUInt32BE(24) : 28
    const frames = new FrameReader(28, bytes, (frame) => this.received.push(Buffer.from(frame)))
    socket.on('data', (chunk: Buffer) => frames.push(chunk))
    socket.resume()
  }
  cookies(): bigint[] {
    return this.received.map((frame) => frame.readBigUInt64BE(8))
  }
  async stop(): Promise<void> {
    this.socket?.destroy()
    await new Promise<void>((resolve) => this.#server?.close(() => resolve()))
  }
}

async function until(holds: () => boolean): Promise<void> {
  for (const end = Date.now() + 5000; !holds(); await sleep(5)) {
    if (Date.now() > end) throw new Error('waited in vain')
  }
}

let folder: string
let node: PlayedNode
let proxy: NbdProxy
let gate: Gate
let client: Socket
let answers: Buffer[]

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-proxy-'))
  node = new PlayedNode(join(folder, 'node'))
  await node.start()
  gate = new Gate()
  gate.open()
  const listenPath = join(folder, 'proxy')
  const paths = { nbdSocket: node.path, listenPath, exportName: 'default/v' }
  proxy = new NbdProxy({ ...paths, gate, log: () => undefined, heldBytesMax: 8192 })
  await proxy.open()
  client = await dialUnix(listenPath)
  client.on('error', () => undefined)
  // No structured replies, and one connection only.
  expect(await requestExport(socketChannel(client), '')).toEqual({
    size: 1024 * 1024,
    flags: FLAGS & ~(1 << 8),
  })
  answers = []
  client.on('data', (chunk: Buffer) => answers.push(chunk))
  client.resume()
})
afterEach(async () => {
  client.destroy()
  proxy.close()
  await node.stop()
  rmSync(folder, { recursive: true, force: true })
})

const answered = (): Buffer => Buffer.concat(answers)

describe('the proxy', () => {
  it('passes requests and answers on, byte by byte', async () => {
    const payload = Buffer.alloc(3000, 5)
    client.write(
      Buffer.concat([request(NBD_CMD_WRITE, 1n, 4096, payload), request(NBD_CMD_READ, 2n, 0, 512)]),
    )
    await until(() => node.received.length === 2)
    expect(node.received[0]).toEqual(request(NBD_CMD_WRITE, 1n, 4096, payload))
    const bytes = Buffer.concat([reply(2n, 0, Buffer.alloc(512, 9)), reply(1n)])
    for (const byte of bytes) node.socket?.write(Buffer.from([byte]))
    await until(() => answered().length === bytes.length)
    expect(answered()).toEqual(bytes)
  })

  it('sends what was not answered once more, in order, and nothing else', async () => {
    const payload = Buffer.alloc(100, 5)
    client.write(request(NBD_CMD_WRITE, 1n, 0, payload))
    client.write(request(NBD_CMD_WRITE, 2n, 100, payload))
    client.write(request(NBD_CMD_READ, 3n, 0, 512))
    await until(() => node.received.length === 3)
    // Half of an answer is none.
    node.socket?.write(Buffer.concat([reply(2n), reply(3n, 0, Buffer.alloc(200, 1))]))
    await until(() => answered().length === 16)
    await node.stop()
    client.write(request(FLUSH, 4n, 0, 0))
    await sleep(100)
    await node.start()
    await until(() => node.connections === 2 && node.received.length === 3)
    expect(node.cookies()).toEqual([1n, 3n, 4n])
    expect(node.received[0]).toEqual(request(NBD_CMD_WRITE, 1n, 0, payload))
    const rest = Buffer.concat([reply(3n, 0, Buffer.alloc(512, 7)), reply(4n), reply(1n)])
    node.socket?.write(rest)
    await until(() => answered().length === 16 + rest.length)
    expect(answered().subarray(16)).toEqual(rest)
  })

  it('takes a node that shuts down for one that comes back, and errors for errors', async () => {
    client.write(request(FLUSH, 1n, 0, 0))
    client.write(request(FLUSH, 2n, 0, 0))
    await until(() => node.received.length === 2)
    node.socket?.write(Buffer.concat([reply(1n, EIO), reply(2n, ESHUTDOWN)]))
    await until(() => node.connections === 2 && node.received.length === 1)
    expect(node.cookies()).toEqual([2n])
    node.socket?.write(reply(2n))
    await until(() => answered().length === 32)
    expect(answered()).toEqual(Buffer.concat([reply(1n, EIO), reply(2n)]))
  })

  it('sends nothing while the gate is shut', async () => {
    gate.shut()
    await node.stop()
    await node.start()
    client.write(request(FLUSH, 1n, 0, 0))
    await sleep(300)
    expect(node.connections).toBe(1)
    gate.open()
    await until(() => node.connections === 2 && node.received.length === 1)
  })

  it('does not go on with a volume that came back smaller', async () => {
    await node.stop()
    node.size = 4096
    await node.start()
    client.write(request(FLUSH, 1n, 0, 0))
    await sleep(300)
    expect(node.received).toEqual([])
    expect(answered().length).toBe(0)
  })

  it('gives errors once it has failed, for what waits and for what comes', async () => {
    client.write(request(FLUSH, 1n, 0, 0))
    await until(() => node.received.length === 1)
    proxy.fail()
    client.write(request(NBD_CMD_READ, 2n, 0, 512))
    await until(() => answered().length === 32)
    expect(answered()).toEqual(Buffer.concat([reply(1n, EIO), reply(2n, EIO)]))
    await sleep(150)
    expect(node.connections).toBe(1)
  })

  it('holds a bounded number of bytes', async () => {
    await node.stop()
    const payload = Buffer.alloc(1024 * 1024, 1)
    const sizes = [1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n]
    for (const cookie of sizes) client.write(request(NBD_CMD_WRITE, cookie, 0, payload))
    await sleep(300)
    expect(client.writableLength).toBeGreaterThan(5 * payload.length)
    await node.start()
    for (const cookie of sizes) {
      await until(() => node.cookies().includes(cookie))
      node.socket?.write(reply(cookie))
    }
    await until(() => answered().length === 16 * sizes.length)
    expect(node.cookies()).toEqual(sizes)
  })
})
