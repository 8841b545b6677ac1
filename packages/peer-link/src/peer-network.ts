/**
 * The peers' network over WebSocket: dials, accepts, and lets nobody through who is not meant (I8b).
 *
 * Masking: RFC 6455 makes a client mask what it sends, against proxies that take a request of an attacker's making
 * for HTTP. Our links are between nodes that trust each other and carry a zero masking key, which is
 * no work at either end; see docs/decisions/0003-websocket-masking.md.
 */
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import {
  type EventLog,
  type Incarnation,
  type NodeId,
  ONLY_SHARD,
  type PeerAddress,
  type PeerChannel,
  type PeerLink,
  type PeerLinkHandler,
  type PeerNetwork,
  type Shard,
} from '@holdfast/base'
import { decodeHello, encodeHello, type Hello, type PeerMessage, PROTOCOL_VERSION } from '@holdfast/wire'
import { WebSocket, WebSocketServer } from 'ws'
import { FrameSocket } from './frame-socket.ts'
import { sharedLookup } from './shared-lookup.ts'
import { type LinkTraffic, WebSocketLink } from './web-socket-link.ts'

const DIAL_TIMEOUT_MS = 3_000
const HELLO_TIMEOUT_MS = 3_000
const PATH = '/holdfast/peer'

export interface PeerNetworkOptions {
  readonly self: { readonly node: NodeId; readonly incarnation: Incarnation; readonly cluster: string }
  readonly listen: { readonly host: string; readonly port: number }
  readonly events: EventLog
  /** lz4 on links that are slower than what is sent over them. Default true. */
  readonly compression?: boolean | undefined
  /** Which of the node's threads this is. Default: the only one. */
  readonly shard?: Shard | undefined
  /** Takes links that are meant for other shards; their networks adopt them. */
  readonly handOver?: ((handed: HandedLink) => void) | undefined
}

/** A link on its way to the shard that its hello names; plain data but for the descriptor, which goes with it. */
export interface HandedLink {
  readonly fd: number
  readonly hello: Hello
  readonly unread: Uint8Array
}

export interface ShardNetwork extends PeerNetwork<PeerMessage> {
  /** Messages that have come over its data links, ever: beacons and grants are no load. */
  readonly received: number
  /** Goes on with a link that the listening network has accepted. */
  adopt(handed: HandedLink): void
  close(): Promise<void>
}

export interface ListeningPeerNetwork extends ShardNetwork {
  readonly address: { readonly host: string; readonly port: number }
}

type Accept = (link: PeerLink<PeerMessage>) => PeerLinkHandler<PeerMessage>

/** Listens; rejects when the address can't be had. */
export async function createPeerNetwork(options: PeerNetworkOptions): Promise<ListeningPeerNetwork> {
  const network = new WebSocketNetwork(options)
  await network.listen(options.listen)
  return network
}

/** Dials by itself; what others dial comes by `adopt`. */
export function createShardNetwork(options: Omit<PeerNetworkOptions, 'listen' | 'handOver'>): ShardNetwork {
  return new WebSocketNetwork(options)
}

