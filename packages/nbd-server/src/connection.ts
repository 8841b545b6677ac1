/**
 * One client: its socket, handshake and transmission. Where another shard works on the volume, the connection goes there
 * after the handshake, and begins there with the transmission.
 *
 * Replies leave at the end of each chunk of input, or of the turn in which the storage completed
 * requests, in one write. At most one write is under way: while the client does not take its
 * replies they gather in the reply queue, whose size stops the reading (backpressure).
 */
import { Socket } from 'node:net'
import { copyBytes } from '@holdfast/base'
import type { Completion, Errno, ExportCatalog } from '@holdfast/base'
import { atEndOfTurn, type ByteSink, giveAway, openDescriptor, openForReading, Outlet, readByEvents } from '@holdfast/direct-socket'
import {
  type Agreement,
  DATA_APART_BYTES,
  type AwayAgreement,
  type BufferPool,
  Handshake,
  Transmission,
  type TransmissionHost,
} from '@holdfast/nbd-protocol'
import type { NbdCounters } from './counters.ts'
import type { NbdLimits } from './limits.ts'

const NOTHING = new Uint8Array(0)

/** What connections share. */
export interface ConnectionContext {
  readonly catalog: ExportCatalog
  readonly limits: NbdLimits
  readonly counters: NbdCounters
  readonly pool: BufferPool
  /**
   * Where sockets are read to. One for all connections: a chunk is taken wholly before the next
   * read.
   */
  readonly receiveBuffer: Uint8Array
  /** False: read by 'data' events. */
  readonly directReads: boolean
  /** Called once per connection; `problem` is undefined after an orderly end. */
  closed(connection: Connection, problem: string | undefined): void
  /** The connection goes on at another shard, and is closed here no more. */
  left(connection: Connection, handed: HandedConnection): void
}

/** A connection on its way to the shard that its handshake named; plain data but for the descriptor, which goes with it. */
export interface HandedConnection {
  readonly fd: number
  readonly agreement: AwayAgreement
  /** What the client has sent since the handshake, as far as it was read. */
  readonly unread: Uint8Array
}

/**
 * Read with the header that follows a large payload: some small requests, but little of a next large payload (it is
 * copied), and so many lines of the cache that the rest of that is received from the beginning of one.
 */
const BEHIND_HEADER_BYTES = 7 * 64

/** Handshake replies that a client may leave untaken before it is read no further. */
const HANDSHAKE_OUTPUT_BYTES_MAX = 1024 * 1024

export class Connection implements ByteSink, TransmissionHost {
  readonly #context: ConnectionContext
  readonly #socket: Socket
  readonly #outlet: Outlet
  readonly #handshake: Handshake | undefined
  readonly #handshakeTimer: NodeJS.Timeout | undefined
  /** Where it goes once the client has taken the last reply of the handshake. */
  #leaving: Omit<HandedConnection, 'fd'> | undefined
  #transmission: Transmission | undefined
  /** The payload buffer that is read to now; never set where 'data' events are used. */
  #target: Uint8Array | undefined
  /** Input that came when the limits were reached. */
  #stash: Uint8Array | undefined
  #paused = false
  #writing = false
  #flushScheduled = false
  /** The last payload went past the receive buffer: read only a header next. */
  #expectLarge = false
  /** A short part of the receive buffer, for that. */
  #headerBuffer: Uint8Array = NOTHING
  #disconnected = false
  #shuttingDown = false
  #closed = false
  #problem: string | undefined

