/**
 * Keeps the machine's processors from sleeping for everybody alike, as latency profiles of distributions do: what a busy
 * node of Holdfast asks of its machine by itself (docs/decisions/0024-processors-awake.md).
 */
import { closeSync, openSync, writeSync } from 'node:fs'

const DEVICE = '/dev/cpu_dma_latency'

/** Until the returned function is called, or the process ends. Throws where this user can't. */
export function keepAwakeForAll(): () => void {
  const fd = openSync(DEVICE, 'r+')
  writeSync(fd, Buffer.from(Int32Array.of(0).buffer))
  return () => closeSync(fd)
}
