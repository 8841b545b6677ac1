/**
 * A copy of `source[start, end)`, always. Not `source.slice`: what comes from Node may be a Buffer, whose `slice` is a view of
 * memory that somebody else will use again.
 */
export function copyBytes(source: Uint8Array, start = 0, end: number = source.length): Uint8Array {
  const copy = new Uint8Array(end - start)
  copy.set(source.subarray(start, end))
  return copy
}

/** All of `parts`, one behind the other: a copy, unless there is just one. */
export function joinBytes(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1 && parts[0] !== undefined) return parts[0]
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}
