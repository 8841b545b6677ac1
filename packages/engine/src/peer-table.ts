/**
 * Connections to other nodes, dialled when somebody needs one and dialled again after a loss.
 */
import {
  after,
  type Clock,
  type Instant,
  instant,
  type NodeId,
  type PeerChannel,
  type PeerLink,
  type PeerNetwork,
  shardCount,
  shardOf,
  type VolumeId,
} from '@holdfast/base'
import type { PeerMessage } from '@holdfast/wire'
import type { ClusterView } from './cluster-view.ts'

export type Link = PeerLink<PeerMessage>
/** Which end of a link we are. */
export type Side = 'dialled' | 'accepted'

export interface PeerTableEvents {
  opened(link: Link): void
  message(link: Link, message: PeerMessage, side: Side): void
  closed(link: Link, side: Side): void
}

interface Dial {
  link: Link | undefined
  abandon: (() => void) | undefined
  nextDialAt: Instant
  failures: number
}

const REDIAL_MS_MIN = 20
const REDIAL_MS_MAX = 1000

export class PeerTable {
  readonly #self: NodeId
  readonly #network: PeerNetwork<PeerMessage>
  readonly #view: ClusterView
  readonly #clock: Clock
  readonly #events: PeerTableEvents
  readonly #dials = new Map<string, Dial>()
  #closed = false
  #numbers = 0

  constructor(
    self: NodeId,
    network: PeerNetwork<PeerMessage>,
    view: ClusterView,
    clock: Clock,
    events: PeerTableEvents,
  ) {
    this.#self = self
    this.#network = network
    this.#view = view
    this.#clock = clock
    this.#events = events
    network.accept(() => ({
      opened: () => {},
      message: (link, message) => events.message(link, message, 'accepted'),
      closed: (link) => {
        if (link !== undefined) events.closed(link, 'accepted')
      },
    }))
  }

  /** Which thread of that node works on the volume. */
  shardAt(node: NodeId, volume: VolumeId): number {
    return shardOf(volume, shardCount(this.#view.nodes.get(node)?.record))
  }

  /**
   * The open link to the thread of a node that works on the volume, or undefined while it is being dialled. Ask again
   * later.
   */
  ensure(node: NodeId, channel: PeerChannel, volume: VolumeId): Link | undefined {
    const shard = this.shardAt(node, volume)
    const key = `${channel}/${node}/${shard}`
    let dial = this.#dials.get(key)
    if (dial?.link !== undefined) return dial.link
    if (dial === undefined) {
      dial = { link: undefined, abandon: undefined, nextDialAt: instant(0), failures: 0 }
      this.#dials.set(key, dial)
    }
    const now = this.#clock.now()
    if (dial.abandon === undefined && now >= dial.nextDialAt && !this.#closed) {
      this.#dial(dial, node, channel, shard)
    }
    return undefined
  }

  /** A number that no other subscription or question of this process has. */
  nextNumber(): number {
    return ++this.#numbers
  }

  close(): void {
    this.#closed = true
    for (const dial of this.#dials.values()) dial.abandon?.()
  }

  #dial(dial: Dial, node: NodeId, channel: PeerChannel, shard: number): void {
    const record = this.#view.nodes.get(node)?.record
    if (record === undefined || node === this.#self) return
    const address = { node, host: record.host, port: record.peerPort, shard }
    dial.abandon = this.#network.dial(address, channel, {
      opened: (link) => {
        dial.link = link
        dial.failures = 0
        this.#events.opened(link)
      },
      message: (link, message) => this.#events.message(link, message, 'dialled'),
      closed: () => {
        const link = dial.link
        dial.link = undefined
        dial.abandon = undefined
        const pause = Math.min(REDIAL_MS_MAX, REDIAL_MS_MIN * 2 ** dial.failures++)
        dial.nextDialAt = after(this.#clock.now(), pause)
        if (link !== undefined) this.#events.closed(link, 'dialled')
      },
    })
  }
}
