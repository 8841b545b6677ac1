/**
 * Keeps one etcd lease alive and knows until when it certainly lives (I8).
 *
 * A renewal counts from when it was *sent*, on our own clock since boot, and only if the member that
 * answered proves afterwards, by a linearizable read in the same raft term, that its leader was
 * still the leader: a leader that was paused and deposed answers renewals for a moment although the
 * cluster has counted the lease down without it (etcd issue 15247).
 *
 * The lease's id is ours: drawn, written to the lease file, and only then asked for. So neither a lost
 * answer nor a crash leaves a lease behind that nobody can revoke.
 */
import { randomBytes } from 'node:crypto'
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { type BootInstant, bootInstant, type Clock, type EventLog, type LeaseHandler } from '@holdfast/base'
import {
  grpcDeadline,
  isLeaseGone,
  type Member,
  type Members,
  NoAnswerError,
  reasonOf,
} from './members.ts'

/** Allowance for two clocks that run at different rates: far above what crystals do. */
const CLOCK_RATE_ERROR = 0.001
const NEVER = bootInstant(Number.NEGATIVE_INFINITY)
const BACKOFF_MS_MIN = 100
const BACKOFF_MS_MAX = 1000

export interface LeaseKeeperOptions {
  readonly members: Members
  readonly events: EventLog
  readonly clock: Clock
  readonly ttlMs: number
  readonly handler: LeaseHandler
  readonly leaseFile?: string | undefined
}

export class LeaseKeeper {
  readonly #members: Members
  readonly #events: EventLog
  readonly #clock: Clock
  readonly #handler: LeaseHandler
  readonly #leaseFile: string | undefined
  /** etcd counts in whole seconds. */
  readonly #ttlSeconds: number
  readonly #renewMs: number
  /** Deadline of one call: several members can be tried within what is left of the lease. */
  readonly #callMs: number
  /** May exist at etcd; revoked before another one is asked for. */
  #leaseId: string | undefined
  #granted = false
  #held = false
  #validUntil: BootInstant = NEVER
  #timer: NodeJS.Timeout | undefined
  #lapseTimer: NodeJS.Timeout | undefined
  #backoffMs = BACKOFF_MS_MIN
  #troubled = false
  #turning = false
  #stopped = false

  constructor({ members, events, clock, ttlMs, handler, leaseFile }: LeaseKeeperOptions) {
    this.#members = members
    this.#events = events
    this.#clock = clock
    this.#handler = handler
    this.#leaseFile = leaseFile
    this.#ttlSeconds = Math.max(1, Math.ceil(ttlMs / 1000))
    this.#renewMs = ttlMs / 4
    this.#callMs = Math.min(2000, Math.max(150, ttlMs / 6))
    this.#leaseId = this.#readLeaseFile()
    this.#later(0)
  }

  /** The lease that leased keys hang on now, or undefined when none is held. */
  get heldId(): string | undefined {
    this.#look()
    return this.#held ? this.#leaseId : undefined
  }

  get validUntil(): BootInstant {
    this.#look()
    return this.#validUntil
  }

