import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import type { AddressInfo } from 'node:net'
import { native } from '@holdfast/addon'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { type ByteSink, giveAway, openDescriptor, openForReading, takeOver } from './direct-socket.ts'
import { atEndOfTurn } from './turn.ts'

const servers: Server[] = []
afterEach(async () => {
  for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve))
})

class Gathered implements ByteSink {
  readonly buffer = new Uint8Array(16)
  text = ''
  readBuffer(): Uint8Array {
    return this.buffer
  }
  bytesRead(count: number, buffer: Uint8Array): boolean {
    this.text += Buffer.from(buffer.subarray(0, count)).toString()
    return true
  }
}

/** A server that does `accept` with each connection, and a client of it. */
async function connected(pauseOnConnect: boolean, accept: (socket: Socket) => void): Promise<Socket> {
  const server = createServer({ pauseOnConnect }, accept)
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return connect((server.address() as AddressInfo).port, '127.0.0.1')
}

const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve))
}

describe('a socket that is given away', () => {
  it('goes on where its descriptor is opened, and its server counts it no more', async () => {
    const [before, after] = [new Gathered(), new Gathered()]
    let ours: Socket | undefined
    const client = await connected(true, (socket) => {
      const first = openForReading(socket, before)
      first.write('one ')
      setTimeout(() => {
        const fd = giveAway(first) as number
        setTimeout(() => {
          ours = openDescriptor(fd, after)
          ours.write('two')
          ours.on('end', () => ours?.end(' bye'))
        }, 20)
      }, 20)
    })
    client.write('before')
    let answer = ''
    client.on('data', (chunk) => (answer += chunk.toString()))
    await until(() => answer === 'one two')
    // The server has no connection of its own left.
    const server = servers.pop() as Server
    await new Promise((resolve) => server.close(resolve))
    client.end('after, more than sixteen bytes')
    await until(() => answer === 'one two bye')
    expect([before.text, after.text]).toEqual(['before', 'after, more than sixteen bytes'])
  })

  it('must be open and have sent what it was to write', async () => {
    const given: unknown[] = []
    const client = await connected(true, (socket) => {
      const ours = openForReading(socket, new Gathered())
      ours.cork()
      ours.write('waits')
      given.push(giveAway(ours), ours.destroyed, giveAway(ours))
    })
    client.on('error', () => {})
    await until(() => given.length > 0)
    expect(given).toEqual([undefined, true, undefined])
    client.destroy()
  })
})

/** A head of sixteen bytes, and a large piece behind it. */
class LargePiece extends Gathered {
  readonly piece = new Uint8Array(1024 * 1024)
  filled = 0
  /** How much of the piece had come when a turn that read some of it ended. */
  readonly turns: number[] = []
  /** What it says to the first read of the piece. */
  atFirst: () => boolean = () => true

  override readBuffer(): Uint8Array {
    return this.restBuffer() ?? this.buffer
  }
  restBuffer(): Uint8Array | undefined {
    const begun = this.text !== '' && this.filled < this.piece.length
    return begun ? this.piece.subarray(this.filled) : undefined
  }
  override bytesRead(count: number, buffer: Uint8Array): boolean {
    if (this.text === '') atEndOfTurn(() => this.turns.push(this.filled))
    if (buffer === this.buffer) return super.bytesRead(count, buffer)
    const first = this.filled === 0
    this.filled += count
    return first ? this.atFirst() : true
  }
}

