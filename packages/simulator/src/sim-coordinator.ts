/** A coordinator in memory: one store, and a client per process with delays, outages and lost answers. */
import {
  type BootInstant,
  bootInstant,
  type Coordinator,
  type CoordinatorEntry,
  type LeaseHandler,
  type NodeId,
  type RangeResult,
  type Transaction,
  type TransactionResult,
  type WatchChange,
  type WatchHandler,
} from '@holdfast/base'
import type { Life, NodeClock, SeededRandom, World } from './world.ts'

interface Stored {
  value: string
  modRevision: number
  lease: number | undefined
}

interface Watcher {
  readonly prefix: string
  readonly client: SimCoordinatorClient
  readonly handler: WatchHandler
  readyAt: number
  missed: boolean
  stopped: boolean
}

const CALL_TIMEOUT_MS = 2_000

/** What all clients share: the servers. */
export class SimCoordinatorStore {
  readonly world: World
  readonly random: SeededRandom
  readonly #entries = new Map<string, Stored>()
  readonly #leases = new Map<number, { expiresAt: number }>()
  readonly watchers = new Set<Watcher>()
  revision = 1
  /** Nobody gets an answer while set. */
  down = false
  readonly unreachableFrom = new Set<NodeId>()
  /** Every latency of calls is multiplied by it. */
  slowness = 1
  /** Watch events come so much later. */
  watchLagMs = 0
  /** What clients have asked for since the start. */
  calls = 0
  #nextLease = 1

