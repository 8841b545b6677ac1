import { existsSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { errno } from '@holdfast/base'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { HandedConnection } from './connection.ts'
import type { NbdLimits } from './limits.ts'
import type { NbdListener } from './listeners.ts'
import { type NbdServer, startNbdServer } from './server.ts'
import { MemoryCatalog, MemoryExport } from './testing/memory-catalog.ts'

const SIZE = 8 * 1024 * 1024
const NBD_OPT_EXPORT_NAME = 1
const NBD_OPT_LIST = 3
const READ = 0
const WRITE = 1
const DISC = 2
const FLUSH = 3

let folder = ''
const servers: NbdServer[] = []
const clients: Client[] = []

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-nbd-'))
})

afterEach(async () => {
  for (const client of clients.splice(0)) client.socket.destroy()
  await Promise.all(servers.splice(0).map((server) => server.close()))
  rmSync(folder, { recursive: true })
})

async function start(
  memory: MemoryExport,
  limits: Partial<NbdLimits> = {},
  more: { directReads?: boolean; listeners?: NbdListener[] } = {},
): Promise<NbdServer> {
  const listeners = more.listeners ?? [{ path: join(folder, 'nbd.sock') }]
  const { directReads } = more
  const server = await startNbdServer({ catalog: new MemoryCatalog(memory), listeners, limits, directReads })
  servers.push(server)
  return server
}

function header(type: number, cookie: number, offset = 0, length = 0): Buffer {
  const bytes = Buffer.alloc(28)
  bytes.writeUInt32BE(0x25609513, 0)
  bytes.writeUInt16BE(type, 6)
  bytes.writeBigUInt64BE(BigInt(cookie), 8)
  bytes.writeBigUInt64BE(BigInt(offset), 16)
  bytes.writeUInt32BE(length, 24)
  return bytes
}

/** A bare client: what it received, and waiting for more of it. */
class Client {
  readonly socket: Socket
  closed = false
  #received = Buffer.alloc(0)
  #wake: () => void = () => undefined

  constructor(address: NbdListener) {
    this.socket = connect(address)
    clients.push(this)
    this.socket.on('data', (chunk) => {
      this.#received = Buffer.concat([this.#received, chunk])
      this.#wake()
    })
    this.socket.on('error', () => undefined)
    this.socket.on('close', () => {
      this.closed = true
      this.#wake()
    })
  }

  /** A client in the transmission phase, by NBD_OPT_EXPORT_NAME. */
  static async ready(address: NbdListener): Promise<Client> {
    const client = new Client(address)
    await client.take(18)
    const option = Buffer.alloc(20)
    option.writeUInt32BE(3, 0)
    option.write('IHAVEOPT', 4)
    option.writeUInt32BE(1, 12)
    client.socket.write(option)
    await client.take(10)
    return client
  }

