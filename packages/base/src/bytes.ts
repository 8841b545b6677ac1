/**
 * A copy of `source[start, end)`, always. Not `source.slice`: what comes from Node may be a Buffer, whose `slice` is a view of
 * memory that somebody else will use again.
 */
export function copyBytes(source: Uint8Array, start = 0, end: number = source.length): Uint8Array {
  const copy = new Uint8Array(end - start)
  copy.set(source.subarray(start, end))
  return copy
}