  /** @throws HoldfastError where the export of a connection from another shard can't be opened (any more). */
  constructor(origin: Socket | HandedConnection, context: ConnectionContext) {
    this.#context = context
    const completion: Completion = (token, error) => this.#completed(token, error)
    if (origin instanceof Socket) {
      this.#handshake = new Handshake(context.catalog, completion)
      this.#handshakeTimer = setTimeout(() => {
        context.counters.handshakeTimeouts++
        this.#destroy('handshake timed out')
      }, context.limits.handshakeTimeoutMs)
      this.#socket = context.directReads ? openForReading(origin, this) : readByEvents(origin, this)
    } else {
      const { fd, agreement } = origin
      this.#begin({ ...agreement, session: context.catalog.open(agreement.exportName, completion) })
      this.#socket = openDescriptor(fd, this)
    }
    // Only a unix socket has no family. Replies stay as they are while they are being sent.
    this.#outlet = new Outlet(this.#socket, this.#socket.remoteFamily === undefined ? DATA_APART_BYTES : undefined)
    this.#socket.on('end', () => this.#ended())
    this.#socket.on('error', (error) => {
      // Clients are free to go without taking the answer to their last option or to DISC.
      const leaving = this.#disconnected || this.#transmission?.disconnecting === true
      if (!leaving) this.#problem ??= error.message
    })
    this.#socket.on('close', () => this.#cleanUp())
    this.#socket.setNoDelay(true)
    this.#socket.setKeepAlive(true, context.limits.keepAliveMs)
    if (origin instanceof Socket) this.#sendHandshake()
    else if (origin.unread.length > 0) this.bytesRead(origin.unread.length, origin.unread)
  }

  /**
   * Answers new requests with ESHUTDOWN, and closes once all earlier ones are answered and taken.
   */
  shutDown(): void {
    this.#shuttingDown = true
    this.#handshake?.shutDown()
    this.#transmission?.shutDown()
    if (this.#transmission === undefined) this.#destroy('server is shutting down')
    else this.#closeIfDone()
  }

  destroy(): void {
    this.#destroy('server is shutting down')
  }

  // --- input

  readBuffer(): Uint8Array {
    this.#target = this.#transmission?.payloadTarget()
    if (this.#target !== undefined) return this.#target
    return this.#expectLarge ? this.#headerBuffer : this.#context.receiveBuffer
  }

  restBuffer(): Uint8Array | undefined {
    if (this.#closed || this.#paused) return undefined
    this.#target = this.#transmission?.payloadTarget()
    return this.#target
  }

  bytesRead(count: number, buffer: Uint8Array): boolean {
    const transmission = this.#transmission
    if (this.#closed) return false
    if (transmission === undefined) {
      this.#negotiate(buffer, count)
    } else if (buffer === this.#target) {
      transmission.payloadReceived(count)
      this.#expectLarge = true
    } else {
      this.#expectLarge = false
      this.#parse(transmission, buffer, 0, count)
    }
    return !this.#paused
  }

  #negotiate(buffer: Uint8Array, count: number): void {
    const handshake = this.#handshake
    if (handshake === undefined || this.#leaving !== undefined) return
    const taken = this.#guarded(() => handshake.receive(buffer, 0, count))
    this.#sendHandshake()
    const { state } = handshake
    if (state.kind === 'ended') {
      this.#disconnected = true
      this.#closeIfDone()
    } else if (state.kind === 'transmission') {
      clearTimeout(this.#handshakeTimer)
      const transmission = this.#begin(state.agreement)
      if (taken !== undefined && taken < count) this.#parse(transmission, buffer, taken, count)
    } else if (state.kind === 'away') {
      this.#paused = true
      this.#socket.pause()
      this.#leaving = { agreement: state.agreement, unread: copyBytes(buffer, taken ?? count, count) }
      // Not from inside the read that this is: it may still want to stop reading.
      process.nextTick(() => this.#leaveIfSent())
    }
  }

  #leaveIfSent(): void {
    const leaving = this.#leaving
    if (leaving === undefined || this.#closed || this.#socket.writableLength > 0) return
    // Only where chunks come as events can some have been read that nobody has seen.
    const later = this.#socket.read() as Buffer | null
    const unread = later === null ? leaving.unread : Buffer.concat([leaving.unread, later])
    const fd = giveAway(this.#socket)
    // What could not be given away is closed, and cleans up.
    if (fd === undefined) return
    clearTimeout(this.#handshakeTimer)
    this.#closed = true
    this.#context.left(this, { ...leaving, unread, fd })
  }

  #begin(agreement: Agreement): Transmission {
    const { pool, limits, counters } = this.#context
    const transmission = new Transmission(agreement, pool, limits, counters, this)
    this.#transmission = transmission
    this.#headerBuffer = this.#context.receiveBuffer.subarray(0, transmission.requestBytes + BEHIND_HEADER_BYTES)
    if (this.#shuttingDown) transmission.shutDown()
    return transmission
  }

  #parse(transmission: Transmission, buffer: Uint8Array, start: number, end: number): void {
    const taken = transmission.receive(buffer, start, end)
    if (transmission.violation !== undefined) {
      this.#destroy(transmission.violation)
      return
    }
    if (taken < end) {
      this.#stash = copyBytes(buffer, taken, end)
      this.#pause()
    }
    this.#flush()
  }

  #pause(): void {
    if (this.#paused) return
    this.#paused = true
    this.#context.counters.stalls++
    this.#socket.pause()
  }

  /** It was paused while the answers of the handshake were not taken; where there is a stash, that is for `capacityAvailable`. */
  #resume(): void {
    if (!this.#paused || this.#closed || this.#stash !== undefined) return
    this.#paused = false
    this.#socket.resume()
  }

  // --- TransmissionHost

  repliesReady(): void {
    if (this.#flushScheduled) return
    this.#flushScheduled = true
    atEndOfTurn(this.#flushLater)
  }

  largeReplyReady(): void {
    this.#flush()
  }

  capacityAvailable(): void {
    // Later, so that one client's backlog does not keep the others waiting.
    setImmediate(() => {
      const transmission = this.#transmission
      const stash = this.#stash
      if (this.#closed || transmission === undefined) return
      this.#stash = undefined
      if (stash !== undefined) this.#parse(transmission, stash, 0, stash.length)
      this.#resume()
    })
  }

  disconnected(): void {
    this.#disconnected = true
    this.repliesReady()
  }

  #completed(token: number, error: Errno): void {
    this.#transmission?.completed(token, error)
  }

  // --- output

  readonly #flushLater = (): void => {
    this.#flushScheduled = false
    this.#flush()
  }

  #flush(): void {
    const transmission = this.#transmission
    if (transmission === undefined || this.#closed) return
    transmission.repliesTaken()
    if (this.#writing) return
    const { replies } = transmission
    if (replies.ready) {
      const { parts, bounds, count } = replies.take()
      // The kernel takes it all at once, as a rule.
      if (!this.#outlet.send(parts, bounds, count, this.#repliesSent)) {
        this.#writing = true
        return
      }
      replies.sent()
      transmission.repliesSent()
    }
    if (this.#disconnected || this.#shuttingDown) this.#closeIfDone()
  }

  /** The replies that were being sent have left, or can't. */
  readonly #repliesSent = (): void => {
    const transmission = this.#transmission
    if (this.#closed || transmission === undefined) return
    this.#writing = false
    transmission.replies.sent()
    transmission.repliesSent()
    this.#flush()
    this.#resume()
  }

  /**
   * The stream handed answers of the handshake to the kernel. This may be after the first requests, whose replies say by
   * themselves when they have left: that the stream holds nothing does not mean that they have.
   */
  readonly #handshakeSent = (): void => {
    if (this.#closed || this.#socket.writableLength > 0) return
    if (this.#leaving === undefined) this.#resume()
    else this.#leaveIfSent()
  }

  #sendHandshake(): void {
    const output = this.#handshake?.takeOutput()
    if (output === undefined) return
    this.#socket.write(output, this.#handshakeSent)
    if (this.#socket.writableLength > HANDSHAKE_OUTPUT_BYTES_MAX) this.#pause()
  }

  // --- the end

  /** The client sends no more. Without DISC before that is a hard disconnect. */
  #ended(): void {
    // After DISC the last answers may still come; then `#closeIfDone` ends it.
    if (this.#transmission?.disconnecting === true && !this.#disconnected) return
    if (this.#disconnected) this.#closeIfDone()
    else this.#destroy(undefined)
  }

  #closeIfDone(): void {
    const transmission = this.#transmission
    if (this.#writing || transmission?.replies.ready === true) return
    if (transmission !== undefined && transmission.outstandingRequests > 0) return
    // Sends what the stream still holds, then closes.
    this.#socket.destroySoon()
  }

  #destroy(problem: string | undefined): void {
    this.#problem ??= problem
    this.#socket.destroy()
  }

  #cleanUp(): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#handshakeTimer)
    this.#stash = undefined
    this.#transmission?.close()
    this.#context.closed(this, this.#problem)
  }

  /** A catalog that throws costs this connection, not the server. */
  #guarded<T>(action: () => T): T | undefined {
    try {
      return action()
    } catch (error) {
      this.#destroy(error instanceof Error ? error.message : String(error))
      return undefined
    }
  }
}