describe('a large piece that has begun', () => {
  const sent = Uint8Array.from({ length: 16 + 1024 * 1024 + 5 }, (_, i) => 32 + (i % 90))

  /** The server reads when the client has sent what the kernel takes. */
  async function serving(sink: LargePiece): Promise<{ client: Socket; ours: Socket }> {
    const accepted: Socket[] = []
    const client = await connected(true, (socket) => accepted.push(socket))
    // What was sent to a socket that is closed is refused.
    client.on('error', () => {})
    client.write(sent)
    await until(() => accepted.length > 0)
    await new Promise((resolve) => setTimeout(resolve, 20))
    return { client, ours: openForReading(accepted[0] as Socket, sink) }
  }

  it('is read on in the same turn, and what comes behind it is not lost', async () => {
    const sink = new LargePiece()
    const { client, ours } = await serving(sink)
    await until(() => sink.text.length === 21)
    expect(Buffer.compare(sink.piece, sent.subarray(16, 16 + sink.piece.length))).toBe(0)
    expect(sink.text).toBe(Buffer.from(sent.subarray(0, 16)).toString() + Buffer.from(sent.subarray(-5)).toString())
    expect(sink.turns[0]).toBeGreaterThan(0)
    for (const socket of [client, ours]) socket.destroy()
  })

  it('is read no further where its socket was closed, or was to be read no more', async () => {
    const closed = new LargePiece()
    const paused = new LargePiece()
    const one = await serving(closed)
    closed.atFirst = () => {
      one.ours.destroy()
      return true
    }
    const other = await serving(paused)
    paused.atFirst = () => {
      other.ours.pause()
      return false
    }
    await until(() => closed.filled > 0 && paused.filled > 0)
    const reached = [closed.filled, paused.filled]
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect([closed.filled, paused.filled]).toEqual(reached)
    expect(reached[1]).toBeLessThan(paused.piece.length)
    other.ours.resume()
    await until(() => paused.text.length === 21)
    expect(Buffer.compare(paused.piece, sent.subarray(16, 16 + paused.piece.length))).toBe(0)
    for (const socket of [one.client, other.client, other.ours]) socket.destroy()
  })

  it('holds nobody up for longer than two MiB take, or as many calls as they may take', async () => {
    const receive = vi.spyOn(native, 'receive').mockReturnValue(1)
    const sink = new LargePiece()
    const { client, ours } = await serving(sink)
    await until(() => sink.turns.length > 0)
    expect(sink.turns[0]).toBe(32)
    receive.mockRestore()
    for (const socket of [client, ours]) socket.destroy()
  })

  it('says why it ends where the connection fails in the middle of it', async () => {
    const accepted: Socket[] = []
    const client = await connected(true, (socket) => accepted.push(socket))
    await new Promise((resolve) => client.write(sent.subarray(0, 1016), resolve))
    await until(() => accepted.length > 0)
    client.resetAndDestroy()
    await new Promise((resolve) => setTimeout(resolve, 20))
    const sink = new LargePiece()
    const ours = openForReading(accepted[0] as Socket, sink)
    const [error] = await once(ours, 'error')
    expect([error.code, sink.filled]).toEqual(['ECONNRESET', 1000])
  })
})

describe('a socket that reads into our buffer', () => {
  it('is made of a paused one', async () => {
    const got = new Gathered()
    const client = await connected(true, (socket) => {
      const ours = openForReading(socket, got)
      ours.on('end', () => ours.end('bye'))
    })
    client.end('more than sixteen bytes of it')
    let answer = ''
    client.on('data', (chunk) => (answer += chunk.toString()))
    await until(() => answer === 'bye')
    expect(got.text).toBe('more than sixteen bytes of it')
  })

  it('is made of one that has been read, and gets what was not taken first', async () => {
    const got = new Gathered()
    let first = ''
    let old: Socket | undefined
    let ours: Socket | undefined
    const client = await connected(false, (socket) => {
      socket.once('data', (chunk) => {
        first = chunk.toString().slice(0, 5)
        socket.unshift(chunk.subarray(5))
        socket.on('data', () => (first += ' and more than it should'))
        ours = takeOver(socket, got)
        old = socket
        // Its former owner can do with it what it likes.
        socket.destroy()
        ours.write('taken')
      })
    })
    client.write('hello, rest')
    let answer = ''
    client.on('data', (chunk) => (answer += chunk.toString()))
    await until(() => answer === 'taken')
    client.write(' and what came later')
    await until(() => got.text.endsWith('later'))
    expect([first, got.text]).toEqual(['hello', ', rest and what came later'])
    expect([old?.destroyed, ours?.destroyed]).toEqual([true, false])
    client.destroy()
    // The server's count of its connections still goes down to nothing: `afterEach` waits for it.
    await until(() => ours?.destroyed === true || ours?.readableEnded === true)
    ours?.destroy()
  })
})
