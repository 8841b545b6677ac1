/**
 * Stands between one NBD client (nbdfuse) and the node. Keeps every request until it is answered; when the
 * node goes, it waits, connects again and sends what was not answered once more, in order. The client sees a
 * pause.
 */
import { createServer, type Server, type Socket } from 'node:net'
import { HoldfastError } from '@holdfast/base'
import { FrameReader } from './frame-reader.ts'
import { sleep, type Gate } from './gate.ts'
import { type ExportShape, offerExport, requestExport } from './nbd-handshake.ts'
import * as nbd from './nbd-wire.ts'
import { dialUnix, socketChannel } from './socket-channel.ts'

export interface ProxyOptions {
  /** Of the node. */
  readonly nbdSocket: string
  readonly exportName: string
  /** Where the client connects. */
  readonly listenPath: string
  readonly gate: Gate
  readonly log: (text: string) => void
  readonly heldBytesMax?: number | undefined
}

/** What the client may be told: everything else would need more than simple replies. */
const FLAGS_PASSED =
  nbd.NBD_FLAG_HAS_FLAGS |
  nbd.NBD_FLAG_READ_ONLY |
  nbd.NBD_FLAG_SEND_FLUSH |
  nbd.NBD_FLAG_SEND_FUA |
  nbd.NBD_FLAG_SEND_TRIM |
  nbd.NBD_FLAG_SEND_WRITE_ZEROES

const HELD_BYTES_MAX = 64 * 1024 * 1024
const HANDSHAKE_MS_MAX = 10_000
const RETRY_MS_MIN = 50
const RETRY_MS_MAX = 1000

export class NbdProxy {
  readonly #options: ProxyOptions
  /** Unanswered requests by cookie, oldest first. */
  readonly #held = new Map<bigint, Buffer>()
  #heldBytes = 0
  #server: Server | undefined
  #upstream: Socket | undefined
  #client: Socket | undefined
  #shape: ExportShape | undefined
  #failed = false
  #closed = false

  constructor(options: ProxyOptions) {
    this.#options = options
  }

  /** Connects to the node and listens for the client. Rejects if the node does not serve the export. */
  async open(): Promise<void> {
    await this.#options.gate.pass()
    this.#begin(await this.#dial())
    const server = createServer({ pauseOnConnect: true }, (socket) => void this.#serve(socket))
    this.#server = server
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(this.#options.listenPath, resolve)
    })
  }

