/**
 * The frames of a link on their way out: heads and small messages gather in one piece of memory, the payload of one
 * message is named in between, and all of it leaves together.
 */
import type { Socket } from 'node:net'
import { joinBytes } from '@holdfast/base'
import { Outlet } from '@holdfast/direct-socket'
import type { PeerMessage } from '@holdfast/wire'
import { encodeFrame, encodeHotFrame, HOT_FRAME_BYTES_MAX } from './frame.ts'

const GATHERED_BYTES = 16 * 1024
/** Of a payload; more are joined. */
const PARTS_MAX = 32
const NOTHING = new Uint8Array(0)

export class LinkOutlet {
  readonly #outlet: Outlet
  readonly #isClient: boolean
  #gathered = Buffer.allocUnsafeSlow(GATHERED_BYTES)
  #used = 0
  /** What leaves between the first `#payloadAt` gathered bytes and the rest, and how many parts it has. */
  readonly #parts: Uint8Array[] = []
  #payloadParts = 0
  #payloadAt = 0
  #payloadBytes = 0
  readonly #bounds = new Uint32Array(2 * (PARTS_MAX + 2))
  /** To be called once what is here has left. */
  #sent: (() => void)[] = []
  /** The other one of two lists that take turns. */
  #called: (() => void)[] = []
  /** The same of what the stream has, in order: a list for each time that it was given something. */
  readonly #queued: (() => void)[][] = []

  constructor(socket: Socket, isClient: boolean) {
    this.#outlet = new Outlet(socket)
    this.#isClient = isClient
  }

  get bytes(): number {
    return this.#used + this.#payloadBytes
  }

  /** Adds a message; `payload` is what follows its head, `rawBytes` long before it was compressed, if it was. */
  add(
    message: PeerMessage,
    payload: readonly Uint8Array[],
    payloadBytes: number,
    rawBytes: number | undefined,
    sent: (() => void) | undefined,
  ): void {
    // More than once where somebody whose message has left sends another.
    while (this.#hasNoRoom(HOT_FRAME_BYTES_MAX, payloadBytes)) this.leave()
    const end = encodeHotFrame(message, payloadBytes, rawBytes, this.#isClient, this.#gathered, this.#used)
    if (end >= 0) this.#used = end
    else this.#addHead(encodeFrame(message, payloadBytes, rawBytes, this.#isClient))
    if (sent !== undefined) this.#sent.push(sent)
    if (payloadBytes === 0) return
    const parts = payload.length > PARTS_MAX ? [joinBytes(payload)] : payload
    this.#payloadAt = this.#used
    this.#payloadBytes = payloadBytes
    this.#payloadParts = parts.length
    for (let i = 0; i < parts.length; i++) this.#place(i + 1, parts[i] as Uint8Array, 0, (parts[i] as Uint8Array).length)
  }

  #hasNoRoom(headBytes: number, payloadBytes: number): boolean {
    return (payloadBytes > 0 && this.#payloadParts > 0) || this.#used + headBytes > this.#gathered.length
  }

  #addHead(head: Buffer): void {
    while (this.#used > 0 && this.#hasNoRoom(head.length, 0)) this.leave()
    if (head.length > this.#gathered.length) this.#gathered = Buffer.allocUnsafeSlow(Math.max(head.length, GATHERED_BYTES))
    this.#gathered.set(head, this.#used)
    this.#used += head.length
  }

  #place(index: number, part: Uint8Array, start: number, end: number): void {
    this.#parts[index] = part
    this.#bounds[2 * index] = start
    this.#bounds[2 * index + 1] = end
  }

  /** Everything leaves now. */
  leave(): void {
    if (this.#used === 0) return
    const gathered = this.#gathered
    const used = this.#used
    const payloadParts = this.#payloadParts
    this.#place(0, gathered, 0, payloadParts === 0 ? used : this.#payloadAt)
    let count = 1 + payloadParts
    if (payloadParts > 0 && used > this.#payloadAt) this.#place(count++, gathered, this.#payloadAt, used)
    this.#used = this.#payloadParts = this.#payloadBytes = 0
    const left = this.#outlet.send(this.#parts, this.#bounds, count, this.#queuedSent)
    const sent = this.#sent
    // Nobody's memory is held on to.
    for (let i = 0; i < count; i++) this.#parts[i] = NOTHING
    if (!left) {
      // The stream still needs it. What is behind is used first: a peer that takes nothing is sent many small messages.
      const room = gathered.length - used >= HOT_FRAME_BYTES_MAX
      this.#gathered = room ? gathered.subarray(used) : Buffer.allocUnsafeSlow(GATHERED_BYTES)
      this.#sent = []
      this.#queued.push(sent)
      return
    }
    if (gathered.length !== GATHERED_BYTES) this.#gathered = Buffer.allocUnsafeSlow(GATHERED_BYTES)
    if (sent.length === 0) return
    // Not the list that is gone through: one that is called may send something.
    this.#sent = this.#called
    this.#called = []
    for (let i = 0; i < sent.length; i++) sent[i]?.()
    sent.length = 0
    this.#called = sent
  }

  /** The link is closed: nothing leaves any more. */
  drop(): void {
    this.#used = this.#payloadParts = this.#payloadBytes = 0
    for (const sent of this.#sent.splice(0)) sent()
  }

  readonly #queuedSent = (): void => {
    for (const sent of this.#queued.shift() ?? []) sent()
  }
}
