/** The NBD server: listeners, the set of connections, and their orderly end. */
import { closeSync } from 'node:fs'
import type { Server, Socket } from 'node:net'
import { type EventLog, type ExportCatalog, isHoldfastError } from '@holdfast/base'
import { BufferPool } from '@holdfast/nbd-protocol'
import { Connection, type ConnectionContext, type HandedConnection } from './connection.ts'
import { type NbdCounters, newNbdCounters } from './counters.ts'
import { defaultLimits, type NbdLimits } from './limits.ts'
import { listen, type NbdListener } from './listeners.ts'
import { allocateAligned } from '@holdfast/addon'

export interface NbdServerOptions {
  readonly catalog: ExportCatalog
  readonly listeners: readonly NbdListener[]
  readonly limits?: Partial<NbdLimits> | undefined
  readonly events?: EventLog | undefined
  /** Filled in by the server; read it whenever metrics are scraped. */
  readonly counters?: NbdCounters | undefined
  /** False: read sockets by 'data' events instead of into own buffers. A way out, and for tests. */
  readonly directReads?: boolean | undefined
  /** Takes connections to exports that the catalog says are another shard's; that one's server adopts them. */
  readonly handOver?: ((handed: HandedConnection) => void) | undefined
  /** A connection that was adopted has ended: the server that handed it over counts it, see `returned`. */
  readonly adoptedClosed?: (() => void) | undefined
}

export interface NbdServer {
  /** As asked for, with the real port where 0 was asked for. */
  readonly addresses: readonly NbdListener[]
  readonly counters: NbdCounters
  /** Goes on with a connection of another shard's server. */
  adopt(handed: HandedConnection): void
  /** A connection that was handed over has ended. */
  returned(): void
  /**
   * Accepts no more, answers new requests with ESHUTDOWN and waits (`drainTimeoutMs` at most)
   * until requests under way are answered and the answers taken; then ends every connection.
   * Idempotent.
   */
  close(): Promise<void>
}

/** Bytes read from a socket at once; a turn of 4 KiB writes at depth 32 fits. */
const RECEIVE_BYTES = 256 * 1024
/** Another shard may hear of a new export a little earlier than this one does. */
const ADOPT_RETRY_MS = 10
const ADOPT_PATIENCE_MS = 3_000

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
  /** Connections that other shards go on with. */
  #away = 0
  /** Connections that wait for their export to be known here. */
  #adopting = 0
  readonly #handOver: ((handed: HandedConnection) => void) | undefined
  readonly #adoptedClosed: () => void
  readonly #adopted = new WeakSet<Connection>()
  #closing: Promise<void> | undefined
  #allGone: (() => void) | undefined

  constructor(options: NbdServerOptions) {
    this.counters = options.counters ?? newNbdCounters()
    this.#events = options.events
    this.#handOver = options.handOver
    this.#adoptedClosed = options.adoptedClosed ?? (() => {})
    this.#limits = { ...defaultLimits, ...options.limits }
    this.#context = {
      catalog: options.catalog,
      limits: this.#limits,
      counters: this.counters,
      pool: new BufferPool(allocateAligned, this.#limits.poolBytesMax),
      receiveBuffer: allocateAligned(RECEIVE_BYTES),
      directReads: options.directReads ?? true,
      closed: (connection, problem) => this.#closed(connection, problem),
      left: (connection, handed) => this.#left(connection, handed),
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

  adopt(handed: HandedConnection): void {
    this.#adopting++
    const giveUpAt = performance.now() + ADOPT_PATIENCE_MS
    const look = (): void => {
      const { exportId, exportName } = handed.agreement
      const found = this.#context.catalog.find(exportName)
      // The name may mean another volume here: what this thread knows can be older or newer than what the first one knew.
      const known = found !== undefined && found.id === exportId
      if (!known && this.#closing === undefined && performance.now() < giveUpAt) {
        setTimeout(look, ADOPT_RETRY_MS)
        return
      }
      this.#adopting--
      if (known && this.#closing === undefined) this.#adoptNow(handed)
      else this.#giveUp(handed, known ? 'server is shutting down' : 'its export is not known')
      this.#lookWhetherAllGone()
    }
    look()
  }

  returned(): void {
    this.#away--
    this.counters.connections--
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  #accepted(socket: Socket): void {
    const { counters } = this
    if (this.#closing !== undefined || this.#connections.size + this.#away >= this.#limits.connectionsMax) {
      counters.connectionsRefused++
      this.#events?.event('warn', 'nbd connection refused', { open: this.#connections.size + this.#away })
      socket.destroy()
      return
    }
    counters.connectionsAccepted++
    counters.connections++
    this.#connections.add(new Connection(socket, this.#context))
  }

  #adoptNow(handed: HandedConnection): void {
    try {
      const connection = new Connection(handed, this.#context)
      this.#adopted.add(connection)
      this.#connections.add(connection)
    } catch (error) {
      if (!isHoldfastError(error)) throw error
      this.#giveUp(handed, error.message)
    }
  }

  #giveUp({ fd }: HandedConnection, reason: string): void {
    closeSync(fd)
    this.#events?.event('info', 'nbd connection dropped', { reason })
    this.#adoptedClosed()
  }

  /** Still open, and still counted here. */
  #left(connection: Connection, handed: HandedConnection): void {
    this.#connections.delete(connection)
    this.#away++
    this.#handOver?.(handed)
    this.#lookWhetherAllGone()
  }

  #closed(connection: Connection, problem: string | undefined): void {
    if (!this.#connections.delete(connection)) return
    if (this.#adopted.has(connection)) this.#adoptedClosed()
    else this.counters.connections--
    if (problem !== undefined && this.#closing === undefined) {
      this.#events?.event('info', 'nbd connection dropped', { reason: problem })
    }
    this.#lookWhetherAllGone()
  }

  #lookWhetherAllGone(): void {
    if (this.#connections.size === 0 && this.#adopting === 0) this.#allGone?.()
  }

  async #close(): Promise<void> {
    const listenersClosed = this.#servers.map(
      (server) => new Promise<void>((resolve) => server.close(() => resolve())),
    )
    const gone = new Promise<void>((resolve) => {
      this.#allGone = resolve
    })
    if (this.#connections.size > 0 || this.#adopting > 0) {
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