  /** Answers everything with an I/O error from now on: the volume may be somebody else's. */
  fail(): void {
    if (this.#failed) return
    this.#failed = true
    this.#upstream?.destroy()
    for (const request of [...this.#held.values()]) this.#answerWithError(request)
  }

  close(): void {
    this.#closed = true
    this.#server?.close()
    this.#client?.destroy()
    const goodbye = Buffer.alloc(nbd.REQUEST_BYTES)
    goodbye.writeUInt32BE(nbd.NBD_REQUEST_MAGIC, 0)
    goodbye.writeUInt16BE(nbd.NBD_CMD_DISC, 6)
    this.#upstream?.end(goodbye)
  }

  async #serve(socket: Socket): Promise<void> {
    socket.on('error', () => undefined)
    if (this.#client !== undefined || this.#shape === undefined) {
      socket.destroy()
      return
    }
    this.#client = socket
    try {
      const shape = { size: this.#shape.size, flags: this.#shape.flags & FLAGS_PASSED }
      if (!(await offerExport(socketChannel(socket), shape))) {
        this.#client = undefined
        socket.end()
        return
      }
      const frames = new FrameReader(nbd.REQUEST_BYTES, requestBytes, (frame) => this.#takeRequest(frame))
      socket.on('data', (chunk: Buffer) => {
        try {
          frames.push(chunk)
        } catch (error) {
          this.#options.log(`the client sent nonsense: ${String(error)}`)
          socket.destroy()
        }
      })
      socket.on('drain', () => this.#upstream?.resume())
      socket.once('close', () => this.#forgetClient(socket))
      socket.resume()
    } catch {
      this.#forgetClient(socket)
      socket.destroy()
    }
  }

  #forgetClient(socket: Socket): void {
    if (this.#client !== socket) return
    this.#client = undefined
    this.#held.clear()
    this.#heldBytes = 0
  }

  #takeRequest(request: Buffer): void {
    if (request.readUInt16BE(6) === nbd.NBD_CMD_DISC) {
      this.#client?.end()
      return
    }
    this.#held.set(request.readBigUInt64BE(8), request)
    this.#heldBytes += request.length
    if (this.#failed) return this.#answerWithError(request)
    this.#upstream?.write(request)
    if (this.#heldBytes > (this.#options.heldBytesMax ?? HELD_BYTES_MAX)) this.#client?.pause()
  }

  /** Makes a fresh connection the one in use, and sends on it what is still open. */
  #begin(upstream: Socket): void {
    this.#upstream = upstream
    const frames = new FrameReader(
      nbd.REPLY_BYTES,
      (header) => this.#replyBytes(header),
      (frame) => this.#takeReply(frame),
    )
    upstream.on('data', (chunk: Buffer) => {
      if (this.#upstream !== upstream) return
      try {
        frames.push(chunk)
      } catch (error) {
        this.#options.log(`connection to the node dropped: ${String(error)}`)
        upstream.destroy()
      }
    })
    upstream.once('close', () => void this.#reconnect(upstream))
    upstream.once('end', () => upstream.destroy())
    for (const request of this.#held.values()) upstream.write(request)
    upstream.resume()
  }

  async #reconnect(from: Socket): Promise<void> {
    if (this.#upstream !== from) return
    this.#upstream = undefined
    if (this.#closed || this.#failed) return
    this.#options.log(`the node has gone; ${this.#held.size} requests wait`)
    let said = ''
    for (let wait = RETRY_MS_MIN; !this.#closed && !this.#failed; wait = Math.min(wait * 2, RETRY_MS_MAX)) {
      await this.#options.gate.pass()
      try {
        const upstream = await this.#dial()
        // Both can have changed while the handshake ran.
        if (this.#closed || this.#failed || !this.#options.gate.isOpen) {
          upstream.destroy()
          continue
        }
        this.#options.log(`connected again; sending ${this.#held.size} requests once more`)
        this.#begin(upstream)
        return
      } catch (error) {
        const text = `not yet: ${error instanceof Error ? error.message : String(error)}`
        if (text !== said) this.#options.log(text)
        said = text
        await sleep(wait)
      }
    }
  }

  async #dial(): Promise<Socket> {
    const socket = await dialUnix(this.#options.nbdSocket)
    socket.on('error', () => undefined)
    const timer = setTimeout(() => socket.destroy(), HANDSHAKE_MS_MAX)
    try {
      const shape = await requestExport(socketChannel(socket), this.#options.exportName)
      const known = this.#shape
      if (known !== undefined && (shape.size < known.size || shape.flags !== known.flags)) {
        throw new HoldfastError(
          'HF_CONFLICT',
          `${this.#options.exportName} came back smaller or with other flags`,
        )
      }
      this.#shape ??= shape
      return socket
    } catch (error) {
      socket.destroy()
      throw error
    } finally {
      clearTimeout(timer)
    }
  }

  #replyBytes(header: Buffer): number {
    if (header.readUInt32BE(0) !== nbd.NBD_SIMPLE_REPLY_MAGIC) throw new Error('not a simple reply')
    const request = this.#held.get(header.readBigUInt64BE(8))
    if (request === undefined) throw new Error('an answer to nothing')
    const isData = request.readUInt16BE(6) === nbd.NBD_CMD_READ && header.readUInt32BE(4) === 0
    return nbd.REPLY_BYTES + (isData ? request.readUInt32BE(24) : 0)
  }

  #takeReply(reply: Buffer): void {
    // The node is about to stop: the next one answers.
    if (reply.readUInt32BE(4) === nbd.ESHUTDOWN) throw new Error('the node shuts down')
    this.#answer(reply)
  }

  #answerWithError(request: Buffer): void {
    const reply = Buffer.alloc(nbd.REPLY_BYTES)
    reply.writeUInt32BE(nbd.NBD_SIMPLE_REPLY_MAGIC, 0)
    reply.writeUInt32BE(nbd.EIO, 4)
    request.copy(reply, 8, 8, 16)
    this.#answer(reply)
  }

  #answer(reply: Buffer): void {
    const cookie = reply.readBigUInt64BE(8)
    const request = this.#held.get(cookie)
    if (request === undefined) return
    this.#held.delete(cookie)
    this.#heldBytes -= request.length
    const client = this.#client
    if (client === undefined) return
    if (!client.write(reply)) this.#upstream?.pause()
    if (client.isPaused() && this.#heldBytes <= (this.#options.heldBytesMax ?? HELD_BYTES_MAX))
      client.resume()
  }
}

function requestBytes(header: Buffer): number {
  if (header.readUInt32BE(0) !== nbd.NBD_REQUEST_MAGIC) throw new Error('not a request')
  if (header.readUInt16BE(6) !== nbd.NBD_CMD_WRITE) return nbd.REQUEST_BYTES
  const length = header.readUInt32BE(24)
  if (length > nbd.PAYLOAD_BYTES_MAX) throw new Error(`a write of ${length} bytes`)
  return nbd.REQUEST_BYTES + length
}
