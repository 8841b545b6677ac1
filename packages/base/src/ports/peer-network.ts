/**
 * Connections between nodes: ordered, reliable until they close, message by message.
 * `Message` is the union of `@holdfast/wire`.
 */
import type { Incarnation, NodeId } from '../numbers.ts'

/**
 * Two connections per pair and direction of need: `control` carries beacons, grants and small
 * questions and never waits behind bulk; `data` carries batches and relayed requests.
 */
export type PeerChannel = 'control' | 'data'

export interface PeerAddress {
  readonly node: NodeId
  readonly host: string
  readonly port: number
  /** Which of the node's shards is meant. */
  readonly shard: number
}

export interface PeerLink<Message> {
  readonly node: NodeId
  readonly channel: PeerChannel
  /** The other process's incarnation, known once open. */
  readonly incarnation: Incarnation
  /**
   * Queues one message. `sent` is called when its payload buffers are no longer needed (handed to
   * the kernel, or the link closed), perhaps before `send` returns. Messages on a closed link are dropped. `followed` says that
   * another one is about to follow: both leave together, at once then or else at the end of the turn.
   */
  send(message: Message, sent?: () => void, followed?: boolean): void
  /**
   * Gives the payload of a message that came over this link back, to receive others in: nobody may use any of it from
   * now on. Optional for whoever receives; also after the link has closed.
   */
  giveBack(payload: readonly Uint8Array[]): void
  /** Bytes queued in this process and not yet handed to the kernel. */
  bufferedBytes(): number
  /** Closes; `closed` of the handler is called once, later. Idempotent. */
  close(reason: string): void
}

export interface PeerLinkHandler<Message> {
  /** The link is open and both ends have said who they are (dialer's side only). */
  opened(link: PeerLink<Message>): void
  message(link: PeerLink<Message>, message: Message): void
  /** Called exactly once, also when the link never opened. */
  closed(link: PeerLink<Message> | undefined, reason: string): void
}

export interface PeerNetwork<Message> {
  /**
   * Dials; the other side refuses whoever does not name it rightly (I8b). Gives up after a few
   * seconds. The returned function abandons the attempt or closes the link.
   */
  dial(
    address: PeerAddress,
    channel: PeerChannel,
    handler: PeerLinkHandler<Message>,
  ): () => void
  /** Who takes links that others dial. Called once, before the first one. */
  accept(handler: (link: PeerLink<Message>) => PeerLinkHandler<Message>): void
}
