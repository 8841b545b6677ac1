/**
 * The peers' network over WebSocket: dials, accepts, and lets nobody through who is not meant (I8b).
 *
 * Masking: RFC 6455 makes a client mask what it sends, against proxies that take a request of an attacker's making
 * for HTTP. Our links are between nodes that trust each other and carry a zero masking key, for which
 * both ends of ws skip the work; see docs/decisions/0003-websocket-masking.md.
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
import { type RawData, WebSocket, WebSocketServer } from 'ws'
import { FRAME_BYTES_MAX } from './frame.ts'
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
  readonly #open = new Set<WebSocket>()
  readonly #lookup = sharedLookup()
  #accept: Accept | undefined

  constructor(options: PeerNetworkOptions) {
    this.#options = options
    this.#server = new WebSocketServer({
      server: this.#http,
      path: PATH,
      perMessageDeflate: false,
      maxPayload: FRAME_BYTES_MAX,
      skipUTF8Validation: true,
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
      maxPayload: FRAME_BYTES_MAX,
      skipUTF8Validation: true,
      generateMask: (mask) => mask.fill(0),
    })
    let socket: Socket | undefined
    let ended = false
    const end = (reason: string): void => {
      if (ended) return
      ended = true
      webSocket.terminate()
      handler.closed(undefined, reason)
    }
    this.#open.add(webSocket)
    webSocket.binaryType = 'fragments'
    webSocket.on('upgrade', (response) => {
      socket = response.socket
      socket.setNoDelay(true)
    })
    webSocket.on('error', (error) => end(error.message))
    const closed = (): void => end('closed before the hello')
    webSocket.on('close', () => this.#open.delete(webSocket))
    webSocket.on('close', closed)
    webSocket.on('open', () => {
      webSocket.send(encodeHello(this.#hello(address.node, channel)))
      this.#awaitHello(webSocket, (hello, problem) => {
        if (ended) return
        const wrong = problem ?? this.#wrong(hello, address.node, channel)
        if (hello === undefined || wrong !== undefined || socket === undefined) {
          this.#event('warn', `node ${address.node} is not who was dialled: ${wrong ?? 'no socket'}`)
          end(wrong ?? 'no socket')
          return
        }
        ended = true
        webSocket.off('close', closed)
        const link = new WebSocketLink(webSocket, socket, hello, { compress: this.#compress, isClient: true })
        link.listen(handler, (reason) => this.#event('error', `${address.node}: ${reason}`))
        handler.opened(link)
      })
    })
    return () => {
      if (!ended) end('abandoned')
      else webSocket.terminate()
    }
  }

  close(): Promise<void> {
    for (const webSocket of this.#open) webSocket.terminate()
    for (const webSocket of this.#server.clients) webSocket.terminate()
    return new Promise((resolve) => {
      this.#server.close(() => this.#http.close(() => resolve()))
    })
  }

  #accepted(webSocket: WebSocket, request: IncomingMessage): void {
    const { socket } = request
    socket.setNoDelay(true)
    webSocket.binaryType = 'fragments'
    webSocket.on('error', () => webSocket.terminate())
    this.#awaitHello(webSocket, (hello, problem) => {
      const wrong = problem ?? this.#wrong(hello, undefined, undefined)
      const accept = this.#accept
      if (hello === undefined || wrong !== undefined || accept === undefined) {
        this.#event('warn', `a connection is refused: ${wrong ?? 'not ready'}`)
        webSocket.close(1008, (wrong ?? 'not ready').slice(0, 100))
        return
      }
      webSocket.send(encodeHello(this.#hello(hello.from, hello.channel)))
      const link = new WebSocketLink(webSocket, socket, hello, { compress: this.#compress, isClient: false })
      link.listen(accept(link), (reason) => this.#event('error', `${hello.from}: ${reason}`))
    })
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

  #awaitHello(
    webSocket: WebSocket,
    done: (hello: Hello | undefined, problem: string | undefined) => void,
  ): void {
    const timer = setTimeout(() => {
      webSocket.off('message', take)
      done(undefined, 'no hello in time')
    }, HELLO_TIMEOUT_MS)
    const take = (data: RawData): void => {
      clearTimeout(timer)
      let hello: Hello
      try {
        hello = decodeHello(Buffer.concat(data as Buffer[]))
      } catch (error) {
        done(undefined, error instanceof Error ? error.message : 'malformed hello')
        return
      }
      done(hello, undefined)
    }
    webSocket.once('message', take)
    webSocket.once('close', () => clearTimeout(timer))
  }

  #event(level: 'warn' | 'error', message: string): void {
    this.#options.events.event(level, message)
  }
}
