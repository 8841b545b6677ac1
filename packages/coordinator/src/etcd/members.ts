/**
 * The members of the etcd cluster: one client each, so that we choose which member is asked.
 *
 * etcd3's own policies are switched off: they would send a transaction again after an answer was
 * lost, and spread calls over members at random, so that a hung one is met again and again.
 */
import { noop } from 'cockatiel'
import { Etcd3, type IOptions } from 'etcd3'

export interface EtcdAccess {
  /** `host:port` each. */
  readonly endpoints: readonly string[]
  readonly credentials?: IOptions['credentials'] | undefined
  readonly auth?: { readonly username: string; readonly password: string } | undefined
}

export interface Member {
  readonly endpoint: string
  readonly client: Etcd3
}

/** No answer in time. The request may still be carried out. */
export class NoAnswerError extends Error {
  override readonly name = 'NoAnswerError'
}

const GRPC_OPTIONS = {
  // A member that comes back is found at once, not after gRPC's usual two minutes.
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.min_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1000,
  // etcd refuses pings that come more often than every 5 s.
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 5000,
  'grpc.enable_retries': 0,
  // A snapshot of a large cluster exceeds gRPC's 4 MiB.
  'grpc.max_receive_message_length': -1,
}

export class Members {
  readonly #members: readonly Member[]
  #preferred = 0
  #closed = false

  constructor({ endpoints, credentials, auth }: EtcdAccess) {
    this.#members = endpoints.map((endpoint) => ({
      endpoint,
      client: new Etcd3({
        hosts: credentials === undefined ? `http://${endpoint}` : `https://${endpoint}`,
        grpcOptions: GRPC_OPTIONS,
        faultHandling: { host: () => noop, global: noop },
        ...(credentials === undefined ? {} : { credentials }),
        ...(auth === undefined ? {} : { auth }),
      }),
    }))
  }

  get count(): number {
    return this.#members.length
  }

  /** All members, the one that answered last in front. */
  inOrder(): Member[] {
    const { length } = this.#members
    return this.#members.map((member, i) => this.#members[(this.#preferred + i) % length] ?? member)
  }

  /** The member is in trouble: others are asked first from now on. */
  avoid(member: Member): void {
    if (this.inOrder()[0] !== member) return
    this.#preferred = (this.#preferred + 1) % this.#members.length
  }

  /** Asks one member after the other until one answers; each has `eachMs`. Rejects with the last error. */
  async ask<T>(eachMs: number, call: (member: Member) => Promise<T>): Promise<T> {
    let last: unknown = new NoAnswerError('no etcd member is known')
    for (const member of this.inOrder()) {
      if (this.#closed) throw new NoAnswerError('the coordinator is closed')
      try {
        return await this.askOne(member, eachMs, call)
      } catch (error) {
        last = error
        if (isDefinite(error)) throw error
      }
    }
    throw last
  }

  /** Asks this member. Rejects with NoAnswerError after `ms`, whatever gRPC's own timer does. */
  async askOne<T>(member: Member, ms: number, call: (member: Member) => Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined
    const deadline = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(
        () => reject(new NoAnswerError(`no answer of ${member.endpoint} within ${ms} ms`)),
        ms,
      )
    })
    try {
      const answer = call(member)
      // When the deadline wins, the call's own failure comes later and must not go unhandled.
      answer.catch(() => undefined)
      return await Promise.race([answer, deadline])
    } catch (error) {
      if (!isDefinite(error)) this.avoid(member)
      throw error
    } finally {
      clearTimeout(timer)
    }
  }

  close(): void {
    this.#closed = true
    for (const { client } of this.#members) client.close()
  }
}

/** gRPC wants deadlines by the wall clock; ours by a timer (see `askOne`) is the one that counts. */
export function grpcDeadline(ms: number): { deadline: number } {
  return { deadline: Date.now() + ms }
}

/** Every member would answer the same: there is no use in asking another one. */
function isDefinite(error: unknown): boolean {
  return isLeaseGone(error)
}

/** etcd says that it has no such lease. */
export function isLeaseGone(error: unknown): boolean {
  return error instanceof Error && error.message.includes('requested lease not found')
}

/**
 * True when the request certainly never left this process. etcd3 drops gRPC's code, so the text of
 * grpc-js is what remains; a test kills a member and fails should that text ever change.
 */
export function wasNeverSent(error: unknown): boolean {
  return error instanceof Error && error.message.includes('No connection established')
}

export function reasonOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).toLowerCase()
}
