/**
 * One coordinator, with one lease and one watch per prefix, for all threads of a process: those that ask from here, and
 * those that ask through a port (`remote-coordinator.ts`).
 */
import type { MessagePort } from 'node:worker_threads'
import type { Coordinator, LeaseHandler, WatchHandler } from '@holdfast/base'
import { LeaseMemory } from './lease-memory.ts'
import type { FromThread, ToThread } from './port.ts'
import { SharedWatch } from './shared-watch.ts'

/** Other threads see the time of a renewal this much later at most, while this one is not held up. */
const PUBLISH_MS = 50

/** The simulator has its own. */
export interface Timing {
  /** Calls `task` again and again; the returned function ends that. */
  every(ms: number, task: () => void): () => void
  soon(task: () => void): void
}

const systemTiming: Timing = {
  every: (ms, task) => {
    const timer = setInterval(task, ms)
    return () => clearInterval(timer)
  },
  soon: (task) => queueMicrotask(task),
}

interface Client {
  readonly lease: LeaseHandler & { gainedSerial(serial: number): void }
  holds: boolean
}

export class SharedCoordinator {
  /** For `remoteCoordinator`. */
  readonly memory = new LeaseMemory()
  readonly #coordinator: Coordinator
  readonly #watches = new Map<string, SharedWatch>()
  readonly #holders = new Set<Client>()
  #serial = 0
  #held = false
  #asked = false
  #stopPublishing = (): void => {}
  /** Threads that have not closed yet. */
  #open = 0
  readonly #closed: (() => void)[] = []

  readonly #timing: Timing

  constructor(coordinator: Coordinator, timing: Timing = systemTiming) {
    this.#coordinator = coordinator
    this.#timing = timing
  }

  /** For this thread. Like every other one it has to be closed before the lease is given back. */
  local(): Coordinator {
    this.#open++
    const coordinator = this.#coordinator
    const stops = new Set<() => void>()
    let client: Client | undefined
    return {
      holdLease: (ttlMs, handler) => {
        client = { lease: { ...bound(handler), gainedSerial: () => handler.gained() }, holds: false }
        this.#hold(ttlMs, client)
      },
      leaseValidUntil: () => coordinator.leaseValidUntil(),
      range: (prefix, done) => coordinator.range(prefix, done),
      transact: (transaction, done) => coordinator.transact(transaction, done),
      watch: (prefix, handler) => {
        const stop = this.#watch(prefix, handler)
        stops.add(stop)
        return stop
      },
      close: (done) => {
        for (const stop of stops) stop()
        this.#close(client, done)
      },
    }
  }

  /** Serves a thread at the other end of the port. */
  serve(port: MessagePort): void {
    this.#open++
    const say = (message: ToThread): void => port.postMessage(message)
    const stops = new Map<number, () => void>()
    const client: Client = {
      lease: {
        gained: () => {},
        gainedSerial: (serial) => say({ kind: 'lease-gained', serial }),
        lost: () => say({ kind: 'lease-lost' }),
      },
      holds: false,
    }
    const take = (message: FromThread): void => {
      switch (message.kind) {
        case 'hold-lease':
          this.#hold(message.ttlMs, client)
          break
        case 'range':
          this.#coordinator.range(message.prefix, (result) => say({ kind: 'ranged', id: message.id, result }))
          break
        case 'transact':
          this.#coordinator.transact(message.transaction, (result) => say({ kind: 'transacted', id: message.id, result }))
          break
        case 'watch': {
          const { id } = message
          const stop = this.#watch(message.prefix, {
            snapshot: (entries, revision) => say({ kind: 'snapshot', id, entries, revision }),
            changes: (changes, revision) => say({ kind: 'changes', id, changes, revision }),
          })
          stops.set(id, stop)
          break
        }
        case 'unwatch':
          stops.get(message.id)?.()
          stops.delete(message.id)
          break
        case 'close':
          for (const stop of stops.values()) stop()
          this.#close(client, () => {
            say({ kind: 'closed' })
            port.close()
          })
          break
      }
    }
    port.on('message', take)
  }

  #hold(ttlMs: number, client: Client): void {
    this.#holders.add(client)
    if (this.#held) this.#timing.soon(() => this.#tellGained(client))
    if (this.#asked) return
    this.#asked = true
    this.#coordinator.holdLease(ttlMs, {
      gained: () => {
        this.memory.begin(++this.#serial)
        this.#held = true
        this.memory.publish(this.#coordinator.leaseValidUntil())
        const publish = (): void => this.memory.publish(this.#coordinator.leaseValidUntil())
        this.#stopPublishing = this.#timing.every(PUBLISH_MS, publish)
        for (const one of [...this.#holders]) this.#tellGained(one)
      },
      lost: () => {
        this.#ended()
        for (const one of [...this.#holders]) {
          if (one.holds) one.lease.lost()
          one.holds = false
        }
      },
    })
  }

  #tellGained(client: Client): void {
    if (client.holds || !this.#held || !this.#holders.has(client)) return
    client.holds = true
    client.lease.gainedSerial(this.#serial)
  }

  #ended(): void {
    this.#stopPublishing()
    this.#held = false
    this.memory.begin(++this.#serial)
  }

  #watch(prefix: string, handler: WatchHandler): () => void {
    let watch = this.#watches.get(prefix)
    if (watch === undefined) {
      watch = new SharedWatch(this.#coordinator, prefix, this.#timing.soon)
      this.#watches.set(prefix, watch)
    }
    return watch.join(handler)
  }

  #close(client: Client | undefined, done: () => void): void {
    if (client !== undefined) this.#holders.delete(client)
    this.#closed.push(done)
    if (--this.#open > 0) return
    this.#ended()
    for (const watch of this.#watches.values()) watch.stop()
    this.#coordinator.close(() => {
      for (const one of this.#closed.splice(0)) one()
    })
  }
}

const bound = (handler: LeaseHandler): LeaseHandler => ({ gained: () => handler.gained(), lost: () => handler.lost() })
