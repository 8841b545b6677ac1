import type { CoordinatorEntry, WatchChange } from '@holdfast/base'
import type { IEvent, IKeyValue } from 'etcd3'

export function entryOf({ key, value, mod_revision, lease }: IKeyValue): CoordinatorEntry {
  return {
    key: key.toString('utf8'),
    value: value.toString('utf8'),
    modRevision: Number(mod_revision),
    // Declared a string; protobufjs gives a number for an absent field under some loaders.
    leased: Number(lease) !== 0,
  }
}

export function changeOf({ type, kv }: IEvent): WatchChange {
  if (type === 'Put') return { change: 'put', entry: entryOf(kv) }
  return { change: 'delete', key: kv.key.toString('utf8'), modRevision: Number(kv.mod_revision) }
}

/** The half-open key range of a prefix, as etcd wants it. The empty prefix is everything. */
export function prefixRange(prefix: string): { key: Buffer; range_end: Buffer } {
  const key = Buffer.from(prefix)
  for (let last = key.length - 1; last >= 0; last--) {
    const byte = key[last] ?? 0xff
    if (byte === 0xff) continue
    const end = Buffer.from(key.subarray(0, last + 1))
    end[last] = byte + 1
    return { key, range_end: end }
  }
  const zero = Buffer.from([0])
  return { key: key.length === 0 ? zero : key, range_end: zero }
}
