/**
 * Our lease at etcd, with our own books: valid from when an answered renewal was *sent*, on the monotonic clock.
 *
 * etcd3's own Lease stamps at the answer, on the wall clock, and tells of a loss late; so only the raw calls
 * are used here.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { type EventLog, type Instant, instant, type LeaseHandler } from '@holdfast/base'
import type { Etcd3 } from 'etcd3'

const NEVER = instant(Number.NEGATIVE_INFINITY)
const RETRY_MS = 200

export interface EtcdLeaseOptions {
  readonly client: Etcd3
  readonly ttlMs: number
  readonly handler: LeaseHandler
  readonly events: EventLog
  /** Remembers the lease, so that the next process can give it back instead of waiting for its end. */
  readonly file: string | undefined
}

type KeepAlive = Awaited<ReturnType<Etcd3['leaseClient']['leaseKeepAlive']>>

export class EtcdLease {
  readonly #options: EtcdLeaseOptions
  #id: string | undefined
  #validUntil: Instant = NEVER
  #stream: KeepAlive | undefined
  /** When each renewal not yet answered was sent; answers come in order. */
  #sentAt: number[] = []
  #timer: NodeJS.Timeout | undefined
  #closed = false

  constructor(options: EtcdLeaseOptions) {
    this.#options = options
    void this.#begin()
  }

  /** Undefined while none is held. */
  get id(): string | undefined {
    return this.#id
  }

  get validUntil(): Instant {
    return this.#validUntil
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    this.#dropStream()
    const id = this.#id
    this.#id = undefined
    this.#validUntil = NEVER
    if (id !== undefined) await this.#revoke(id)
  }

  async #begin(): Promise<void> {
    const left = this.#leftBehind()
    if (left !== undefined) await this.#revoke(left)
    await this.#acquire()
  }

  #leftBehind(): string | undefined {
    const { file } = this.#options
    if (file === undefined) return undefined
    try {
      return readFileSync(file, 'utf8').trim() || undefined
    } catch {
      return undefined
    }
  }

  async #revoke(id: string): Promise<void> {
    try {
      await this.#options.client.leaseClient.leaseRevoke({ ID: id }, this.#deadline())
    } catch {
      // It may have ended by itself; if not, it will.
    }
  }

  async #acquire(): Promise<void> {
    if (this.#closed) return
    const sentAt = performance.now()
    const { client, ttlMs, events, file, handler } = this.#options
    try {
      const ttl = Math.max(1, Math.ceil(ttlMs / 1000))
      const { ID, TTL } = await client.leaseClient.leaseGrant({ TTL: ttl }, this.#deadline())
      if (this.#closed) {
        await this.#revoke(ID)
        return
      }
      if (file !== undefined) {
        mkdirSync(dirname(file), { recursive: true })
        writeFileSync(file, `${ID}\n`)
      }
      this.#id = ID
      this.#validUntil = instant(sentAt + Number(TTL) * 1000)
      handler.gained()
      this.#renewLater()
    } catch (error) {
      events.event('warn', 'no lease at etcd yet: check that etcd runs and --coordinator is right', {
        reason: error instanceof Error ? error.message : String(error),
      })
      this.#timer = setTimeout(() => void this.#acquire(), RETRY_MS * 5)
    }
  }

  #renewLater(): void {
    this.#timer = setTimeout(() => this.#renew(), this.#options.ttlMs / 4)
  }

  #renew(): void {
    if (this.#closed || this.#id === undefined) return
    const now = performance.now()
    if (now > this.#validUntil) {
      this.#lose('no renewal was answered in time')
      return
    }
    const oldest = this.#sentAt[0]
    if (oldest !== undefined && now - oldest > this.#options.ttlMs / 3) {
      // This member of etcd does not answer: the next stream goes to another one.
      this.#dropStream()
    }
    this.#renewLater()
    if (this.#stream !== undefined) this.#send(this.#stream, this.#id)
    else void this.#openStream(this.#id)
  }

  async #openStream(id: string): Promise<void> {
    const { client } = this.#options
    try {
      const stream = await client.leaseClient.leaseKeepAlive()
      if (this.#closed || this.#id !== id || this.#stream !== undefined) {
        stream.cancel()
        return
      }
      this.#stream = stream
      this.#sentAt = []
      stream.on('data', ({ TTL }) => this.#answered(stream, Number(TTL)))
      const gone = (): void => {
        if (this.#stream === stream) this.#dropStream()
      }
      stream.on('error', gone)
      stream.on('end', gone)
      this.#send(stream, id)
    } catch {
      // Tried again at the next renewal, on another member.
    }
  }

  #send(stream: KeepAlive, id: string): void {
    this.#sentAt.push(performance.now())
    stream.write({ ID: id })
  }

  #answered(stream: KeepAlive, ttlSeconds: number): void {
    if (this.#stream !== stream) return
    const sentAt = this.#sentAt.shift()
    if (sentAt === undefined || this.#id === undefined) return
    if (ttlSeconds > 0) this.#validUntil = instant(sentAt + ttlSeconds * 1000)
    else this.#lose('etcd says that it has ended')
  }

  #lose(reason: string): void {
    const { handler, events } = this.#options
    events.event('warn', `the lease at etcd is lost: ${reason}`)
    this.#id = undefined
    this.#validUntil = NEVER
    this.#dropStream()
    clearTimeout(this.#timer)
    handler.lost()
    void this.#acquire()
  }

  #dropStream(): void {
    const stream = this.#stream
    this.#stream = undefined
    this.#sentAt = []
    stream?.on('error', () => {})
    stream?.cancel()
  }

  #deadline(): { deadline: number } {
    return { deadline: Date.now() + Math.max(500, this.#options.ttlMs / 3) }
  }
}
