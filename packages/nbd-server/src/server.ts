/** The NBD server: listeners, the set of connections, and their orderly end. */
import type { Server, Socket } from 'node:net'
import type { EventLog, ExportCatalog } from '@holdfast/base'
import { BufferPool } from '@holdfast/nbd-protocol'
import { Connection, type ConnectionContext } from './connection.ts'
import { type NbdCounters, newNbdCounters } from './counters.ts'
import { defaultLimits, type NbdLimits } from './limits.ts'
import { listen, type NbdListener } from './listeners.ts'
import { allocateAligned } from './reply-memory.ts'

export interface NbdServerOptions {
  readonly catalog: ExportCatalog
  readonly listeners: readonly NbdListener[]
  readonly limits?: Partial<NbdLimits> | undefined
  readonly events?: EventLog | undefined
  /** Filled in by the server; read it whenever metrics are scraped. */
  readonly counters?: NbdCounters | undefined
  /** False: read sockets by 'data' events instead of into own buffers. A way out, and for tests. */
  readonly directReads?: boolean | undefined
}

export interface NbdServer {
  /** As asked for, with the real port where 0 was asked for. */
  readonly addresses: readonly NbdListener[]
  readonly counters: NbdCounters
  /**
   * Accepts no more, answers new requests with ESHUTDOWN and waits (`drainTimeoutMs` at most)
   * until requests under way are answered and the answers taken; then ends every connection.
   * Idempotent.
   */
  close(): Promise<void>
}

/** Bytes read from a socket at once; a turn of 4 KiB writes at depth 32 fits. */
const RECEIVE_BYTES = 256 * 1024
/**
 * After a large payload: some small requests, but little of a next large payload (it is copied).
 */
const HEADER_READ_BYTES = 512

/** Rejects with a HoldfastError if any listener can't be opened; none stays open then. */
export async function startNbdServer(options: NbdServerOptions): Promise<NbdServer> {
  const server = new RunningServer(options)
  try {
    for (const listener of options.listeners) await server.listen(listener)
  } catch (error) {
    await server.close()
    throw error
  }
  return server
}

class RunningServer implements NbdServer {
  readonly counters: NbdCounters
  readonly #limits: NbdLimits
  readonly #events: EventLog | undefined
  readonly #context: ConnectionContext
  readonly #servers: Server[] = []
  readonly #addresses: NbdListener[] = []
  readonly #connections = new Set<Connection>()
  #closing: Promise<void> | undefined
  #allGone: (() => void) | undefined

  constructor(options: NbdServerOptions) {
    this.counters = options.counters ?? newNbdCounters()
    this.#events = options.events
    this.#limits = { ...defaultLimits, ...options.limits }
    const receiveBuffer = Buffer.allocUnsafeSlow(RECEIVE_BYTES)
    this.#context = {
      catalog: options.catalog,
      limits: this.#limits,
      counters: this.counters,
      pool: new BufferPool(allocateAligned, this.#limits.poolBytesMax),
      receiveBuffer,
      headerBuffer: receiveBuffer.subarray(0, HEADER_READ_BYTES),
      directReads: options.directReads ?? true,
      closed: (connection, problem) => this.#closed(connection, problem),
    }
  }

  get addresses(): readonly NbdListener[] {
    return this.#addresses
  }

  async listen(listener: NbdListener): Promise<void> {
    const { server, address } = await listen(listener, (socket) => this.#accepted(socket))
    // Without a listener an error (out of file descriptors while accepting) would end the process.
    server.on('error', (error) => {
      this.#events?.event('error', 'nbd listener failed', { reason: error.message })
    })
    this.#servers.push(server)
    this.#addresses.push(address)
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  #accepted(socket: Socket): void {
    const { counters } = this
    if (this.#closing !== undefined || this.#connections.size >= this.#limits.connectionsMax) {
      counters.connectionsRefused++
      this.#events?.event('warn', 'nbd connection refused', { open: this.#connections.size })
      socket.destroy()
      return
    }
    counters.connectionsAccepted++
    counters.connections++
    this.#connections.add(new Connection(socket, this.#context))
  }

  #closed(connection: Connection, problem: string | undefined): void {
    if (!this.#connections.delete(connection)) return
    this.counters.connections--
    if (problem !== undefined && this.#closing === undefined) {
      this.#events?.event('info', 'nbd connection dropped', { reason: problem })
    }
    if (this.#connections.size === 0) this.#allGone?.()
  }

  async #close(): Promise<void> {
    const listenersClosed = this.#servers.map(
      (server) => new Promise<void>((resolve) => server.close(() => resolve())),
    )
    const gone = new Promise<void>((resolve) => {
      this.#allGone = resolve
    })
    if (this.#connections.size > 0) {
      for (const connection of this.#connections) connection.shutDown()
      const timer = setTimeout(() => {
        for (const connection of this.#connections) connection.destroy()
      }, this.#limits.drainTimeoutMs)
      await gone
      clearTimeout(timer)
    }
    await Promise.all(listenersClosed)
  }
}
