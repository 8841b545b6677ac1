/** One watch of a prefix, told to many: what was missed by who joins later is kept here. */
import type { Coordinator, CoordinatorEntry, WatchChange, WatchHandler } from '@holdfast/base'

interface Listener {
  readonly handler: WatchHandler
  /** It had its snapshot. */
  told: boolean
}

export class SharedWatch {
  readonly #entries = new Map<string, CoordinatorEntry>()
  readonly #listeners = new Set<Listener>()
  #revision = 0
  #synced = false
  readonly stop: () => void

  readonly #soon: (task: () => void) => void

  constructor(coordinator: Coordinator, prefix: string, soon: (task: () => void) => void) {
    this.#soon = soon
    this.stop = coordinator.watch(prefix, {
      snapshot: (entries, revision) => this.#snapshot(entries, revision),
      changes: (changes, revision) => this.#changes(changes, revision),
    })
  }

  /** Returns how to leave. */
  join(handler: WatchHandler): () => void {
    const listener = { handler, told: false }
    this.#listeners.add(listener)
    if (this.#synced) {
      this.#soon(() => {
        if (listener.told || !this.#listeners.has(listener)) return
        listener.told = true
        handler.snapshot([...this.#entries.values()], this.#revision)
      })
    }
    return () => this.#listeners.delete(listener)
  }

  #snapshot(entries: readonly CoordinatorEntry[], revision: number): void {
    this.#entries.clear()
    for (const entry of entries) this.#entries.set(entry.key, entry)
    this.#revision = revision
    this.#synced = true
    for (const listener of [...this.#listeners]) {
      listener.told = true
      listener.handler.snapshot(entries, revision)
    }
  }

  #changes(changes: readonly WatchChange[], revision: number): void {
    for (const change of changes) {
      if (change.change === 'put') this.#entries.set(change.entry.key, change.entry)
      else this.#entries.delete(change.key)
    }
    this.#revision = revision
    for (const listener of [...this.#listeners]) {
      if (listener.told) listener.handler.changes(changes, revision)
    }
  }
}
