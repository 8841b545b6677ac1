/**
 * The Coordinator port over etcd 3.4 and later.
 *
 * Safety never depends on it alone (DESIGN 4: I4, I7); what it must not do is lie about the lease, send
 * a transaction twice, or call a lost answer a refusal.
 */
import {
  assert,
  type BootInstant,
  bootInstant,
  type Clock,
  type Coordinator,
  type EventLog,
  type LeaseHandler,
  type Operation,
  type RangeResult,
  type Transaction,
  type TransactionResult,
  type WatchHandler,
} from '@holdfast/base'
import type { IRequestOp, ITxnRequest } from 'etcd3'
import { checkTransaction } from '../check-transaction.ts'
import { entryOf, prefixRange } from './entries.ts'
import { LeaseKeeper } from './lease-keeper.ts'
import {
  type EtcdAccess,
  grpcDeadline,
  isLeaseGone,
  Members,
  reasonOf,
  wasNeverSent,
} from './members.ts'
import { Watcher } from './watcher.ts'

const CALL_MS = 2000
const CHECK_MS_WITHOUT_LEASE = 3000

export interface EtcdCoordinatorOptions extends EtcdAccess {
  readonly events: EventLog
  /** What `leaseValidUntil` is read against. */
  readonly clock: Clock
  /** Where the id of the lease is kept, so that a restarted node need not wait for its own old keys. */
  readonly leaseFile?: string | undefined
  /** Deadline of a transaction or read, milliseconds. Default 2000. */
  readonly callMs?: number | undefined
}

/** Never fails and never waits: etcd need not be up. */
export function openEtcdCoordinator(options: EtcdCoordinatorOptions): EtcdCoordinator {
  return new EtcdCoordinator(options)
}

export class EtcdCoordinator implements Coordinator {
  readonly #members: Members
  readonly #events: EventLog
  readonly #clock: Clock
  readonly #leaseFile: string | undefined
  readonly #callMs: number
  readonly #watchers = new Set<Watcher>()
  #keeper: LeaseKeeper | undefined
  #checkMs = CHECK_MS_WITHOUT_LEASE
  #closed = false

  /** Connects when first needed; etcd need not be up. */
  constructor(options: EtcdCoordinatorOptions) {
    assert(options.endpoints.length > 0, 'an etcd coordinator needs an endpoint')
    this.#members = new Members(options)
    this.#events = options.events
    this.#clock = options.clock
    this.#leaseFile = options.leaseFile
    this.#callMs = options.callMs ?? CALL_MS
  }

  holdLease(ttlMs: number, handler: LeaseHandler): void {
    assert(this.#keeper === undefined, 'a lease is held already')
    assert(!this.#closed, 'the coordinator is closed')
    this.#checkMs = Math.max(200, ttlMs / 3)
    this.#keeper = new LeaseKeeper({
      members: this.#members,
      events: this.#events,
      clock: this.#clock,
      leaseFile: this.#leaseFile,
      ttlMs,
      handler,
    })
  }

  leaseValidUntil(): BootInstant {
    return this.#keeper?.validUntil ?? bootInstant(Number.NEGATIVE_INFINITY)
  }

  range(prefix: string, done: (result: RangeResult) => void): void {
    const eachMs = Math.ceil(this.#callMs / Math.min(2, this.#members.count))
    this.#members
      .ask(eachMs, ({ client }) => client.kv.range(prefixRange(prefix), grpcDeadline(eachMs)))
      .then(({ kvs, header }): RangeResult => {
        return { kind: 'ok', entries: kvs.map(entryOf), revision: Number(header.revision) }
      })
      .catch((error: unknown): RangeResult => ({ kind: 'unknown', reason: reasonOf(error) }))
      .then((result) => queueMicrotask(() => done(result)))
  }

  transact(transaction: Transaction, done: (result: TransactionResult) => void): void {
    checkTransaction(transaction)
    const leaseId = this.#keeper?.heldId
    if (leaseId === undefined && transaction.operations.some(isLeasedPut)) {
      queueMicrotask(() => done({ kind: 'no-lease' }))
      return
    }
    this.#send(requestOf(transaction, leaseId ?? '0'))
      .catch((error: unknown): TransactionResult => {
        if (!isLeaseGone(error)) return { kind: 'unknown', reason: reasonOf(error) }
        if (leaseId !== undefined) this.#keeper?.doubt(leaseId)
        return { kind: 'no-lease' }
      })
      .then((result) => queueMicrotask(() => done(result)))
  }

  watch(prefix: string, handler: WatchHandler): () => void {
    assert(!this.#closed, 'the coordinator is closed')
    const watcher = new Watcher({
      members: this.#members,
      events: this.#events,
      prefix,
      handler,
      callMs: this.#callMs,
      checkMs: () => this.#checkMs,
    })
    this.#watchers.add(watcher)
    return () => {
      watcher.stop()
      this.#watchers.delete(watcher)
    }
  }

  close(done: () => void): void {
    this.#stopWatchers()
    const released = this.#keeper?.release() ?? Promise.resolve()
    released.finally(() => {
      this.#members.close()
      queueMicrotask(done)
    })
  }

  /** Ends everything as a killed process would: the lease is left to expire. */
  abandon(): void {
    this.#stopWatchers()
    this.#keeper?.abandon()
    this.#members.close()
  }

  #stopWatchers(): void {
    this.#closed = true
    for (const watcher of this.#watchers) watcher.stop()
    this.#watchers.clear()
  }

  /**
   * Sends once. Another member is asked only where the request certainly never left; after anything
   * else it may have been applied, and only the caller knows what that means.
   */
  async #send(request: ITxnRequest): Promise<TransactionResult> {
    let last: unknown
    for (const member of this.#members.inOrder()) {
      try {
        const answer = await this.#members.askOne(member, this.#callMs, ({ client }) =>
          client.kv.txn(request, grpcDeadline(this.#callMs)),
        )
        if (!answer.succeeded) return { kind: 'conflict' }
        return { kind: 'ok', revision: Number(answer.header.revision) }
      } catch (error) {
        last = error
        if (!wasNeverSent(error)) throw error
      }
    }
    throw last
  }
}

function isLeasedPut(operation: Operation): boolean {
  return operation.op === 'put' && operation.leased === true
}

function requestOf({ compares, operations }: Transaction, leaseId: string): ITxnRequest {
  return {
    compare: compares.map(({ key, modRevision }) => ({
      key: Buffer.from(key),
      target: 'Mod',
      result: 'Equal',
      mod_revision: modRevision,
    })),
    success: operations.map((operation): IRequestOp => {
      const key = Buffer.from(operation.key)
      if (operation.op === 'delete') return { request_delete_range: { key } }
      const value = Buffer.from(operation.value)
      const lease = operation.leased === true ? leaseId : '0'
      return { request_put: { key, value, lease } }
    }),
    failure: [],
  }
}
