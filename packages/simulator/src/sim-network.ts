/** Links between simulated nodes: in order, delayed, cut by crashes and partitions. */
import type {
  Incarnation,
  NodeId,
  PeerAddress,
  PeerChannel,
  PeerLink,
  PeerLinkHandler,
  PeerNetwork,
} from '@holdfast/base'
import type { PeerMessage } from '@holdfast/wire'
import type { Life, SeededRandom, World } from './world.ts'

type Handler = PeerLinkHandler<PeerMessage>
type Accept = (link: PeerLink<PeerMessage>) => Handler

export interface SimEndpoint {
  readonly node: NodeId
  readonly incarnation: Incarnation
  readonly life: Life
  accept: Accept | undefined
}

const DIAL_TIMEOUT_MS = 3_000

/** One direction-less connection; `ends[0]` dialled. */
class Connection {
  readonly ends: readonly [SimEndpoint, SimEndpoint]
  readonly handlers: [Handler | undefined, Handler | undefined] = [undefined, undefined]
  readonly links: [PeerLink<PeerMessage> | undefined, PeerLink<PeerMessage> | undefined]
  readonly readyAt: [number, number] = [0, 0]
  open = true
  stalled = false
  constructor(ends: readonly [SimEndpoint, SimEndpoint]) {
    this.ends = ends
    this.links = [undefined, undefined]
  }
}

export class SimNetwork {
  readonly #world: World
  readonly #random: SeededRandom
  readonly #endpoints = new Map<NodeId, SimEndpoint>()
  readonly #connections = new Set<Connection>()
  /** Pairs `a>b` over which nothing passes from a to b. */
  readonly #cut = new Set<string>()

  constructor(world: World) {
    this.#world = world
    this.#random = world.random.child()
  }

  /** The network as one process sees it. */
  attach(endpoint: SimEndpoint): PeerNetwork<PeerMessage> {
    this.#endpoints.set(endpoint.node, endpoint)
    return {
      accept: (handler) => {
        endpoint.accept = handler
      },
      dial: (address, channel, handler) => this.#dial(endpoint, address, channel, handler),
    }
  }

  /** The process ended: its connections close as the kernel would close them. */
  processEnded(endpoint: SimEndpoint): void {
    for (const connection of [...this.#connections]) {
      if (connection.ends.includes(endpoint)) this.#close(connection, 'connection reset')
    }
  }

  cut(from: NodeId, to: NodeId): void {
    this.#cut.add(`${from}>${to}`)
    for (const connection of this.#connections) {
      const [a, b] = connection.ends
      if ((a.node === from && b.node === to) || (a.node === to && b.node === from)) {
        connection.stalled = true
      }
    }
  }

  /** Everything passes again; connections that stood still are reset. */
  heal(): void {
    this.#cut.clear()
    for (const connection of [...this.#connections]) {
      if (connection.stalled) this.#close(connection, 'connection timed out')
    }
  }

  isCut(from: NodeId, to: NodeId): boolean {
    return this.#cut.has(`${from}>${to}`)
  }

  /** Breaks one random connection in the middle of whatever it carries. */
  breakOne(): void {
    const all = [...this.#connections]
    const connection = all[this.#random.below(Math.max(1, all.length))]
    if (connection !== undefined) this.#close(connection, 'connection reset')
  }

  #dial(
    from: SimEndpoint,
    address: PeerAddress,
    channel: PeerChannel,
    handler: Handler,
  ): () => void {
    let connection: Connection | undefined
    let abandoned = false
    const fail = (reason: string): void => {
      this.#world.schedule(0, from.life, () => handler.closed(undefined, reason))
    }
    const latency = this.#latency()
    this.#world.schedule(latency, from.life, () => {
      const to = this.#endpoints.get(address.node)
      if (abandoned) return fail('abandoned')
      const cut = this.isCut(from.node, address.node) || this.isCut(address.node, from.node)
      if (cut) {
        this.#world.schedule(DIAL_TIMEOUT_MS, from.life, () => handler.closed(undefined, 'timeout'))
        return
      }
      if (to === undefined || !to.life.alive || to.accept === undefined) return fail('refused')
      connection = new Connection([from, to])
      this.#connections.add(connection)
      connection.links[0] = this.#link(connection, 0, channel)
      connection.links[1] = this.#link(connection, 1, channel)
      connection.handlers[0] = handler
      connection.handlers[1] = to.accept(connection.links[1])
      handler.opened(connection.links[0])
    })
    return () => {
      abandoned = true
      if (connection !== undefined) this.#close(connection, 'closed by the dialler')
    }
  }

  #link(connection: Connection, side: 0 | 1, channel: PeerChannel): PeerLink<PeerMessage> {
    const other: 0 | 1 = side === 0 ? 1 : 0
    const [self, peer] = [connection.ends[side], connection.ends[other]]
    return {
      node: peer.node,
      channel,
      incarnation: peer.incarnation,
      bufferedBytes: () => 0,
      close: (reason) => this.#close(connection, reason),
      send: (message, sent) => {
        // The payload is the sender's again once the kernel has it: what travels is a copy.
        const copy = copyPayload(message)
        if (sent !== undefined) this.#world.schedule(0, self.life, sent)
        if (!connection.open || connection.stalled) return
        const at = Math.max(connection.readyAt[side], this.#world.now + this.#latency())
        connection.readyAt[side] = at
        this.#world.scheduleAt(at, peer.life, () => {
          const link = connection.links[other]
          if (!connection.open || connection.stalled || link === undefined) return
          connection.handlers[other]?.message(link, copy)
        })
      },
    }
  }

  #close(connection: Connection, reason: string): void {
    if (!connection.open) return
    connection.open = false
    this.#connections.delete(connection)
    for (const side of [0, 1] as const) {
      const { life } = connection.ends[side]
      this.#world.schedule(this.#latency(), life, () => {
        connection.handlers[side]?.closed(connection.links[side], reason)
      })
    }
  }

  #latency(): number {
    return this.#random.chance(0.02) ? this.#random.between(1, 20) : this.#random.between(0.02, 0.4)
  }
}

function copyPayload(message: PeerMessage): PeerMessage {
  if (!('payload' in message) || message.payload.length === 0) return message
  return { ...message, payload: message.payload.map((part) => part.slice()) }
}
