/**
 * One watched prefix: a snapshot, then every change; a snapshot again whenever something may have been missed.
 *
 * etcd3's watcher reconnects by itself but can't tell what it missed, and a stream may die without a word; so
 * every loss begins anew, and now and then etcd is asked whether it knows more than we do.
 */
import type { CoordinatorEntry, EventLog, WatchChange, WatchHandler } from '@holdfast/base'
import type { Etcd3, IKeyValue, IWatchResponse, Watcher } from 'etcd3'

const RESTART_MS = 200

export interface EtcdWatchOptions {
  readonly client: Etcd3
  readonly prefix: string
  readonly handler: WatchHandler
  readonly events: EventLog
  /** How often a silent stream is checked, ms. */
  readonly checkMs: number
}

export class EtcdWatch {
  readonly #options: EtcdWatchOptions
  readonly #keys = new Set<string>()
  #watcher: Watcher | undefined
  #revision = 0
  #round = 0
  #suspicions = 0
  #timer: NodeJS.Timeout | undefined
  #stopped = false

  constructor(options: EtcdWatchOptions) {
    this.#options = options
    void this.#begin()
  }

  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
    this.#dropWatcher()
  }

  async #begin(): Promise<void> {
    const round = ++this.#round
    const { client, prefix, handler, events } = this.#options
    try {
      const { kvs, header } = await client.kv.range(prefixRange(prefix), deadline())
      if (this.#stopped || round !== this.#round) return
      this.#revision = Number(header.revision)
      this.#keys.clear()
      const entries = kvs.map(entryOf)
      for (const { key } of entries) this.#keys.add(key)
      handler.snapshot(entries, this.#revision)
      await this.#follow(round)
    } catch (error) {
      if (this.#stopped || round !== this.#round) return
      const reason = error instanceof Error ? error.message : String(error)
      events.event('debug', 'watching etcd begins anew', { reason })
      this.#restart(round)
    }
  }

  async #follow(round: number): Promise<void> {
    const { client, prefix } = this.#options
    const start = String(this.#revision + 1)
    const watcher = await client.watch().prefix(prefix).startRevision(start).create()
    if (this.#stopped || round !== this.#round) {
      watcher.on('error', () => {})
      await watcher.cancel().catch(() => {})
      return
    }
    this.#watcher = watcher
    watcher.on('data', (response) => {
      if (round === this.#round && !this.#stopped) this.#take(response, round)
    })
    const lost = (): void => this.#restart(round)
    watcher.on('disconnected', lost)
    watcher.on('error', lost)
    watcher.on('end', lost)
    this.#suspicions = 0
    this.#checkLater(round)
  }

  #take(response: IWatchResponse, round: number): void {
    if (response.canceled || Number(response.compact_revision) > 0) {
      this.#restart(round)
      return
    }
    // Changes of one revision are handed over together.
    const byRevision = new Map<number, WatchChange[]>()
    for (const { type, kv } of response.events) {
      const modRevision = Number(kv.mod_revision)
      if (modRevision <= this.#revision) continue
      const key = kv.key.toString()
      const changes = byRevision.get(modRevision) ?? []
      byRevision.set(modRevision, changes)
      if (type === 'Put') {
        this.#keys.add(key)
        changes.push({ change: 'put', entry: entryOf(kv) })
      } else {
        this.#keys.delete(key)
        changes.push({ change: 'delete', key, modRevision })
      }
    }
    for (const [revision, changes] of byRevision) {
      this.#revision = revision
      this.#options.handler.changes(changes, revision)
    }
  }

  #checkLater(round: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#check(round), this.#options.checkMs)
  }

  async #check(round: number): Promise<void> {
    const { client, prefix } = this.#options
    const known = this.#revision
    const count = this.#keys.size
    try {
      const range = prefixRange(prefix)
      const newer = { ...range, min_mod_revision: String(known + 1), limit: 1, keys_only: true }
      const found = await client.kv.range(newer, deadline())
      const all = await client.kv.range({ ...range, count_only: true }, deadline())
      if (this.#stopped || round !== this.#round) return
      const behind = found.kvs.length > 0 || Number(all.count) !== count
      this.#suspicions = behind && known === this.#revision ? this.#suspicions + 1 : 0
    } catch {
      if (this.#stopped || round !== this.#round) return
    }
    if (this.#suspicions >= 2) this.#restart(round)
    else this.#checkLater(round)
  }

  #restart(round: number): void {
    if (this.#stopped || round !== this.#round) return
    this.#round++
    this.#dropWatcher()
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#begin(), RESTART_MS)
  }

  #dropWatcher(): void {
    const watcher = this.#watcher
    this.#watcher = undefined
    watcher?.removeAllListeners()
    watcher?.on('error', () => {})
    watcher?.cancel().catch(() => {})
  }
}

const CALL_MS = 2_000
function deadline(): { deadline: number } {
  return { deadline: Date.now() + CALL_MS }
}

export function entryOf(kv: IKeyValue): CoordinatorEntry {
  return {
    key: kv.key.toString(),
    value: kv.value.toString(),
    modRevision: Number(kv.mod_revision),
    leased: kv.lease !== '0',
  }
}

/** All keys that begin with `prefix`. */
export function prefixRange(prefix: string): { key: Buffer; range_end: Buffer } {
  const key = Buffer.from(prefix)
  const end = Buffer.from(key)
  const last = end.length - 1
  end.writeUInt8(end.readUInt8(last) + 1, last)
  return { key, range_end: end }
}
