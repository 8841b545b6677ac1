/** What a thread and the coordinator of its process say to each other. */
import type {
  CoordinatorEntry,
  RangeResult,
  Transaction,
  TransactionResult,
  WatchChange,
} from '@holdfast/base'

/** `id` is the thread's own number of the question or watch. */
export type FromThread =
  | { readonly kind: 'hold-lease'; readonly ttlMs: number }
  | { readonly kind: 'range'; readonly id: number; readonly prefix: string }
  | { readonly kind: 'transact'; readonly id: number; readonly transaction: Transaction }
  | { readonly kind: 'watch'; readonly id: number; readonly prefix: string }
  | { readonly kind: 'unwatch'; readonly id: number }
  | { readonly kind: 'close' }

/** In the order in which the coordinator said it. */
export type ToThread =
  | { readonly kind: 'lease-gained'; readonly serial: number }
  | { readonly kind: 'lease-lost' }
  | { readonly kind: 'ranged'; readonly id: number; readonly result: RangeResult }
  | { readonly kind: 'transacted'; readonly id: number; readonly result: TransactionResult }
  | { readonly kind: 'snapshot'; readonly id: number; readonly entries: readonly CoordinatorEntry[]; readonly revision: number }
  | { readonly kind: 'changes'; readonly id: number; readonly changes: readonly WatchChange[]; readonly revision: number }
  | { readonly kind: 'closed' }
