/** A connection after its WebSocket handshake, read and written past ws: frames in, frames out. */
import type { Socket } from 'node:net'
import { type ByteSink, giveAway, noticeSilence, openDescriptor, takeOver } from '@holdfast/direct-socket'
import type { WebSocket } from 'ws'
import { OPCODE, wholeFrame } from './frame.ts'
import { type FrameHandler, FrameReader } from './frame-reader.ts'

const POLICY_VIOLATION = 1008
/** A peer that answers nothing for so long is gone, or the way to it is: the link is dialled anew. */
const SILENCE_MS = 20_000

export interface FrameSocketHandler {
  /** See `FrameHandler`. */
  begins?(bytes: Uint8Array, start: number, end: number, isLast: boolean): Buffer[] | undefined
  message(fragments: Buffer[]): void
  /** Once, and nothing after it. */
  closed(reason: string): void
}

export class FrameSocket implements FrameHandler {
  readonly socket: Socket
  readonly isClient: boolean
  readonly #reader: FrameReader
  #handler: FrameSocketHandler
  #reason: string | undefined

  private constructor(open: (sink: ByteSink) => Socket, isClient: boolean, handler: FrameSocketHandler) {
    this.isClient = isClient
    this.#handler = handler
    this.#reader = new FrameReader(this)
    this.socket = open(this.#reader)
    this.socket.setNoDelay(true)
    noticeSilence(this.socket, SILENCE_MS)
    this.socket.on('error', (error) => {
      this.#reason ??= error.message
    })
    this.socket.on('end', () => this.socket.destroy())
    this.socket.on('close', () => {
      this.#reader.end()
      this.#handler.closed(this.#reason ?? 'connection closed')
    })
  }

  /** To be called where ws says that the connection is open, before the turn ends. */
  static take(webSocket: WebSocket, used: Socket, isClient: boolean, handler: FrameSocketHandler): FrameSocket {
    const frames = new FrameSocket((sink) => takeOver(used, sink), isClient, handler)
    // It has a socket of its own no more.
    if (frames.socket !== used) webSocket.terminate()
    return frames
  }

  /** Goes on with an accepted connection that another thread has read up to here. */
  static adopt(fd: number, handler: FrameSocketHandler): FrameSocket {
    return new FrameSocket((sink) => openDescriptor(fd, sink), false, handler)
  }

  /**
   * From inside `message` of the handler: no more is read here. `left` gets the descriptor and what has been read behind
   * that message; nothing of it where the connection has closed.
   */
  leave(left: (fd: number, unread: Uint8Array) => void): void {
    this.#reader.leave()
    this.#handler = { message: () => {}, closed: () => {} }
    process.nextTick(() => {
      const { unread } = this.#reader
      const fd = giveAway(this.socket)
      if (fd !== undefined) left(fd, unread)
    })
  }

  /** What another thread had read already. */
  feed(unread: Uint8Array): void {
    if (unread.length > 0) this.#reader.bytesRead(unread.length, unread)
  }

  get open(): boolean {
    return !this.socket.destroyed && this.socket.writable
  }

  /** Who gets what comes from now on. */
  handOver(handler: FrameSocketHandler): void {
    this.#handler = handler
  }

  sendPlain(payload: Uint8Array): void {
    if (this.open) this.socket.write(wholeFrame(OPCODE.binary, payload, this.isClient))
  }

  /** Tells the other end why, and closes once that is sent. */
  refuse(reason: string): void {
    this.#reader.end()
    if (!this.open) return
    const payload = Buffer.from(`  ${reason.slice(0, 100)}`)
    payload.writeUInt16BE(POLICY_VIOLATION, 0)
    this.socket.write(wholeFrame(OPCODE.close, payload, this.isClient))
    // Not when the other end has closed, too: it may never.
    this.socket.destroySoon()
  }

  /** At once: what is on its way is lost. */
  destroy(): void {
    this.#reader.end()
    this.socket.destroy()
  }

  // --- FrameHandler

  begins(bytes: Uint8Array, start: number, end: number, isLast: boolean): Buffer[] | undefined {
    return this.#handler.begins?.(bytes, start, end, isLast)
  }

  message(fragments: Buffer[]): void {
    this.#handler.message(fragments)
  }

  ping(payload: Uint8Array): void {
    if (this.open) this.socket.write(wholeFrame(OPCODE.pong, payload, this.isClient))
  }

  closing(reason: string): void {
    this.#reason ??= reason
    this.destroy()
  }

  malformed(problem: string): void {
    this.#reason ??= problem
    this.destroy()
  }
}
