import { assert, type Transaction } from '@holdfast/base'

/** etcd's default for `--max-txn-ops`; a larger transaction would work in one coordinator only. */
export const TRANSACTION_OPERATIONS_MAX = 128

/**
 * What every coordinator refuses as a bug of the caller: too many parts, a key changed twice (etcd
 * refuses that too, but late and only for puts), an empty key.
 */
export function checkTransaction({ compares, operations }: Transaction): void {
  assert(compares.length <= TRANSACTION_OPERATIONS_MAX, 'too many compares in a transaction', {
    count: compares.length,
  })
  assert(operations.length <= TRANSACTION_OPERATIONS_MAX, 'too many operations in a transaction', {
    count: operations.length,
  })
  const seen = new Set<string>()
  for (const { key } of operations) {
    assert(key !== '', 'a transaction names an empty key')
    assert(!seen.has(key), 'a transaction changes a key twice', { key })
    seen.add(key)
  }
}
