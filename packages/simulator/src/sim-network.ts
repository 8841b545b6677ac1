/**
 * A network in memory: connections in order within themselves, in no order between each other; cut one way or both,
 * slowed, lost at any moment. What is cut is held back as by TCP: the end of the cut delivers it late, or resets.
 */
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
import { overTheWire, type WireVersion } from './wire-versions.ts'
import type { Life, SeededRandom, World } from './world.ts'

export interface SimEndpoint {
  readonly node: NodeId
  readonly incarnation: Incarnation
  readonly shard: number
  readonly life: Life
  /** Undefined: messages travel as objects, which is faster. */
  readonly wire: WireVersion | undefined
  accept: ((link: PeerLink<PeerMessage>) => Handler) | undefined
}

type Handler = PeerLinkHandler<PeerMessage>
type Side = 0 | 1

const DIAL_TIMEOUT_MS = 1_000
/** What a payload holds once it was given back. */
const GIVEN_BACK = 0xdb

class Connection {
  readonly ends: readonly [SimEndpoint, SimEndpoint]
  readonly handlers: [Handler | undefined, Handler | undefined] = [undefined, undefined]
  readonly links: [PeerLink<PeerMessage> | undefined, PeerLink<PeerMessage> | undefined] = [undefined, undefined]
  readonly readyAt: [number, number] = [0, 0]
  /** Sent while the direction was cut, by the side that sent. */
  readonly held: [PeerMessage[], PeerMessage[]] = [[], []]
  readonly unsentBytes: [number, number] = [0, 0]
  open = true
  constructor(ends: readonly [SimEndpoint, SimEndpoint]) {
    this.ends = ends
  }
}

export class SimNetwork {
  readonly #world: World
  readonly #random: SeededRandom
  readonly #endpoints = new Map<string, SimEndpoint>()
  readonly #connections = new Set<Connection>()
  /** Pairs `a>b` over which nothing passes from a to b, with the number of reasons for it. */
  readonly #cuts = new Map<string, number>()
  /** Every latency is multiplied by it. */
  slowness = 1

  constructor(world: World) {
    this.#world = world
    this.#random = world.random.child()
  }

  /** The network as one thread of a process sees it. */
  attach(endpoint: SimEndpoint): PeerNetwork<PeerMessage> {
    this.#endpoints.set(`${endpoint.node}/${endpoint.shard}`, endpoint)
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
    const pair = `${from}>${to}`
    this.#cuts.set(pair, (this.#cuts.get(pair) ?? 0) + 1)
  }

  mend(from: NodeId, to: NodeId): void {
    const pair = `${from}>${to}`
    const left = (this.#cuts.get(pair) ?? 0) - 1
    if (left > 0) {
      this.#cuts.set(pair, left)
      return
    }
    this.#cuts.delete(pair)
    this.#release()
  }

  heal(): void {
    this.#cuts.clear()
    this.#release()
  }

  isCut(from: NodeId, to: NodeId): boolean {
    return this.#cuts.size > 0 && this.#cuts.has(`${from}>${to}`)
  }

  /** Breaks one random connection in the middle of whatever it carries. */
  breakOne(): void {
    const all = [...this.#connections]
    const connection = all[this.#random.below(Math.max(1, all.length))]
    if (connection !== undefined) this.#close(connection, 'connection reset')
  }

  /** Connections that were held up deliver what they held, or turn out to be dead. */
  #release(): void {
    for (const connection of [...this.#connections]) {
      for (const side of [0, 1] as const) {
        const from = connection.ends[side].node
        const to = connection.ends[side === 0 ? 1 : 0].node
        const held = connection.held[side]
        if (held.length === 0 || this.isCut(from, to)) continue
        if (this.#random.chance(0.5)) {
          this.#close(connection, 'connection timed out')
          break
        }
        for (const message of held.splice(0)) this.#transmit(connection, side, message)
      }
    }
  }

  #dial(from: SimEndpoint, address: PeerAddress, channel: PeerChannel, handler: Handler): () => void {
    let connection: Connection | undefined
    let abandoned = false
    const fail = (reason: string): void => {
      this.#world.schedule(0, from.life, () => handler.closed(undefined, reason))
    }
    this.#world.schedule(this.#latency(), from.life, () => {
      const to = this.#endpoints.get(`${address.node}/${address.shard}`)
      if (abandoned) return fail('abandoned')
      if (this.isCut(from.node, address.node) || this.isCut(address.node, from.node)) {
        this.#world.timer(DIAL_TIMEOUT_MS, from.life, () => handler.closed(undefined, 'timeout'))
        return
      }
      if (to === undefined || !to.life.alive || to.accept === undefined) return fail('refused')
      connection = new Connection([from, to])
      this.#connections.add(connection)
      const [near, far] = [this.#link(connection, 0, channel), this.#link(connection, 1, channel)]
      connection.links[0] = near
      connection.links[1] = far
      connection.handlers[0] = handler
      connection.handlers[1] = to.accept(far)
      handler.opened(near)
    })
    return () => {
      abandoned = true
      if (connection !== undefined) this.#close(connection, 'closed by the dialler')
    }
  }

  #link(connection: Connection, side: Side, channel: PeerChannel): PeerLink<PeerMessage> {
    const self = connection.ends[side]
    const peer = connection.ends[side === 0 ? 1 : 0]
    return {
      node: peer.node,
      channel,
      incarnation: peer.incarnation,
      bufferedBytes: () => connection.unsentBytes[side],
      // Whoever looks at it afterwards reads what nobody has sent.
      giveBack: (payload) => {
        for (const part of payload) part.fill(GIVEN_BACK)
      },
      close: (reason) => this.#close(connection, reason),
      send: (message, sent) => {
        // The payload is the sender's again once the kernel has it: what travels is a copy.
        const copy = self.wire === undefined ? copyPayload(message) : overTheWire(message, self.wire)
        if (sent !== undefined) this.#world.schedule(0, self.life, sent)
        if (!connection.open) return
        connection.unsentBytes[side] += payloadBytes(copy)
        if (this.isCut(self.node, peer.node)) connection.held[side].push(copy)
        else this.#transmit(connection, side, copy)
      },
    }
  }

  #transmit(connection: Connection, side: Side, message: PeerMessage): void {
    const other: Side = side === 0 ? 1 : 0
    const at = Math.max(connection.readyAt[side], this.#world.now + this.#latency())
    connection.readyAt[side] = at
    const bytes = payloadBytes(message)
    this.#world.scheduleAt(at, connection.ends[other].life, () => {
      const link = connection.links[other]
      if (!connection.open || link === undefined) return
      connection.unsentBytes[side] -= bytes
      connection.handlers[other]?.message(link, message)
    })
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
    const base = this.#random.chance(0.02) ? this.#random.between(1, 20) : this.#random.between(0.02, 0.4)
    return base * this.slowness
  }
}

function payloadBytes(message: PeerMessage): number {
  if (!('payload' in message)) return 0
  let bytes = 0
  for (const part of message.payload) bytes += part.length
  return bytes
}

function copyPayload(message: PeerMessage): PeerMessage {
  if (!('payload' in message) || message.payload.length === 0) return message
  return { ...message, payload: message.payload.map((part) => part.slice()) }
}
