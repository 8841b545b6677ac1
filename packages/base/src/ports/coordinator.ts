/**
 * The coordinator as a node sees it: a small key-value store with compare-and-swap, one lease per
 * node, and watches. Implemented over etcd, over a durable file (one node), and in the simulator.
 *
 * Completion is by callback, never before the call returns.
 */
import type { BootInstant } from '../numbers.ts'

export interface CoordinatorEntry {
  readonly key: string
  readonly value: string
  /** Revision of the last change of this key: what a compare names. */
  readonly modRevision: number
  /** True when the key vanishes with the lease of the node that wrote it. */
  readonly leased: boolean
}

/** `modRevision: 0` compares for absence. */
export interface Compare {
  readonly key: string
  readonly modRevision: number
}

export type Operation =
  | { readonly op: 'put'; readonly key: string; readonly value: string; readonly leased?: boolean }
  | { readonly op: 'delete'; readonly key: string }

export interface Transaction {
  readonly compares: readonly Compare[]
  readonly operations: readonly Operation[]
}

/**
 * `ok`: applied, at `revision` (the new modRevision of every key put). `conflict`: a compare failed,
 * nothing was applied. `unknown`: no answer; it may or may not have been applied, now or a
 * little later: read before deciding anything. `no-lease`: a leased put was asked for while no lease is held;
 * nothing was applied.
 */
export type TransactionResult =
  | { readonly kind: 'ok'; readonly revision: number }
  | { readonly kind: 'conflict' }
  | { readonly kind: 'unknown'; readonly reason: string }
  | { readonly kind: 'no-lease' }

export type RangeResult =
  | { readonly kind: 'ok'; readonly entries: readonly CoordinatorEntry[]; readonly revision: number }
  | { readonly kind: 'unknown'; readonly reason: string }

export type WatchChange =
  | { readonly change: 'put'; readonly entry: CoordinatorEntry }
  | { readonly change: 'delete'; readonly key: string; readonly modRevision: number }

export interface WatchHandler {
  /** Everything under the prefix: at first, and again whenever history was missed. Replaces all. */
  snapshot(entries: readonly CoordinatorEntry[], revision: number): void
  /** What changed since the last call, in the order of revisions. */
  changes(changes: readonly WatchChange[], revision: number): void
}

export interface LeaseHandler {
  /** A lease is held (again): leased keys written before are gone, write them anew. */
  gained(): void
  /** The lease is gone, or can't be proved to be alive any more. */
  lost(): void
}

export interface Coordinator {
  /** Takes and keeps a lease from now on, and says when it comes and goes. Called once. */
  holdLease(ttlMs: number, handler: LeaseHandler): void
  /**
   * The instant until which the lease is certainly alive, on the own clock since boot and counted from when
   * the last answered renewal was *sent* (I8). In the past when there is none.
   */
  leaseValidUntil(): BootInstant
  /** All entries under a prefix, linearizable. */
  range(prefix: string, done: (result: RangeResult) => void): void
  transact(transaction: Transaction, done: (result: TransactionResult) => void): void
  /** Watches a prefix until the returned function is called; reconnects by itself. */
  watch(prefix: string, handler: WatchHandler): () => void
  /** Gives the lease back (its keys vanish at once) and ends everything. */
  close(done: () => void): void
}
