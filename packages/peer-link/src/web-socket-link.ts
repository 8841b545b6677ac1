/** One open WebSocket between two nodes that have said who they are. */
import type { Socket } from 'node:net'
import type { Incarnation, NodeId, PeerChannel, PeerLink, PeerLinkHandler } from '@holdfast/base'
import { decodeMessage, encodeMessage, type Hello, type PeerMessage } from '@holdfast/wire'
import type { WebSocket } from 'ws'
import { compressed, decodeFrame, encodeFrameHead } from './frame.ts'

/** Payloads at least this large are worth a try when the link is slower than its producer. */
const COMPRESS_BYTES_MIN = 16 * 1024
/** Unsent bytes that say so. */
const SLOW_LINK_BYTES = 2 * 1024 * 1024
/** After a try that did not pay, so many payloads go as they are. */
const COMPRESS_PAUSE = 64

export class WebSocketLink implements PeerLink<PeerMessage> {
  readonly node: NodeId
  readonly channel: PeerChannel
  readonly incarnation: Incarnation
  readonly #webSocket: WebSocket
  readonly #socket: Socket
  readonly #compress: boolean
  #compressPause = 0
  #corked = false
  #closed = false

  constructor(webSocket: WebSocket, socket: Socket, peer: Hello, compress: boolean) {
    this.node = peer.from
    this.channel = peer.channel
    this.incarnation = peer.incarnation
    this.#webSocket = webSocket
    this.#socket = socket
    this.#compress = compress
  }

  /** Takes the socket's events from now on. */
  listen(handler: PeerLinkHandler<PeerMessage>, problem: (reason: string) => void): void {
    this.#webSocket.on('message', (data) => {
      let message: PeerMessage
      try {
        const { header, payload } = decodeFrame(data as Buffer[])
        message = decodeMessage(header, payload)
      } catch (error) {
        problem(error instanceof Error ? error.message : 'malformed frame')
        this.close('protocol error')
        return
      }
      if (!this.#closed) handler.message(this, message)
    })
    this.#webSocket.on('close', (_code, reason) => {
      this.#closed = true
      handler.closed(this, reason.toString() || 'connection closed')
    })
  }

  send(message: PeerMessage, sent?: () => void): void {
    if (this.#closed || this.#webSocket.readyState !== this.#webSocket.OPEN) {
      if (sent !== undefined) setImmediate(sent)
      return
    }
    this.#cork()
    const { header, payload } = encodeMessage(message)
    const first = payload[0]
    if (first === undefined) {
      this.#webSocket.send(encodeFrameHead(header, undefined), { binary: true }, sent)
      return
    }
    const whole = payload.length === 1 ? first : Buffer.concat(payload)
    const smaller = this.#tryCompress(whole)
    const head = encodeFrameHead(header, smaller === undefined ? undefined : whole.length)
    this.#webSocket.send(head, { binary: true, fin: false })
    this.#webSocket.send(smaller ?? whole, { binary: true, fin: true }, sent)
  }

  bufferedBytes(): number {
    return this.#webSocket.bufferedAmount
  }

  /** Without a closing handshake: the other end may be gone, and what is not acknowledged is not lost. */
  close(_reason: string): void {
    if (this.#closed) return
    this.#closed = true
    this.#webSocket.terminate()
  }

  #tryCompress(payload: Uint8Array): Buffer | undefined {
    if (!this.#compress || payload.length < COMPRESS_BYTES_MIN) return undefined
    if (this.#webSocket.bufferedAmount < SLOW_LINK_BYTES) return undefined
    if (this.#compressPause > 0) {
      this.#compressPause--
      return undefined
    }
    const smaller = compressed(payload)
    if (smaller === undefined) this.#compressPause = COMPRESS_PAUSE
    return smaller
  }

  /** All messages of one turn leave in one system call. */
  #cork(): void {
    if (this.#corked) return
    this.#corked = true
    this.#socket.cork()
    process.nextTick(() => {
      this.#corked = false
      this.#socket.uncork()
    })
  }
}