class WebSocketNetwork implements ListeningPeerNetwork {
  readonly #options: Omit<PeerNetworkOptions, 'listen'>
  readonly #shard: Shard
  readonly #http = createServer((_request, response) => {
    response.writeHead(426).end('this port speaks the peer protocol of holdfast\n')
  })
  readonly #server: WebSocketServer
  readonly #open = new Set<FrameSocket>()
  readonly #dialling = new Set<WebSocket>()
  readonly #traffic: LinkTraffic = { received: 0 }
  readonly #lookup = sharedLookup()
  #accept: Accept | undefined
  #closed = false

  constructor(options: Omit<PeerNetworkOptions, 'listen'>) {
    this.#options = options
    this.#shard = options.shard ?? ONLY_SHARD
    this.#server = new WebSocketServer({
      server: this.#http,
      path: PATH,
      perMessageDeflate: false,
    })
    this.#server.on('connection', (webSocket, request) => this.#accepted(webSocket, request))
    this.#server.on('error', () => {})
  }

  get received(): number {
    return this.#traffic.received
  }

  get address(): { readonly host: string; readonly port: number } {
    const { address, port } = this.#http.address() as AddressInfo
    return { host: address, port }
  }

  listen({ host, port }: PeerNetworkOptions['listen']): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#http.once('error', reject)
      this.#http.listen(port, host, () => {
        this.#http.off('error', reject)
        this.#http.on('error', (error) => this.#event('error', error.message))
        resolve()
      })
    })
  }

  accept(handler: Accept): void {
    this.#accept = handler
  }

  dial(
    address: PeerAddress,
    channel: PeerChannel,
    handler: PeerLinkHandler<PeerMessage>,
  ): () => void {
    const host = address.host.includes(':') ? `[${address.host}]` : address.host
    const webSocket = new WebSocket(`ws://${host}:${address.port}${PATH}`, {
      perMessageDeflate: false,
      lookup: this.#lookup,
      handshakeTimeout: DIAL_TIMEOUT_MS,
    })
    let socket: Socket | undefined
    let destroy = (): void => webSocket.terminate()
    let ended = false
    const end = (reason: string): void => {
      if (ended) return
      ended = true
      destroy()
      handler.closed(undefined, reason)
    }
    const closed = (): void => end('closed before the handshake')
    webSocket.on('upgrade', (response) => {
      socket = response.socket
    })
    webSocket.on('error', (error) => end(error.message))
    webSocket.on('close', closed)
    this.#dialling.add(webSocket)
    webSocket.on('close', () => this.#dialling.delete(webSocket))
    webSocket.on('open', () => {
      if (socket === undefined) return end('no socket')
      webSocket.off('close', closed)
      const frames = this.#take(webSocket, socket, true, end, (hello, problem) => {
        if (ended) return
        const wrong = problem ?? this.#wrong(hello, address, channel)
        if (hello === undefined || wrong !== undefined) {
          this.#event('warn', `node ${address.node} is not who was dialled: ${wrong ?? ''}`)
          return end(wrong ?? '')
        }
        ended = true
        const link = this.#link(frames, hello)
        link.listen(handler, (reason) => this.#event('error', `${address.node}: ${reason}`))
        handler.opened(link)
      })
      destroy = () => frames.destroy()
      frames.sendPlain(encodeHello(this.#hello(address.node, channel, address.shard)))
    })
    return () => {
      if (ended) destroy()
      else end('abandoned')
    }
  }

  close(): Promise<void> {
    this.#closed = true
    for (const webSocket of this.#dialling) webSocket.terminate()
    for (const frames of this.#open) frames.destroy()
    for (const webSocket of this.#server.clients) webSocket.terminate()
    return new Promise((resolve) => {
      this.#server.close(() => (this.#http.listening ? this.#http.close(() => resolve()) : resolve()))
    })
  }

  #accepted(webSocket: WebSocket, request: IncomingMessage): void {
    webSocket.on('error', () => webSocket.terminate())
    const frames = this.#take(webSocket, request.socket, false, () => {}, (hello, problem) => {
      const accept = this.#accept
      const wrong = problem ?? this.#wrong(hello, undefined, undefined)
      if (hello === undefined || wrong !== undefined || accept === undefined) {
        this.#event('warn', `a connection is refused: ${wrong ?? 'not ready'}`)
        frames.refuse(wrong ?? 'not ready')
        return
      }
      if (hello.toShard !== this.#shard.index) {
        frames.leave((fd, unread) => this.#options.handOver?.({ fd, hello, unread }))
        return
      }
      this.#welcome(frames, hello, accept)
    })
  }

  #link(frames: FrameSocket, hello: Hello): WebSocketLink {
    return new WebSocketLink(frames, hello, this.#options.compression ?? true, this.#traffic)
  }

  #welcome(frames: FrameSocket, hello: Hello, accept: Accept): void {
    frames.sendPlain(encodeHello(this.#hello(hello.from, hello.channel, hello.fromShard)))
    const link = this.#link(frames, hello)
    link.listen(accept(link), (reason) => this.#event('error', `${hello.from}: ${reason}`))
  }

  adopt({ fd, hello, unread }: HandedLink): void {
    const frames = FrameSocket.adopt(fd, { message: () => {}, closed: () => {} })
    this.#remember(frames)
    const accept = this.#accept
    if (accept === undefined || this.#closed) return frames.destroy()
    this.#welcome(frames, hello, accept)
    frames.feed(unread)
  }

  /**
   * The connection is ours from here on. One of the two is called, once: `lost` where it closes before anything came,
   * `greeted` with the hello or with why there is none.
   */
  #take(
    webSocket: WebSocket,
    socket: Socket,
    isClient: boolean,
    lost: (reason: string) => void,
    greeted: (hello: Hello | undefined, problem: string | undefined) => void,
  ): FrameSocket {
    let waiting = true
    const answer = (hello: Hello | undefined, problem: string | undefined): void => {
      if (!waiting) return
      waiting = false
      clearTimeout(timer)
      greeted(hello, problem)
    }
    const timer = setTimeout(() => answer(undefined, 'no hello in time'), HELLO_TIMEOUT_MS)
    const frames = FrameSocket.take(webSocket, socket, isClient, {
      message: (fragments) => {
        let hello: Hello
        try {
          hello = decodeHello(Buffer.concat(fragments))
        } catch (error) {
          return answer(undefined, error instanceof Error ? error.message : 'malformed hello')
        }
        return answer(hello, undefined)
      },
      closed: (reason) => {
        if (waiting) lost(`closed before the hello: ${reason}`)
        waiting = false
        clearTimeout(timer)
      },
    })
    this.#remember(frames)
    return frames
  }

  #remember(frames: FrameSocket): void {
    this.#open.add(frames)
    frames.socket.on('close', () => this.#open.delete(frames))
  }

  #hello(to: NodeId, channel: PeerChannel, toShard: number): Hello {
    const { node: from, incarnation, cluster } = this.#options.self
    const fromShard = this.#shard.index
    return { protocolVersion: PROTOCOL_VERSION, cluster, from, incarnation, to, channel, fromShard, toShard }
  }

  #wrong(
    hello: Hello | undefined,
    dialled: PeerAddress | undefined,
    channel: PeerChannel | undefined,
  ): string | undefined {
    const { self } = this.#options
    if (hello === undefined) return 'no hello'
    if (hello.protocolVersion !== PROTOCOL_VERSION) {
      return `it speaks protocol version ${hello.protocolVersion}, we speak ${PROTOCOL_VERSION}`
    }
    if (hello.cluster !== self.cluster) return 'it belongs to another cluster'
    if (hello.to !== self.node) return `it looks for node ${hello.to}, this is ${self.node}`
    if (dialled !== undefined && hello.from !== dialled.node) return `node ${hello.from} answers there`
    if (dialled !== undefined && hello.fromShard !== dialled.shard) return `its shard ${hello.fromShard} answers`
    if (dialled === undefined && hello.toShard >= this.#shard.count) return `there is no shard ${hello.toShard} here`
    if (channel !== undefined && hello.channel !== channel) return 'it answers for another channel'
    return undefined
  }

  #event(level: 'warn' | 'error', message: string): void {
    this.#options.events.event(level, message)
  }
}
