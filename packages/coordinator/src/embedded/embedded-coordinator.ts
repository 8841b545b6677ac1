/**
 * The coordinator of a single node: a durable file, replaced as a whole.
 *
 * The lease lives as long as the process. Leased keys are not written: a restart is the end of the lease.
 * One process at a time works on the file; the lock of the data directory sees to that.
 */
import { mkdirSync, readFileSync } from 'node:fs'
import { open, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import {
  type Coordinator,
  type CoordinatorEntry,
  type EventLog,
  HoldfastError,
  type Instant,
  instant,
  type LeaseHandler,
  type RangeResult,
  type Transaction,
  type TransactionResult,
  type WatchChange,
  type WatchHandler,
} from '@holdfast/base'
import { z } from 'zod'

const FORMAT = 'holdfast-coordinator-1'
const fileSchema = z.object({
  format: z.literal(FORMAT),
  revision: z.number().int().nonnegative(),
  entries: z.array(z.object({ key: z.string(), value: z.string(), modRevision: z.number().int() })),
})

interface Watcher {
  readonly prefix: string
  readonly handler: WatchHandler
  stopped: boolean
}

export interface EmbeddedCoordinatorOptions {
  /** Path of the file; its directory is made if absent. */
  readonly file: string
  readonly events: EventLog
}

/** Throws HoldfastError HF_DAMAGED when the file is there and can't be understood. */
export function openEmbeddedCoordinator(options: EmbeddedCoordinatorOptions): Coordinator {
  return new EmbeddedCoordinator(options)
}

class EmbeddedCoordinator implements Coordinator {
  readonly #file: string
  readonly #events: EventLog
  readonly #entries = new Map<string, CoordinatorEntry>()
  readonly #watchers = new Set<Watcher>()
  #revision = 1
  #lease: LeaseHandler | undefined
  #writing: Promise<void> | undefined
  /** Answers and notices that wait for the next write. */
  #afterWrite: (() => void)[] = []
  #failed: string | undefined
  #closed = false

  constructor({ file, events }: EmbeddedCoordinatorOptions) {
    this.#file = file
    this.#events = events
    mkdirSync(dirname(file), { recursive: true })
    this.#load()
  }

  holdLease(_ttlMs: number, handler: LeaseHandler): void {
    this.#lease = handler
    setImmediate(() => {
      if (!this.#closed) handler.gained()
    })
  }

  leaseValidUntil(): Instant {
    // Nobody else can be asked for one while this process holds the data directory.
    return instant(this.#closed || this.#lease === undefined ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY)
  }

  range(prefix: string, done: (result: RangeResult) => void): void {
    this.#later(() => done({ kind: 'ok', entries: this.#under(prefix), revision: this.#revision }))
  }

  transact({ compares, operations }: Transaction, done: (result: TransactionResult) => void): void {
    const failed = this.#failed ?? (this.#closed ? 'closed' : undefined)
    if (failed !== undefined) {
      setImmediate(done, { kind: 'unknown', reason: failed })
      return
    }
    for (const { key, modRevision } of compares) {
      if ((this.#entries.get(key)?.modRevision ?? 0) === modRevision) continue
      this.#later(() => done({ kind: 'conflict' }))
      return
    }
    if (this.#lease === undefined && operations.some((one) => one.op === 'put' && one.leased)) {
      this.#later(() => done({ kind: 'no-lease' }))
      return
    }
    const revision = ++this.#revision
    const changes: WatchChange[] = []
    for (const operation of operations) {
      const { key } = operation
      if (operation.op === 'put') {
        const { value, leased = false } = operation
        const entry = { key, value, modRevision: revision, leased }
        this.#entries.set(key, entry)
        changes.push({ change: 'put', entry })
      } else if (this.#entries.delete(key)) {
        changes.push({ change: 'delete', key, modRevision: revision })
      }
    }
    this.#write(() => {
      if (this.#failed !== undefined) {
        done({ kind: 'unknown', reason: this.#failed })
        return
      }
      done({ kind: 'ok', revision })
      this.#tell(changes, revision)
    })
  }

  watch(prefix: string, handler: WatchHandler): () => void {
    const watcher = { prefix, handler, stopped: false }
    this.#later(() => {
      if (watcher.stopped) return
      handler.snapshot(this.#under(prefix), this.#revision)
      this.#watchers.add(watcher)
    })
    return () => {
      watcher.stopped = true
      this.#watchers.delete(watcher)
    }
  }

  close(done: () => void): void {
    this.#closed = true
    for (const watcher of this.#watchers) watcher.stopped = true
    this.#watchers.clear()
    const ended = this.#writing ?? Promise.resolve()
    ended.then(() => done(), () => done())
  }

  #load(): void {
    let text: string
    try {
      text = readFileSync(this.#file, 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
      throw error
    }
    let parsed: z.infer<typeof fileSchema>
    try {
      parsed = fileSchema.parse(JSON.parse(text))
    } catch (cause) {
      throw new HoldfastError(
        'HF_DAMAGED',
        `the coordinator's file ${this.#file} can't be understood: restore it from a backup`,
        {},
        { cause },
      )
    }
    this.#revision = parsed.revision + 1
    for (const entry of parsed.entries) this.#entries.set(entry.key, { ...entry, leased: false })
  }

  /** Behind every write under way, so that nobody sees what is not durable. */
  #later(task: () => void): void {
    if (this.#writing === undefined) setImmediate(task)
    else this.#afterWrite.push(task)
  }

  #write(then: () => void): void {
    this.#afterWrite.push(then)
    if (this.#writing !== undefined) return
    this.#writing = this.#writeRounds()
  }

  /** One round serves everything that came while the last one was under way. */
  async #writeRounds(): Promise<void> {
    while (this.#afterWrite.length > 0) {
      const tasks = this.#afterWrite
      this.#afterWrite = []
      try {
        await this.#writeFile()
      } catch (error) {
        this.#failed = `the coordinator's file can't be written: ${String(error)}`
        this.#events.event('error', this.#failed)
        this.#lease?.lost()
      }
      for (const task of tasks) task()
    }
    this.#writing = undefined
  }

  async #writeFile(): Promise<void> {
    const entries = [...this.#entries.values()]
      .filter(({ leased }) => !leased)
      .map(({ key, value, modRevision }) => ({ key, value, modRevision }))
    const text = `${JSON.stringify({ format: FORMAT, revision: this.#revision, entries })}\n`
    const temporary = `${this.#file}.new`
    const handle = await open(temporary, 'w')
    try {
      await handle.writeFile(text)
      await handle.datasync()
    } finally {
      await handle.close()
    }
    await rename(temporary, this.#file)
    const directory = await open(dirname(this.#file), 'r')
    try {
      await directory.sync()
    } finally {
      await directory.close()
    }
  }

  #under(prefix: string): CoordinatorEntry[] {
    return [...this.#entries.values()]
      .filter(({ key }) => key.startsWith(prefix))
      .sort((a, b) => (a.key < b.key ? -1 : 1))
  }

  #tell(changes: readonly WatchChange[], revision: number): void {
    for (const { prefix, handler } of [...this.#watchers]) {
      const mine = changes.filter((change) =>
        (change.change === 'put' ? change.entry.key : change.key).startsWith(prefix),
      )
      if (mine.length > 0) handler.changes(mine, revision)
    }
  }
}