  constructor(world: World) {
    this.world = world
    this.random = world.random.child()
    const expire = (): void => {
      if (!this.down) {
        for (const [id, lease] of [...this.#leases]) if (lease.expiresAt <= world.now) this.revoke(id)
      }
      world.schedule(this.random.between(5, 250), undefined, expire)
    }
    world.schedule(250, undefined, expire)
  }

  client(node: NodeId, life: Life, clock: NodeClock): SimCoordinatorClient {
    return new SimCoordinatorClient(this, node, life, clock)
  }

  /** The value of one key now. */
  get(key: string): string | undefined {
    return this.#entries.get(key)?.value
  }

  /** History is compacted under the watchers: each must read everything anew. */
  compact(): void {
    for (const watcher of this.watchers) {
      watcher.missed = true
      this.resync(watcher)
    }
  }

  reachable(node: NodeId): boolean {
    return !this.down && !this.unreachableFrom.has(node)
  }

  /** After an outage: leases live on for their whole time, and watchers have missed things. */
  restart(): void {
    this.down = false
    for (const watcher of this.watchers) watcher.missed = true
    for (const watcher of this.watchers) this.resync(watcher)
  }

  grant(ttlMs: number): number {
    const id = this.#nextLease++
    this.#leases.set(id, { expiresAt: this.world.now + ttlMs })
    return id
  }

  renew(id: number, ttlMs: number): boolean {
    const lease = this.#leases.get(id)
    if (lease === undefined) return false
    lease.expiresAt = this.world.now + ttlMs
    return true
  }

  revoke(id: number): void {
    this.#leases.delete(id)
    const gone = [...this.#entries].filter(([, stored]) => stored.lease === id).map(([key]) => key)
    if (gone.length === 0) return
    this.revision++
    for (const key of gone) this.#entries.delete(key)
    this.#tell(gone.map((key) => ({ change: 'delete', key, modRevision: this.revision })))
  }

  range(prefix: string): CoordinatorEntry[] {
    return [...this.#entries]
      .filter(([key]) => key.startsWith(prefix))
      .map(([key, stored]) => entryOf(key, stored))
      .sort((a, b) => (a.key < b.key ? -1 : 1))
  }

  transact({ compares, operations }: Transaction, lease: number | undefined): TransactionResult {
    for (const { key, modRevision } of compares) {
      if ((this.#entries.get(key)?.modRevision ?? 0) !== modRevision) return { kind: 'conflict' }
    }
    const needsLease = operations.some((operation) => operation.op === 'put' && operation.leased === true)
    if (needsLease && (lease === undefined || !this.#leases.has(lease))) return { kind: 'no-lease' }
    this.revision++
    const changes: WatchChange[] = []
    for (const operation of operations) {
      const { key } = operation
      if (operation.op === 'delete') {
        if (!this.#entries.delete(key)) continue
        changes.push({ change: 'delete', key, modRevision: this.revision })
      } else {
        const leased = operation.leased === true
        const stored = { value: operation.value, modRevision: this.revision, lease: leased ? lease : undefined }
        this.#entries.set(key, stored)
        changes.push({ change: 'put', entry: entryOf(key, stored) })
      }
    }
    this.#tell(changes)
    return { kind: 'ok', revision: this.revision }
  }

  #tell(changes: readonly WatchChange[]): void {
    for (const watcher of this.watchers) {
      const mine = changes.filter((change) => keyOf(change).startsWith(watcher.prefix))
      if (mine.length === 0) continue
      if (!this.reachable(watcher.client.node)) watcher.missed = true
      if (watcher.missed) continue
      const { revision } = this
      this.#deliver(watcher, () => watcher.handler.changes(mine, revision))
    }
  }

  /** A snapshot for a watcher that begins or has missed something. */
  resync(watcher: Watcher): void {
    if (watcher.stopped) return
    if (!this.reachable(watcher.client.node)) {
      this.world.schedule(100, watcher.client.life, () => this.resync(watcher))
      return
    }
    watcher.missed = false
    const entries = this.range(watcher.prefix)
    const { revision } = this
    this.#deliver(watcher, () => watcher.handler.snapshot(entries, revision))
  }

  #deliver(watcher: Watcher, task: () => void): void {
    const usual = this.random.chance(0.05) ? this.random.between(1, 100) : this.random.between(0.1, 2)
    const lag = usual + this.random.fraction() * this.watchLagMs
    const at = Math.max(watcher.readyAt, this.world.now + lag)
    watcher.readyAt = at
    this.world.scheduleAt(at, watcher.client.life, () => {
      if (!watcher.stopped) task()
    })
  }
}

export class SimCoordinatorClient implements Coordinator {
  readonly node: NodeId
  readonly life: Life
  readonly #clock: NodeClock
  readonly #store: SimCoordinatorStore
  #lease: number | undefined
  #validUntil: BootInstant = bootInstant(Number.NEGATIVE_INFINITY)
  #handler: LeaseHandler | undefined
  #ttlMs = 0
  #closed = false

  constructor(store: SimCoordinatorStore, node: NodeId, life: Life, clock: NodeClock) {
    this.#store = store
    this.#clock = clock
    this.node = node
    this.life = life
  }

  holdLease(ttlMs: number, handler: LeaseHandler): void {
    this.#ttlMs = ttlMs
    this.#handler = handler
    this.#keepLease()
  }

  leaseValidUntil(): BootInstant {
    return this.#validUntil
  }

  range(prefix: string, done: (result: RangeResult) => void): void {
    this.#call(
      () => ({ kind: 'ok', entries: this.#store.range(prefix), revision: this.#store.revision }) as const,
      done,
    )
  }

  transact(transaction: Transaction, done: (result: TransactionResult) => void): void {
    this.#call<TransactionResult>(() => this.#store.transact(transaction, this.#lease), done)
  }

  watch(prefix: string, handler: WatchHandler): () => void {
    const watcher = { prefix, client: this, handler, readyAt: 0, missed: true, stopped: false }
    this.#store.watchers.add(watcher)
    const check = (): void => {
      if (watcher.stopped) return
      if (watcher.missed) this.#store.resync(watcher)
      this.#store.world.schedule(200, this.life, check)
    }
    check()
    return () => {
      watcher.stopped = true
      this.#store.watchers.delete(watcher)
    }
  }

  close(done: () => void): void {
    this.#closed = true
    const lease = this.#lease
    this.#store.world.schedule(1, this.life, () => {
      if (lease !== undefined && this.#store.reachable(this.node)) this.#store.revoke(lease)
      done()
    })
  }

  /** One request and its answer; either can be lost, and then nobody knows. */
  #call<T>(
    serve: () => T,
    done: (result: T | { readonly kind: 'unknown'; readonly reason: string }) => void,
    timeoutMs: number = CALL_TIMEOUT_MS,
  ): void {
    const { world, random } = this.#store
    this.#store.calls++
    const lost = (): void => {
      world.timer(timeoutMs, this.life, () => done({ kind: 'unknown', reason: 'timeout' }))
    }
    world.schedule(this.#latency(), undefined, () => {
      if (!this.#store.reachable(this.node)) return lost()
      const result = serve()
      if (random.chance(0.01)) return lost()
      world.schedule(this.#latency(), this.life, () => {
        if (this.#store.reachable(this.node)) done(result)
        else lost()
      })
    })
  }

  #keepLease(): void {
    if (this.#closed) return
    const { world } = this.#store
    const sentAt = this.#clock.sinceBoot()
    const lease = this.#lease
    this.#call(
      (): { kind: 'ok'; lease: number | undefined } => {
        const alive = lease !== undefined && this.#store.renew(lease, this.#ttlMs)
        if (lease !== undefined) return { kind: 'ok', lease: alive ? lease : undefined }
        return { kind: 'ok', lease: this.#store.grant(this.#ttlMs) }
      },
      (result) => {
        if (this.#closed) return
        if (result.kind === 'ok' && result.lease !== undefined) {
          const fresh = result.lease !== this.#lease
          this.#lease = result.lease
          this.#validUntil = bootInstant(sentAt + this.#ttlMs)
          if (fresh) this.#handler?.gained()
        } else if (result.kind === 'ok' || this.#clock.sinceBoot() > this.#validUntil) {
          this.#loseLease()
        }
        world.timer(result.kind === 'ok' && this.#lease === undefined ? 10 : this.#ttlMs / 5, this.life, () =>
          this.#keepLease(),
        )
      },
      this.#ttlMs / 5,
    )
  }

  #loseLease(): void {
    if (this.#lease === undefined) return
    this.#lease = undefined
    this.#validUntil = bootInstant(Number.NEGATIVE_INFINITY)
    this.#handler?.lost()
  }

  #latency(): number {
    const { random } = this.#store
    const usual = random.chance(0.02) ? random.between(5, 60) : random.between(0.2, 2)
    return usual * this.#store.slowness
  }
}

function entryOf(key: string, { value, modRevision, lease }: Stored): CoordinatorEntry {
  return { key, value, modRevision, leased: lease !== undefined }
}

function keyOf(change: WatchChange): string {
  return change.change === 'put' ? change.entry.key : change.key
}
