/** One open WebSocket between two nodes that have said who they are. */
import type { Socket } from 'node:net'
import type { Incarnation, NodeId, PeerChannel, PeerLink, PeerLinkHandler } from '@holdfast/base'
import { atEndOfTurn } from '@holdfast/direct-socket'
import { decodeMessage, type Hello, type PeerMessage } from '@holdfast/wire'
import { compressed, decodeFrame, decodeHotFrame } from './frame.ts'
import type { FrameSocket } from './frame-socket.ts'
import { LinkOutlet } from './link-outlet.ts'
import { payloadPool } from './payload-pool.ts'

/** Payloads at least this large are worth a try when the link is slower than its producer. */
const COMPRESS_BYTES_MIN = 16 * 1024
/** Unsent bytes that say so. */
const SLOW_LINK_BYTES = 2 * 1024 * 1024
/** After a try that did not pay, so many payloads go as they are. */
const COMPRESS_PAUSE = 64
const NONE: readonly Uint8Array[] = []
/** Of messages that are whole already: nobody adds to it. */
const NO_FRAGMENTS: Buffer[] = []

/** Of all links of a network. */
export interface LinkTraffic {
  /** Messages on data links. */
  received: number
}

export class WebSocketLink implements PeerLink<PeerMessage> {
  readonly node: NodeId
  readonly channel: PeerChannel
  readonly incarnation: Incarnation
  readonly #frames: FrameSocket
  readonly #socket: Socket
  readonly #outlet: LinkOutlet
  readonly #compress: boolean
  readonly #traffic: LinkTraffic
  #compressPause = 0
  /** What gathers leaves at the end of the turn. */
  #leaving = false
  /** Bulk waits for the message that its sender has announced. */
  #held = false
  /** Its payload is coming. */
  #begun: PeerMessage | undefined
  #closed = false

  constructor(frames: FrameSocket, peer: Hello, compress: boolean, traffic: LinkTraffic) {
    this.node = peer.from
    this.channel = peer.channel
    this.incarnation = peer.incarnation
    this.#frames = frames
    this.#socket = frames.socket
    this.#outlet = new LinkOutlet(frames.socket, frames.isClient)
    this.#compress = compress
    this.#traffic = traffic
  }

  /** Takes what comes from now on. */
  listen(handler: PeerLinkHandler<PeerMessage>, problem: (reason: string) => void): void {
    this.#frames.handOver({
      begins: (bytes, start, end, isLast) => {
        const payload = isLast ? NO_FRAGMENTS : []
        try {
          this.#begun = decodeHotFrame(bytes, start, end, payload)
        } catch {
          // `message` says why, once all of it is there.
        }
        return this.#begun === undefined ? undefined : payload
      },
      message: (fragments) => {
        const begun = this.#begun
        this.#begun = undefined
        if (this.#closed) return
        if (this.channel === 'data') this.#traffic.received++
        let message: PeerMessage
        try {
          message = begun ?? decodeWhole(fragments)
        } catch (error) {
          problem(error instanceof Error ? error.message : 'malformed frame')
          this.close('protocol error')
          return
        }
        handler.message(this, message)
      },
      closed: (reason) => {
        this.#closed = true
        handler.closed(this, reason)
      },
    })
  }

  /** The small messages of a turn leave in one system call; bulk leaves at once, with what was announced to follow it. */
  send(message: PeerMessage, sent?: () => void, followed = false): void {
    if (this.#closed || !this.#frames.open) {
      if (sent !== undefined) setImmediate(sent)
      return
    }
    const payload = 'payload' in message ? message.payload : NONE
    let bytes = 0
    for (const part of payload) bytes += part.length
    const smaller = this.#tryCompress(payload, bytes)
    if (smaller === undefined) this.#outlet.add(message, payload, bytes, undefined, sent)
    else this.#outlet.add(message, [smaller], smaller.length, bytes, undefined)
    // Bulk leaves at once: the other end can work on it while this one writes the same to its disk.
    const leaves = (bytes > 0 || this.#held) && !followed
    this.#held = bytes > 0 ? followed : this.#held && followed
    if (leaves) this.#outlet.leave()
    else if (!this.#leaving) {
      this.#leaving = true
      atEndOfTurn(this.#turnEnded)
    }
    // What was compressed is needed no more.
    if (smaller !== undefined) sent?.()
  }

  bufferedBytes(): number {
    return this.#outlet.bytes + this.#socket.writableLength
  }

  giveBack(payload: readonly Uint8Array[]): void {
    for (const part of payload) payloadPool.give(part)
  }

  /** Without a closing handshake: the other end may be gone, and what is not acknowledged is not lost. */
  close(_reason: string): void {
    if (this.#closed) return
    this.#closed = true
    this.#frames.destroy()
  }

  #tryCompress(payload: readonly Uint8Array[], bytes: number): Buffer | undefined {
    if (!this.#compress || bytes < COMPRESS_BYTES_MIN) return undefined
    if (this.#socket.writableLength < SLOW_LINK_BYTES) return undefined
    if (this.#compressPause > 0) {
      this.#compressPause--
      return undefined
    }
    const first = payload[0]
    const smaller = compressed(payload.length === 1 && first !== undefined ? first : Buffer.concat(payload))
    if (smaller === undefined) this.#compressPause = COMPRESS_PAUSE
    return smaller
  }

  readonly #turnEnded = (): void => {
    this.#leaving = false
    this.#held = false
    if (this.#frames.open) this.#outlet.leave()
    else this.#outlet.drop()
  }
}

function decodeWhole(fragments: Buffer[]): PeerMessage {
  const { header, payload } = decodeFrame(fragments)
  return decodeMessage(header, payload)
}
