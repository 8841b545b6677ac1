/**
 * The peers' network over WebSocket: dials, accepts, and lets nobody through who is not meant (I8b).
 *
 * Masking: RFC 6455 makes a client mask what it sends, against proxies that take a request of an attacker's making
 * for HTTP. Our links are between nodes that trust each other and carry a zero masking key, which is
 * no work at either end; see docs/decisions/0003-websocket-masking.md.
 */
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type {
  EventLog,
  Incarnation,
  NodeId,
  PeerAddress,
  PeerChannel,
  PeerLink,
  PeerLinkHandler,
  PeerNetwork,
} from '@holdfast/base'
import { decodeHello, encodeHello, type Hello, type PeerMessage, PROTOCOL_VERSION } from '@holdfast/wire'
import { WebSocket, WebSocketServer } from 'ws'
import { FrameSocket } from './frame-socket.ts'
import { sharedLookup } from './shared-lookup.ts'
import { WebSocketLink } from './web-socket-link.ts'

const DIAL_TIMEOUT_MS = 3_000
const HELLO_TIMEOUT_MS = 3_000
const PATH = '/holdfast/peer'

export interface PeerNetworkOptions {
  readonly self: { readonly node: NodeId; readonly incarnation: Incarnation; readonly cluster: string }
  readonly listen: { readonly host: string; readonly port: number }
  readonly events: EventLog
  /** lz4 on links that are slower than what is sent over them. Default true. */
  readonly compression?: boolean | undefined
}

export interface ListeningPeerNetwork extends PeerNetwork<PeerMessage> {
  readonly address: { readonly host: string; readonly port: number }
  close(): Promise<void>
}

type Accept = (link: PeerLink<PeerMessage>) => PeerLinkHandler<PeerMessage>

/** Listens; rejects when the address can't be had. */
export async function createPeerNetwork(options: PeerNetworkOptions): Promise<ListeningPeerNetwork> {
  const network = new WebSocketNetwork(options)
  await network.listen()
  return network
}

class WebSocketNetwork implements ListeningPeerNetwork {
  readonly #options: PeerNetworkOptions
  readonly #http = createServer((_request, response) => {
    response.writeHead(426).end('this port speaks the peer protocol of holdfast\n')
  })
  readonly #server: WebSocketServer
  readonly #open = new Set<FrameSocket>()
  readonly #dialling = new Set<WebSocket>()
  readonly #lookup = sharedLookup()
  #accept: Accept | undefined

  constructor(options: PeerNetworkOptions) {
    this.#options = options
    this.#server = new WebSocketServer({
      server: this.#http,
      path: PATH,
      perMessageDeflate: false,
    })
    this.#server.on('connection', (webSocket, request) => this.#accepted(webSocket, request))
    this.#server.on('error', () => {})
  }

  get #compress(): boolean {
    return this.#options.compression ?? true
  }

  get address(): { readonly host: string; readonly port: number } {
    const { address, port } = this.#http.address() as AddressInfo
    return { host: address, port }
  }

  listen(): Promise<void> {
    const { host, port } = this.#options.listen
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
        const wrong = problem ?? this.#wrong(hello, address.node, channel)
        if (hello === undefined || wrong !== undefined) {
          this.#event('warn', `node ${address.node} is not who was dialled: ${wrong ?? ''}`)
          return end(wrong ?? '')
        }
        ended = true
        const link = new WebSocketLink(frames, hello, this.#compress)
        link.listen(handler, (reason) => this.#event('error', `${address.node}: ${reason}`))
        handler.opened(link)
      })
      destroy = () => frames.destroy()
      frames.sendPlain(encodeHello(this.#hello(address.node, channel)))
    })
    return () => {
      if (ended) destroy()
      else end('abandoned')
    }
  }

  close(): Promise<void> {
    for (const webSocket of this.#dialling) webSocket.terminate()
    for (const frames of this.#open) frames.destroy()
    for (const webSocket of this.#server.clients) webSocket.terminate()
    return new Promise((resolve) => {
      this.#server.close(() => this.#http.close(() => resolve()))
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
      frames.sendPlain(encodeHello(this.#hello(hello.from, hello.channel)))
      const link = new WebSocketLink(frames, hello, this.#compress)
      link.listen(accept(link), (reason) => this.#event('error', `${hello.from}: ${reason}`))
    })
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
    const frames = new FrameSocket(webSocket, socket, isClient, {
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
    this.#open.add(frames)
    frames.socket.on('close', () => this.#open.delete(frames))
    return frames
  }

  #hello(to: NodeId, channel: PeerChannel): Hello {
    const { node: from, incarnation, cluster } = this.#options.self
    return { protocolVersion: PROTOCOL_VERSION, cluster, from, incarnation, to, channel }
  }

  #wrong(
    hello: Hello | undefined,
    node: NodeId | undefined,
    channel: PeerChannel | undefined,
  ): string | undefined {
    const { self } = this.#options
    if (hello === undefined) return 'no hello'
    if (hello.protocolVersion !== PROTOCOL_VERSION) {
      return `it speaks protocol version ${hello.protocolVersion}, we speak ${PROTOCOL_VERSION}`
    }
    if (hello.cluster !== self.cluster) return 'it belongs to another cluster'
    if (hello.to !== self.node) return `it looks for node ${hello.to}, this is ${self.node}`
    if (node !== undefined && hello.from !== node) return `node ${hello.from} answers there`
    if (channel !== undefined && hello.channel !== channel) return 'it answers for another channel'
    return undefined
  }

  #event(level: 'warn' | 'error', message: string): void {
    this.#options.events.event(level, message)
  }
}
