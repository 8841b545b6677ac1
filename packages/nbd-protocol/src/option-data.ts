/** Data of the options that carry any. `undefined` = malformed. */
import { readU16, readU32 } from './bytes.ts'
import { STRING_BYTES_MAX } from './constants.ts'
import { decodeUtf8 } from './utf8.ts'

/** NBD_OPT_INFO and NBD_OPT_GO. */
export interface OpenRequest {
  readonly name: string
  /** True if the client asked for this NBD_INFO type. */
  wants(infoType: number): boolean
}

export const openRequest = {
  parse(data: Uint8Array): OpenRequest | undefined {
    if (data.length < 6) return undefined
    const nameBytes = readU32(data, 0)
    if (nameBytes > data.length - 6 || nameBytes > STRING_BYTES_MAX) return undefined
    const name = decodeUtf8(data, 4, 4 + nameBytes)
    const infoCount = readU16(data, 4 + nameBytes)
    if (name === undefined || data.length !== 6 + nameBytes + infoCount * 2) return undefined
    const wanted = new Set<number>()
    for (let i = 0; i < infoCount; i++) wanted.add(readU16(data, 6 + nameBytes + i * 2))
    return { name, wants: (infoType) => wanted.has(infoType) }
  },
  /** NBD_OPT_EXPORT_NAME: the data is the name. */
  plainName(data: Uint8Array): string | undefined {
    return data.length > STRING_BYTES_MAX ? undefined : decodeUtf8(data, 0, data.length)
  },
} as const

/** NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. */
export interface MetaQueries {
  readonly exportName: string
  readonly queries: readonly string[]
}

export function metaQueries(data: Uint8Array): MetaQueries | undefined {
  const exportName = stringAt(data, 0)
  if (exportName === undefined || exportName.end + 4 > data.length) return undefined
  const count = readU32(data, exportName.end)
  const queries: string[] = []
  let at = exportName.end + 4
  // Each query takes 4 bytes at least, so that the data bounds the loop.
  for (let i = 0; i < count; i++) {
    const query = stringAt(data, at)
    if (query === undefined) return undefined
    queries.push(query.text)
    at = query.end
  }
  return at === data.length ? { exportName: exportName.text, queries } : undefined
}

/** A string behind its 32-bit length. */
function stringAt(
  data: Uint8Array,
  at: number,
): { readonly text: string; readonly end: number } | undefined {
  if (at + 4 > data.length) return undefined
  const length = readU32(data, at)
  const end = at + 4 + length
  if (length > STRING_BYTES_MAX || end > data.length) return undefined
  const text = decodeUtf8(data, at + 4, end)
  return text === undefined ? undefined : { text, end }
}