  /** Timers stand still while the machine sleeps: whoever asks first after that finds the lease over. */
  #look(): void {
    if (!this.#held || this.#clock.sinceBoot() < this.#validUntil) return
    this.#lost('the lease was not renewed in time')
    if (!this.#turning) this.#later(0)
  }

  /** Something else was told that the lease is gone: look at once. */
  doubt(leaseId: string): void {
    if (leaseId === this.#leaseId && this.#granted) this.#gone('etcd does not know the lease')
  }

  /** Ends without giving the lease back. */
  abandon(): void {
    this.#stopped = true
    this.#held = false
    this.#validUntil = NEVER
    clearTimeout(this.#timer)
    clearTimeout(this.#lapseTimer)
  }

  /** Ends and revokes the lease. Never rejects. */
  async release(): Promise<void> {
    this.abandon()
    try {
      await this.#revoke()
    } catch (error) {
      this.#events.event('warn', 'the lease could not be given back; it expires by itself', {
        reason: reasonOf(error),
      })
    }
  }

  #later(ms: number): void {
    clearTimeout(this.#timer)
    if (!this.#stopped) this.#timer = setTimeout(() => void this.#turn(), ms)
  }

  /** One acquisition or renewal; plans the next one. Never rejects. */
  async #turn(): Promise<void> {
    const startedAt = this.#clock.sinceBoot()
    const leaseId = this.#leaseId
    this.#turning = true
    try {
      if (this.#granted && leaseId !== undefined) await this.#renew(leaseId)
      else await this.#acquire()
      if (this.#stopped) return
      if (this.#troubled) this.#events.event('info', 'etcd answers again')
      this.#troubled = false
      this.#backoffMs = BACKOFF_MS_MIN
      const renewInMs = startedAt + this.#renewMs - this.#clock.sinceBoot()
      this.#later(this.#granted ? Math.max(0, renewInMs) : 0)
    } catch (error) {
      if (this.#stopped) return
      if (!this.#troubled) {
        this.#events.event('warn', 'etcd does not answer; trying on', { reason: reasonOf(error) })
      }
      this.#troubled = true
      // While the lease still counts down there is no time for patience.
      const calm = !this.#held
      this.#later(this.#backoffMs)
      this.#backoffMs = calm ? Math.min(BACKOFF_MS_MAX, this.#backoffMs * 2) : BACKOFF_MS_MIN
    } finally {
      this.#turning = false
    }
  }

  async #acquire(): Promise<void> {
    await this.#revoke()
    if (this.#stopped) return
    const leaseId = drawLeaseId()
    this.#writeLeaseFile(leaseId)
    this.#leaseId = leaseId
    const sentAt = this.#clock.sinceBoot()
    const ttlSeconds = await this.#members.ask(this.#callMs * 2, async ({ client }) => {
      const request = { ID: leaseId, TTL: this.#ttlSeconds }
      const answer = await client.leaseClient.leaseGrant(request, grpcDeadline(this.#callMs * 2))
      return Number(answer.TTL)
    })
    if (this.#stopped) return
    this.#granted = true
    this.#renewed(sentAt, ttlSeconds)
  }

  async #renew(leaseId: string): Promise<void> {
    const { sentAt, ttlSeconds } = await this.#members.ask(this.#callMs, async (member) => {
      const at = this.#clock.sinceBoot()
      const answer = await keepAliveOnce(member, leaseId, this.#callMs)
      if (answer.ttlSeconds <= 0) return { sentAt: at, ttlSeconds: 0 }
      const read = await member.client.kv.range(
        { key: Buffer.from('\0'), limit: 1, keys_only: true },
        grpcDeadline(this.#callMs),
      )
      if (Number(read.header.raft_term) !== answer.raftTerm) {
        throw new NoAnswerError(`the leader changed while ${member.endpoint} renewed the lease`)
      }
      return { sentAt: at, ttlSeconds: answer.ttlSeconds }
    })
    if (this.#stopped || leaseId !== this.#leaseId || !this.#granted) return
    if (ttlSeconds === 0) this.#gone('the lease expired at etcd')
    else this.#renewed(sentAt, ttlSeconds)
  }

  #renewed(sentAt: BootInstant, ttlSeconds: number): void {
    const until = sentAt + ttlSeconds * 1000 * (1 - CLOCK_RATE_ERROR)
    if (until > this.#validUntil) this.#validUntil = bootInstant(until)
    if (this.#clock.sinceBoot() >= this.#validUntil) return
    this.#watchLapse()
    if (this.#held) return
    this.#held = true
    this.#events.event('info', 'a lease is held', { lease: this.#leaseId, ttlSeconds })
    queueMicrotask(() => {
      if (!this.#stopped && this.#held) this.#handler.gained()
    })
  }

  #watchLapse(): void {
    clearTimeout(this.#lapseTimer)
    this.#lapseTimer = setTimeout(
      () => {
        this.#look()
        if (this.#held) this.#watchLapse()
      },
      Math.max(1, Math.ceil(this.#validUntil - this.#clock.sinceBoot())),
    )
  }

  #lost(reason: string): void {
    clearTimeout(this.#lapseTimer)
    this.#validUntil = NEVER
    if (!this.#held) return
    this.#held = false
    this.#events.event('warn', 'the lease is lost', { lease: this.#leaseId, reason })
    queueMicrotask(() => {
      if (!this.#stopped && !this.#held) this.#handler.lost()
    })
  }

  #gone(reason: string): void {
    this.#granted = false
    this.#lost(reason)
    if (!this.#turning) this.#later(0)
  }

  /** Ends the lease whose id we know, if any; afterwards its keys are certainly gone. */
  async #revoke(): Promise<void> {
    const leaseId = this.#leaseId
    if (leaseId === undefined) return
    try {
      await this.#members.ask(this.#callMs * 2, ({ client }) =>
        client.leaseClient.leaseRevoke({ ID: leaseId }, grpcDeadline(this.#callMs * 2)),
      )
    } catch (error) {
      if (!isLeaseGone(error)) throw error
    }
    this.#leaseId = undefined
    this.#granted = false
    if (this.#leaseFile !== undefined) rmSync(this.#leaseFile, { force: true })
  }

  #readLeaseFile(): string | undefined {
    if (this.#leaseFile === undefined) return undefined
    try {
      const id = readFileSync(this.#leaseFile, 'utf8').trim()
      return /^[0-9]{1,19}$/.test(id) ? id : undefined
    } catch {
      return undefined
    }
  }

  /** A file that can't be written costs a wait of one ttl after a restart, not the node. */
  #writeLeaseFile(leaseId: string): void {
    if (this.#leaseFile === undefined) return
    try {
      writeFileSync(`${this.#leaseFile}.new`, `${leaseId}\n`, { flush: true })
      renameSync(`${this.#leaseFile}.new`, this.#leaseFile)
    } catch (error) {
      this.#events.event('warn', 'the lease file cannot be written', { reason: reasonOf(error) })
    }
  }
}

/**
 * 48 random bits, never 0 (0 would let etcd choose). Not more: protobufjs keeps 64-bit numbers exact
 * only where it finds the optional package `long`.
 */
function drawLeaseId(): string {
  return String(Math.max(1, randomBytes(6).readUIntBE(0, 6)))
}

/** One renewal on a stream of its own, so that a hung member costs one deadline and no state. */
async function keepAliveOnce(
  { client }: Member,
  leaseId: string,
  ms: number,
): Promise<{ ttlSeconds: number; raftTerm: number }> {
  const stream = await client.leaseClient.leaseKeepAlive(grpcDeadline(ms))
  return new Promise((resolve, reject) => {
    stream.on('error', reject)
    stream.on('end', () => reject(new NoAnswerError('the renewal stream ended without an answer')))
    stream.on('data', ({ TTL, header }) => {
      resolve({ ttlSeconds: Number(TTL), raftTerm: Number(header.raft_term) })
    })
    stream.write({ ID: leaseId })
    stream.end()
  })
}
