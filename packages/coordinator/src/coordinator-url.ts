import { HoldfastError } from '@holdfast/base'

export type CoordinatorUrl =
  | { readonly kind: 'embedded' }
  | { readonly kind: 'etcd'; readonly endpoints: readonly string[] }

const SCHEME = 'etcd://'
const ENDPOINT_COUNT_MAX = 16
const ENDPOINT = /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})$/

/**
 * Reads `embedded` or `etcd://H:P[,H:P…]`; endpoints come back as `host:port`, IPv6 in brackets.
 * Throws HF_BAD_REQUEST with what would be right.
 */
export function parseCoordinatorUrl(text: string): CoordinatorUrl {
  if (text === 'embedded') return { kind: 'embedded' }
  if (!text.startsWith(SCHEME)) {
    throw bad(`coordinator '${text}' is unknown: use 'embedded' or 'etcd://host:port[,host:port]'`)
  }
  const parts = text.slice(SCHEME.length).replace(/\/$/, '').split(',')
  const endpoints = parts.map((part) => part.replace(SCHEME, '').trim())
  for (const endpoint of endpoints) {
    const port = Number(ENDPOINT.exec(endpoint)?.[2] ?? 0)
    if (port < 1 || port > 65_535) {
      throw bad(`coordinator endpoint '${endpoint}' is not 'host:port' with a port of 1 to 65535`)
    }
  }
  if (new Set(endpoints).size !== endpoints.length) {
    throw bad(`coordinator '${text}' names an endpoint twice: name each one once`)
  }
  if (endpoints.length > ENDPOINT_COUNT_MAX) {
    throw bad(`coordinator names ${endpoints.length} endpoints: at most ${ENDPOINT_COUNT_MAX}`)
  }
  return { kind: 'etcd', endpoints }
}

function bad(message: string): HoldfastError {
  return new HoldfastError('HF_BAD_REQUEST', message)
}
