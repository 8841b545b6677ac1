/** The Coordinator port of a thread whose process has its coordinator in another thread (`shared-coordinator.ts`). */
import type { MessagePort } from 'node:worker_threads'
import {
  assert,
  type BootInstant,
  bootInstant,
  type Coordinator,
  type LeaseHandler,
  type RangeResult,
  type Transaction,
  type TransactionResult,
  type WatchHandler,
} from '@holdfast/base'
import { checkTransaction } from '../check-transaction.ts'
import { LeaseMemory } from './lease-memory.ts'
import type { FromThread, ToThread } from './port.ts'

/** `memory` is the shared coordinator's. */
export function remoteCoordinator(port: MessagePort, memory: SharedArrayBuffer): Coordinator {
  return new RemoteCoordinator(port, new LeaseMemory(memory))
}

const CLOSED = { kind: 'unknown', reason: 'the coordinator is closed' } as const

class RemoteCoordinator implements Coordinator {
  readonly #port: MessagePort
  readonly #memory: LeaseMemory
  #lease: LeaseHandler | undefined
  /** The lease that this thread believes to be held, or undefined. */
  #serial: number | undefined
  #ids = 0
  readonly #ranges = new Map<number, (result: RangeResult) => void>()
  readonly #transactions = new Map<number, (result: TransactionResult) => void>()
  readonly #watches = new Map<number, WatchHandler>()
  #closing: (() => void)[] | undefined
  #closed = false

  constructor(port: MessagePort, memory: LeaseMemory) {
    this.#port = port
    this.#memory = memory
    port.on('message', (message: ToThread) => this.#take(message))
  }

  holdLease(ttlMs: number, handler: LeaseHandler): void {
    assert(this.#lease === undefined, 'a lease is held already')
    this.#lease = handler
    this.#say({ kind: 'hold-lease', ttlMs })
  }

  leaseValidUntil(): BootInstant {
    return this.#serial === undefined ? bootInstant(Number.NEGATIVE_INFINITY) : this.#memory.read(this.#serial)
  }

  range(prefix: string, done: (result: RangeResult) => void): void {
    if (this.#closing !== undefined) {
      queueMicrotask(() => done(CLOSED))
      return
    }
    const id = ++this.#ids
    this.#ranges.set(id, done)
    this.#say({ kind: 'range', id, prefix })
  }

  transact(transaction: Transaction, done: (result: TransactionResult) => void): void {
    checkTransaction(transaction)
    if (this.#closing !== undefined) {
      queueMicrotask(() => done(CLOSED))
      return
    }
    const id = ++this.#ids
    this.#transactions.set(id, done)
    this.#say({ kind: 'transact', id, transaction })
  }

  watch(prefix: string, handler: WatchHandler): () => void {
    assert(this.#closing === undefined, 'the coordinator is closed')
    const id = ++this.#ids
    this.#watches.set(id, handler)
    this.#say({ kind: 'watch', id, prefix })
    return () => {
      if (!this.#watches.delete(id) || this.#closing !== undefined) return
      this.#say({ kind: 'unwatch', id })
    }
  }

  /** Done when all threads have closed and the lease is given back. */
  close(done: () => void): void {
    if (this.#closed) {
      queueMicrotask(done)
      return
    }
    if (this.#closing !== undefined) {
      this.#closing.push(done)
      return
    }
    this.#closing = [done]
    this.#serial = undefined
    this.#watches.clear()
    this.#say({ kind: 'close' })
  }

  #take(message: ToThread): void {
    switch (message.kind) {
      case 'lease-gained':
        if (this.#closing !== undefined) return
        this.#serial = message.serial
        this.#lease?.gained()
        return
      case 'lease-lost':
        if (this.#closing !== undefined) return
        this.#serial = undefined
        this.#lease?.lost()
        return
      case 'ranged':
        return answer(this.#ranges, message.id, message.result)
      case 'transacted':
        return answer(this.#transactions, message.id, message.result)
      case 'snapshot':
        this.#watches.get(message.id)?.snapshot(message.entries, message.revision)
        return
      case 'changes':
        this.#watches.get(message.id)?.changes(message.changes, message.revision)
        return
      case 'closed':
        this.#closed = true
        this.#port.close()
        for (const done of this.#closing?.splice(0) ?? []) done()
        return
    }
  }

  #say(message: FromThread): void {
    this.#port.postMessage(message)
  }
}

function answer<Result>(waiting: Map<number, (result: Result) => void>, id: number, result: Result): void {
  const done = waiting.get(id)
  waiting.delete(id)
  done?.(result)
}
