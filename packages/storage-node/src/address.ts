/** Addresses as people write them. */
import { HoldfastError } from '@holdfast/base'

export interface ListenAddress {
  readonly host: string
  /** 0: any free port. */
  readonly port: number
}

/** `HOST:PORT`, `[IPV6]:PORT`, `:PORT` or `PORT`; the last two on `defaultHost`. */
export function parseAddress(what: string, text: string, defaultHost = '127.0.0.1'): ListenAddress {
  const match = /^(?:\[([0-9a-f:.]+)\]:|([^:[\]\s/]*):)?(\d{1,5})$/i.exec(text)
  const port = Number(match?.[3] ?? Number.NaN)
  if (!(port <= 65_535)) {
    throw new HoldfastError(
      'HF_BAD_REQUEST',
      `${what}: ${JSON.stringify(text)} is no address: write HOST:PORT, as in 127.0.0.1:5710; port 0 takes a free one`,
    )
  }
  return { host: match?.[1] || match?.[2] || defaultHost, port }
}

export function formatAddress({ host, port }: ListenAddress): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

export const isWildcard = (host: string): boolean => host === '0.0.0.0' || host === '::'
