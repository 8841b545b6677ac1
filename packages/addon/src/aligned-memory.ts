import { native } from './native.ts'

/** A line of the processor's cache. */
const LINE_BYTES = 64

/**
 * `bytes` of memory, cleared, that begin with a line of the cache: the kernel copies from and to there faster. What the
 * engine allocates by itself begins sixteen bytes behind one.
 */
export function allocateAligned(bytes: number): Uint8Array {
  const memory = new ArrayBuffer(bytes + LINE_BYTES)
  const start = (LINE_BYTES - native.addressRest(new Uint8Array(memory), LINE_BYTES)) % LINE_BYTES
  return new Uint8Array(memory, start, bytes)
}
