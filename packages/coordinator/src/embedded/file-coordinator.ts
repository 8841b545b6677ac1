/**
 * The Coordinator port of a single node: everything in memory, every transaction in a journal
 * before it is answered or seen.
 *
 * The lease is the process itself: nobody else can open the file meanwhile, and the next process
 * begins by removing what was leased.
 */
import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import {
  assert,
  type BootInstant,
  bootInstant,
  type Coordinator,
  type CoordinatorEntry,
  type EventLog,
  HoldfastError,
  type LeaseHandler,
  type RangeResult,
  type Transaction,
  type TransactionResult,
  type WatchChange,
  type WatchHandler,
} from '@holdfast/base'
import { checkTransaction } from '../check-transaction.ts'
import { JournalWriter, readJournal, replaceJournal } from './journal.ts'
import { takeLock } from './lock.ts'

/** A journal this large, and four times what it must hold, is written anew. */
const REWRITE_BYTES_MIN = 1024 * 1024
/** Transactions written and synced together. */
const GROUP_COUNT_MAX = 256

export interface EmbeddedCoordinatorOptions {
  /** Path of the journal; its directory is made if absent. A lock lies beside it (`.lock`). */
  readonly file: string
  readonly events: EventLog
}

/** One record of the journal: changes on top of what came before (`all`: on top of nothing). */
interface JournalRecord {
  readonly revision: number
  readonly all?: boolean
  /** [key, value, modRevision, leased] or, for a deletion, [key]. */
  readonly entries: readonly (readonly [string] | readonly [string, string, number, boolean])[]
}

interface Watch {
  readonly prefix: string
  readonly handler: WatchHandler
  stopped: boolean
}

interface Waiting {
  readonly transaction: Transaction
  readonly done: (result: TransactionResult) => void
}

interface Applied {
  readonly changes: readonly WatchChange[]
  readonly revision: number
}

/**
 * Throws HF_CONFLICT when another process has the file open (names its pid), HF_DAMAGED when the
 * file is there and can't be understood.
 */
export function openEmbeddedCoordinator(options: EmbeddedCoordinatorOptions): FileCoordinator {
  return new FileCoordinator(options)
}

export class FileCoordinator implements Coordinator {
  readonly #path: string
  readonly #events: EventLog
  readonly #unlock: () => void
  readonly #entries = new Map<string, CoordinatorEntry>()
  readonly #watches = new Set<Watch>()
  #revision = 1
  #lease: LeaseHandler | undefined
  #waiting: Waiting[] = []
  #writer: JournalWriter | undefined
  #rewriteAtBytes = REWRITE_BYTES_MIN
  #working = false
  #closing: (() => void) | undefined
  #closed = false

  constructor({ file, events }: EmbeddedCoordinatorOptions) {
    this.#path = file
    this.#events = events
    mkdirSync(dirname(file), { recursive: true })
    this.#unlock = takeLock(`${file}.lock`)
    try {
      this.#load()
    } catch (error) {
      this.#unlock()
      throw error
    }
  }