  async take(count: number): Promise<Buffer> {
    while (this.#received.length < count) {
      if (this.closed) throw new Error(`closed after ${this.#received.length} of ${count} bytes`)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    const taken = this.#received.subarray(0, count)
    this.#received = this.#received.subarray(count)
    return taken
  }

  /** Error and cookie of the next simple reply. */
  async reply(): Promise<[number, number]> {
    const bytes = await this.take(16)
    expect(bytes.readUInt32BE(0)).toBe(0x67446698)
    return [bytes.readUInt32BE(4), Number(bytes.readBigUInt64BE(8))]
  }

  async untilClosed(): Promise<void> {
    while (!this.closed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !condition(); i++) await sleep(10)
  expect(condition()).toBe(true)
}

const pattern = (length: number, seed: number): Buffer =>
  Buffer.from(new Uint8Array(length).map((_, i) => (i * 13 + (i >> 8) + seed) & 0xff))

describe.each([true, false])('with direct reads: %s', (directReads) => {
  test.each(['unix', 'tcp'])('small and large requests over %s', async (kind) => {
    const memory = new MemoryExport('vol', SIZE)
    const listeners = kind === 'tcp' ? [{ host: '127.0.0.1', port: 0 }] : undefined
    const server = await start(memory, {}, { directReads, ...(listeners && { listeners }) })
    const client = await Client.ready(server.addresses[0] as NbdListener)
    const payloads = [3, 4096, 65_535, 65_536, 1_000_000, 4096, 3_000_000, 1].map(pattern)
    for (let i = 0, offset = 1; i < payloads.length; i++) {
      const payload = payloads[i] as Buffer
      client.socket.write(header(WRITE, i, offset, payload.length))
      client.socket.write(payload)
      offset += payload.length
    }
    for (let i = 0; i < payloads.length; i++) expect((await client.reply())[0]).toBe(0)
    const all = Buffer.concat(payloads)
    expect(all.equals(memory.bytes.subarray(1, 1 + all.length))).toBe(true)
    for (const length of [1, 5000, 70_000, all.length]) {
      client.socket.write(header(READ, 9, 1, length))
      expect(await client.reply()).toEqual([0, 9])
      expect((await client.take(length)).equals(all.subarray(0, length))).toBe(true)
    }
    expect(memory.reservedCount).toBe(0)
    expect(server.counters.writtenBytes).toBe(all.length)
  })

  test('a client that does not read is no longer read from, and gets everything later', async () => {
    const memory = new MemoryExport('vol', SIZE)
    memory.bytes.set(pattern(SIZE, 5))
    const server = await start(memory, { outstandingBytesMax: 2 * 1024 * 1024 }, { directReads })
    const client = await Client.ready(server.addresses[0] as NbdListener)
    client.socket.pause()
    const length = 200_000
    const requests = Array.from({ length: 100 }, (_, i) => header(READ, i, i * 1000, length))
    client.socket.write(Buffer.concat(requests))
    await until(() => server.counters.stalls > 0)
    await sleep(50)
    // The bound, what the kernel holds (twice the buffer that was asked for), and a request beyond; of 20 MB.
    expect(server.counters.readBytes).toBeLessThan(5 * 1024 * 1024)
    client.socket.resume()
    for (let i = 0; i < 100; i++) {
      expect(await client.reply()).toEqual([0, i])
      const data = await client.take(length)
      expect(data.equals(memory.bytes.subarray(i * 1000, i * 1000 + length))).toBe(true)
    }
  })

  test('a client that asks much and takes the answers of its handshake late is served all the same', async () => {
    const name = 'v'.repeat(4000)
    const memory = new MemoryExport(name, SIZE)
    memory.bytes.set(pattern(SIZE, 5))
    const server = await start(memory, {}, { directReads })
    const client = new Client(server.addresses[0] as NbdListener)
    await client.take(18)
    client.socket.pause()
    const option = (number: number): Buffer => {
      const bytes = Buffer.alloc(16)
      bytes.write('IHAVEOPT', 0)
      bytes.writeUInt32BE(number, 8)
      return bytes
    }
    const flags = Buffer.from([0, 0, 0, 3])
    const lists = Array.from({ length: 800 }, () => option(NBD_OPT_LIST))
    const reads = [header(READ, 7, 4096, 4096), header(READ, 8, 5000, 200_000), header(READ, 9, 0, 300_000)]
    // All in one chunk, more than 3 MB of answers.
    client.socket.write(Buffer.concat([flags, ...lists, option(NBD_OPT_EXPORT_NAME), ...reads]))
    await sleep(50)
    client.socket.resume()
    await client.take(lists.length * (20 + 4 + name.length + 20) + 10)
    for (const [cookie, offset, length] of [
      [7, 4096, 4096],
      [8, 5000, 200_000],
      [9, 0, 300_000],
    ] as const) {
      expect(await client.reply()).toEqual([0, cookie])
      expect((await client.take(length)).equals(memory.bytes.subarray(offset, offset + length))).toBe(true)
    }
    client.socket.write(header(READ, 10, 0, 4096))
    expect(await client.reply()).toEqual([0, 10])
  })

  test('writes beyond the bound wait in the socket until earlier ones are answered', async () => {
    const memory = new MemoryExport('vol', SIZE, { held: true })
    const server = await start(memory, { outstandingBytesMax: 1024 * 1024 }, { directReads })
    const client = await Client.ready(server.addresses[0] as NbdListener)
    const count = 20
    for (let i = 0; i < count; i++) {
      client.socket.write(header(WRITE, i, i * 200_000, 200_000))
      client.socket.write(pattern(200_000, i))
    }
    await until(() => server.counters.stalls > 0)
    await sleep(50)
    expect(server.counters.requests).toBeLessThan(8)
    memory.release()
    for (let i = 0; i < count; i++) expect((await client.reply())[0]).toBe(0)
    for (let i = 0; i < count; i++) {
      const written = memory.bytes.subarray(i * 200_000, (i + 1) * 200_000)
      expect(pattern(200_000, i).equals(written)).toBe(true)
    }
  })
})

describe('bad clients', () => {
  test('a handshake that is not finished in time ends', async () => {
    const server = await start(new MemoryExport('vol', SIZE), { handshakeTimeoutMs: 50 })
    const ready = await Client.ready(server.addresses[0] as NbdListener)
    const slow = new Client(server.addresses[0] as NbdListener)
    await slow.untilClosed()
    expect(server.counters.handshakeTimeouts).toBe(1)
    expect(ready.closed).toBe(false)
  })

  test('connections beyond the bound are turned away, and room is made when one ends', async () => {
    const server = await start(new MemoryExport('vol', SIZE), { connectionsMax: 2 })
    const address = server.addresses[0] as NbdListener
    const first = await Client.ready(address)
    await Client.ready(address)
    const third = new Client(address)
    await third.untilClosed()
    expect(server.counters.connectionsRefused).toBe(1)
    first.socket.destroy()
    await until(() => server.counters.connections === 1)
    await Client.ready(address)
  })

  test('garbage ends its own connection and no other', async () => {
    const memory = new MemoryExport('vol', SIZE)
    const server = await start(memory)
    const address = server.addresses[0] as NbdListener
    const good = await Client.ready(address)
    const bad = await Client.ready(address)
    bad.socket.write(pattern(1000, 1))
    await bad.untilClosed()
    const rude = await Client.ready(address)
    rude.socket.write(header(WRITE, 1, 0, 1_000_000))
    rude.socket.write(pattern(300_000, 1))
    await until(() => memory.reservedCount === 1)
    rude.socket.destroy()
    await until(() => memory.openSessions === 1)
    expect(memory.reservedCount).toBe(0)
    good.socket.write(header(FLUSH, 7))
    expect(await good.reply()).toEqual([0, 7])
  })

  test('a catalog that throws costs the connection only', async () => {
    const memory = new MemoryExport('vol', SIZE)
    const catalog = new MemoryCatalog(memory)
    let broken = true
    const find = catalog.find.bind(catalog)
    catalog.find = (name) => {
      if (broken) throw new Error('broken')
      return find(name)
    }
    const listeners = [{ path: join(folder, 'nbd.sock') }]
    const server = await startNbdServer({ catalog, listeners })
    servers.push(server)
    await expect(Client.ready(listeners[0] as NbdListener)).rejects.toThrow('closed')
    broken = false
    await Client.ready(listeners[0] as NbdListener)
  })
})

describe('the end', () => {
  test('DISC: everything before it is answered, then the connection closes', async () => {
    const memory = new MemoryExport('vol', SIZE, { held: true })
    const server = await start(memory)
    const client = await Client.ready(server.addresses[0] as NbdListener)
    client.socket.write(Buffer.concat([header(WRITE, 1, 0, 4), pattern(4, 1), header(DISC, 2)]))
    client.socket.end()
    await until(() => server.counters.requests === 2)
    await sleep(20)
    expect(memory.openSessions).toBe(1)
    memory.release()
    expect(await client.reply()).toEqual([0, 1])
    await client.untilClosed()
    await until(() => memory.openSessions === 0)
  })

  test('close waits for what is under way and refuses what is new', async () => {
    const memory = new MemoryExport('vol', SIZE, { held: true })
    const server = await start(memory)
    const client = await Client.ready(server.addresses[0] as NbdListener)
    client.socket.write(header(FLUSH, 1))
    await until(() => server.counters.requests === 1)
    const closed = server.close()
    client.socket.write(header(FLUSH, 2))
    expect(await client.reply()).toEqual([errno.ESHUTDOWN, 2])
    memory.release()
    expect(await client.reply()).toEqual([0, 1])
    await closed
    await client.untilClosed()
    expect(memory.openSessions).toBe(0)
  })

  test('close does not wait for ever', async () => {
    const memory = new MemoryExport('vol', SIZE, { held: true })
    const server = await start(memory, { drainTimeoutMs: 50 })
    const client = await Client.ready(server.addresses[0] as NbdListener)
    client.socket.write(header(FLUSH, 1))
    await until(() => server.counters.requests === 1)
    await server.close()
    expect(memory.openSessions).toBe(0)
    expect(server.counters.connections).toBe(0)
  })
})

describe.each(['unix', 'tcp'])('a connection over %s to an export of another shard', (kind) => {
  /** Two servers as two threads would have them: the second one's catalog knows the export `known` ms later. */
  async function pair(
    memory: MemoryExport,
    { limits = {}, knownMs = 0, directReads = true }: { limits?: Partial<NbdLimits>; knownMs?: number; directReads?: boolean } = {},
  ): Promise<readonly [NbdServer, NbdServer]> {
    const catalog = new MemoryCatalog(memory)
    const knownAt = performance.now() + knownMs
    const away = {
      list: () => catalog.list(),
      find: (name: string) => catalog.find(name),
      away: () => 1,
      open: (): never => {
        throw new Error('opened where it is away')
      },
    }
    const late = {
      list: () => catalog.list(),
      find: (name: string) => (performance.now() < knownAt ? undefined : catalog.find(name)),
      open: (...args: Parameters<MemoryCatalog['open']>) => catalog.open(...args),
    }
    const adoptedClosed = (): void => first.returned()
    const second = await startNbdServer({ catalog: late, listeners: [], limits, adoptedClosed })
    servers.push(second)
    const listeners = [kind === 'tcp' ? { host: '127.0.0.1', port: 0 } : { path: join(folder, 'nbd.sock') }]
    const handOver = (handed: HandedConnection): void => second.adopt(structuredClone(handed))
    const first = await startNbdServer({ catalog: away, listeners, limits, handOver, directReads })
    servers.push(first)
    return [first, second]
  }

  test.each([true, false])('goes there with what was sent behind the handshake; direct reads: %s', async (directReads) => {
    const memory = new MemoryExport('vol', SIZE)
    const [first, second] = await pair(memory, { knownMs: 50, directReads })
    const client = new Client(first.addresses[0] as NbdListener)
    await client.take(18)
    const option = Buffer.alloc(20)
    option.writeUInt32BE(3, 0)
    option.write('IHAVEOPT', 4)
    option.writeUInt32BE(1, 12)
    const payload = pattern(300_000, 5)
    client.socket.write(Buffer.concat([option, header(WRITE, 1, 7, payload.length), payload]))
    await client.take(10)
    expect(await client.reply()).toEqual([0, 1])
    client.socket.write(header(READ, 2, 7, payload.length))
    expect(await client.reply()).toEqual([0, 2])
    expect((await client.take(payload.length)).equals(payload)).toBe(true)
    expect(memory.openSessions).toBe(1)
    expect([first.counters, second.counters].map(({ connections, requests }) => [connections, requests])).toEqual([[1, 0], [0, 2]])
    client.socket.write(header(DISC, 3))
    await client.untilClosed()
    await until(() => memory.openSessions === 0 && first.counters.connections === 0)
  })

  test('counts where it was accepted', async () => {
    const [first, second] = await pair(new MemoryExport('vol', SIZE), { limits: { connectionsMax: 1 } })
    const client = await Client.ready(first.addresses[0] as NbdListener)
    client.socket.write(header(FLUSH, 1))
    await client.reply()
    const refused = new Client(first.addresses[0] as NbdListener)
    await refused.untilClosed()
    client.socket.destroy()
    await until(() => first.counters.connections === 0)
    await Client.ready(first.addresses[0] as NbdListener)
    expect(first.counters).toMatchObject({ connections: 1, connectionsAccepted: 2, connectionsRefused: 1 })
    expect(second.counters).toMatchObject({ connections: 0, connectionsAccepted: 0 })
  })

  test('ends in order there when both close', async () => {
    const memory = new MemoryExport('vol', SIZE, { held: true })
    const [first, second] = await pair(memory)
    const client = await Client.ready(first.addresses[0] as NbdListener)
    client.socket.write(header(FLUSH, 1))
    await until(() => second.counters.requests === 1)
    await first.close()
    const closed = second.close()
    client.socket.write(header(FLUSH, 2))
    expect(await client.reply()).toEqual([errno.ESHUTDOWN, 2])
    memory.release()
    expect(await client.reply()).toEqual([0, 1])
    await closed
    await client.untilClosed()
    expect(memory.openSessions).toBe(0)
  })

  test.each([0, 50])('that the client resets meanwhile ends quietly; the export is known after %i ms', async (knownMs) => {
    const memory = new MemoryExport('vol', SIZE)
    const [first] = await pair(memory, { knownMs })
    for (let i = 0; i < 20; i++) {
      const client = new Client(first.addresses[0] as NbdListener)
      await client.take(18)
      const option = Buffer.alloc(20)
      option.writeUInt32BE(3, 0)
      option.write('IHAVEOPT', 4)
      option.writeUInt32BE(1, 12)
      client.socket.write(option)
      if (i % 2 === 0) await client.take(10)
      if (kind === 'tcp') client.socket.resetAndDestroy()
      else client.socket.destroy()
    }
    await sleep(knownMs)
    await until(() => first.counters.connections === 0)
    expect(memory.openSessions).toBe(0)
  })

  test('is dropped where the export is gone when it comes', async () => {
    const memory = new MemoryExport('vol', SIZE)
    const [first, second] = await pair(memory, { knownMs: 60_000 })
    const client = await Client.ready(first.addresses[0] as NbdListener)
    expect(first.counters.connections).toBe(1)
    await second.close()
    await client.untilClosed()
    expect(first.counters.connections).toBe(0)
  })
})

describe('listeners', () => {
  test('several at once; the real port is told', async () => {
    const listeners = [{ host: '127.0.0.1', port: 0 }, { path: join(folder, 'a.sock') }]
    const server = await start(new MemoryExport('vol', SIZE), {}, { listeners })
    for (const address of server.addresses) await Client.ready(address)
    expect(server.addresses[0]).not.toEqual(listeners[0])
  })

  test('a stale socket file is replaced, one in use is not, other files are left alone', async () => {
    const path = join(folder, 'stale.sock')
    // A socket file whose owner died: closing a server would remove it, so that its path is moved.
    const dead = createServer()
    await new Promise<void>((resolve) => dead.listen(join(folder, 'x.sock'), resolve))
    renameSync(join(folder, 'x.sock'), path)
    await new Promise<void>((resolve) => dead.close(() => resolve()))
    expect(existsSync(path)).toBe(true)

    const memory = new MemoryExport('vol', SIZE)
    const server = await start(memory, {}, { listeners: [{ path }] })
    const again = startNbdServer({ catalog: new MemoryCatalog(memory), listeners: [{ path }] })
    await expect(again).rejects.toMatchObject({ code: 'HF_CONFLICT' })
    await Client.ready({ path })
    await server.close()
    expect(existsSync(path)).toBe(false)

    writeFileSync(path, 'precious')
    const refused = startNbdServer({ catalog: new MemoryCatalog(memory), listeners: [{ path }] })
    await expect(refused).rejects.toMatchObject({ code: 'HF_CONFLICT' })
    expect(existsSync(path)).toBe(true)
  })

  test('when one listener fails none stays open', async () => {
    const memory = new MemoryExport('vol', SIZE)
    const path = join(folder, 'a.sock')
    const listeners = [{ path }, { path: join(folder, 'no', 'such', 'folder') }]
    const failing = startNbdServer({ catalog: new MemoryCatalog(memory), listeners })
    await expect(failing).rejects.toMatchObject({ code: 'HF_IO' })
    expect(existsSync(path)).toBe(false)
  })
})