  holdLease(_ttlMs: number, handler: LeaseHandler): void {
    assert(this.#lease === undefined, 'a lease is held already')
    assert(!this.#closed, 'the coordinator is closed')
    this.#lease = handler
    queueMicrotask(() => {
      if (!this.#closed) handler.gained()
    })
  }

  leaseValidUntil(): BootInstant {
    const held = this.#lease !== undefined && !this.#closed
    return bootInstant(held ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY)
  }

  range(prefix: string, done: (result: RangeResult) => void): void {
    queueMicrotask(() => {
      if (this.#closed) done({ kind: 'unknown', reason: 'the coordinator is closed' })
      else done({ kind: 'ok', entries: this.#under(prefix), revision: this.#revision })
    })
  }

  transact(transaction: Transaction, done: (result: TransactionResult) => void): void {
    checkTransaction(transaction)
    if (this.#closed) {
      queueMicrotask(() => done({ kind: 'unknown', reason: 'the coordinator is closed' }))
      return
    }
    this.#waiting.push({ transaction, done })
    this.#work()
  }

  watch(prefix: string, handler: WatchHandler): () => void {
    assert(!this.#closed, 'the coordinator is closed')
    const watch = { prefix, handler, stopped: false }
    queueMicrotask(() => {
      if (watch.stopped || this.#closed) return
      this.#watches.add(watch)
      handler.snapshot(this.#under(prefix), this.#revision)
    })
    return () => {
      watch.stopped = true
      this.#watches.delete(watch)
    }
  }

  close(done: () => void): void {
    if (this.#closed) {
      queueMicrotask(done)
      return
    }
    this.#closed = true
    for (const watch of this.#watches) watch.stopped = true
    this.#watches.clear()
    this.#closing = done
    this.#work()
  }

  /** Ends as a killed process would, but frees the lock: leased keys stay until the next opening. */
  abandon(): void {
    this.close(() => undefined)
  }

  #load(): void {
    const { records, tornBytes } = readJournal(this.#path)
    for (const text of records) this.#replay(JSON.parse(text) as JournalRecord)
    if (tornBytes > 0) {
      this.#events.event('warn', 'an unanswered transaction at the end of the journal is dropped', {
        bytes: tornBytes,
      })
    }
    const leased = [...this.#entries.values()].filter((entry) => entry.leased)
    if (leased.length > 0) this.#revision++
    for (const { key } of leased) this.#entries.delete(key)
    this.#rewrite()
  }

  #replay({ revision, all, entries }: JournalRecord): void {
    if (all === true) this.#entries.clear()
    if (!Number.isSafeInteger(revision) || revision < this.#revision) {
      throw new HoldfastError('HF_DAMAGED', `${this.#path} goes back in time: restore a backup`)
    }
    this.#revision = revision
    for (const [key, value, modRevision, leased] of entries) {
      if (value === undefined || modRevision === undefined) this.#entries.delete(key)
      else this.#entries.set(key, { key, value, modRevision, leased: leased === true })
    }
  }

  /** Writes what is known as one record into a new file. Synchronous: rare, and small. */
  #rewrite(): void {
    const entries = [...this.#entries.values()].map(
      ({ key, value, modRevision, leased }) => [key, value, modRevision, leased] as const,
    )
    const text = JSON.stringify({ revision: this.#revision, all: true, entries })
    replaceJournal(this.#path, text)
    this.#rewriteAtBytes = Math.max(REWRITE_BYTES_MIN, text.length * 4)
  }

  #work(): void {
    if (this.#working) return
    this.#working = true
    this.#rounds().catch((error: unknown) => {
      // Only a bug of ours or of a handler comes here: it must end the process, not vanish.
      setImmediate(() => {
        throw error
      })
    })
  }

  /** One round serves, with one sync, everything that came while the last one was under way. */
  async #rounds(): Promise<void> {
    await Promise.resolve()
    while (this.#waiting.length > 0) await this.#round(this.#waiting.splice(0, GROUP_COUNT_MAX))
    this.#working = false
    const closing = this.#closing
    if (closing === undefined) return
    this.#closing = undefined
    await this.#writer?.close().catch(() => undefined)
    this.#unlock()
    queueMicrotask(closing)
  }

  async #round(group: readonly Waiting[]): Promise<void> {
    const staged = new Map<string, CoordinatorEntry | undefined>()
    const applied: Applied[] = []
    const answers: TransactionResult[] = []
    let revision = this.#revision
    for (const { transaction } of group) {
      const { result, changes } = this.#stage(transaction, staged, revision)
      answers.push(result)
      if (changes.length === 0) continue
      revision++
      applied.push({ changes, revision })
    }
    const failed = applied.length === 0 ? undefined : await this.#persist(staged, revision)
    if (failed === undefined) this.#commit(staged, revision)
    group.forEach(({ done }, i) => {
      const answer = answers[i] ?? { kind: 'conflict' }
      // A conflict may have been with something that failed with us: then it is not known either.
      const result = failed === undefined ? answer : ({ kind: 'unknown', reason: failed } as const)
      queueMicrotask(() => done(result))
    })
    if (failed === undefined) this.#tell(applied)
  }

  /** What a transaction would do on top of `staged`; puts it there. */
  #stage(
    { compares, operations }: Transaction,
    staged: Map<string, CoordinatorEntry | undefined>,
    revision: number,
  ): { result: TransactionResult; changes: WatchChange[] } {
    const at = (key: string): CoordinatorEntry | undefined =>
      staged.has(key) ? staged.get(key) : this.#entries.get(key)
    if (this.#lease === undefined && operations.some((one) => one.op === 'put' && one.leased)) {
      return { result: { kind: 'no-lease' }, changes: [] }
    }
    if (compares.some(({ key, modRevision }) => (at(key)?.modRevision ?? 0) !== modRevision)) {
      return { result: { kind: 'conflict' }, changes: [] }
    }
    const modRevision = revision + 1
    const changes: WatchChange[] = []
    for (const operation of operations) {
      const { key } = operation
      if (operation.op === 'put') {
        const { value, leased = false } = operation
        const entry = { key, value, modRevision, leased }
        staged.set(key, entry)
        changes.push({ change: 'put', entry })
      } else if (at(key) !== undefined) {
        staged.set(key, undefined)
        changes.push({ change: 'delete', key, modRevision })
      }
    }
    // As in etcd: what changes nothing makes no revision.
    return { result: { kind: 'ok', revision: changes.length > 0 ? modRevision : revision }, changes }
  }

  /** Makes the staged changes durable. Returns why that failed, or undefined. */
  async #persist(
    staged: ReadonlyMap<string, CoordinatorEntry | undefined>,
    revision: number,
  ): Promise<string | undefined> {
    const entries = [...staged].map(([key, entry]) =>
      entry === undefined
        ? ([key] as const)
        : ([key, entry.value, entry.modRevision, entry.leased] as const),
    )
    try {
      if (this.#writer !== undefined && this.#writer.bytes >= this.#rewriteAtBytes) {
        await this.#dropWriter()
      }
      if (this.#writer === undefined) {
        this.#rewrite()
        this.#writer = await JournalWriter.open(this.#path)
      }
      await this.#writer.append(JSON.stringify({ revision, entries }))
      return undefined
    } catch (error) {
      // What the file holds now is uncertain: it is replaced before anything is appended again.
      await this.#dropWriter()
      const reason = `the coordinator's journal can't be written: ${String(error).toLowerCase()}`
      this.#events.event('error', reason)
      return reason
    }
  }

  async #dropWriter(): Promise<void> {
    const writer = this.#writer
    this.#writer = undefined
    await writer?.close().catch(() => undefined)
  }

  #commit(staged: ReadonlyMap<string, CoordinatorEntry | undefined>, revision: number): void {
    this.#revision = revision
    for (const [key, entry] of staged) {
      if (entry === undefined) this.#entries.delete(key)
      else this.#entries.set(key, entry)
    }
  }

  #tell(applied: readonly Applied[]): void {
    for (const watch of this.#watches) {
      for (const { changes, revision } of applied) {
        const mine = changes.filter((change) =>
          (change.change === 'put' ? change.entry.key : change.key).startsWith(watch.prefix),
        )
        if (mine.length === 0) continue
        queueMicrotask(() => {
          if (!watch.stopped) watch.handler.changes(mine, revision)
        })
      }
    }
  }

  #under(prefix: string): CoordinatorEntry[] {
    return [...this.#entries.values()]
      .filter(({ key }) => key.startsWith(prefix))
      .sort((a, b) => (a.key < b.key ? -1 : 1))
  }
}
