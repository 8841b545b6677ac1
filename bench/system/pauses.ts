/** Finds the pauses in a latency log of fio, and counts them by length. */

export const PAUSE_MS = 20
const STEPS_MS = [20, 30, 50, 100, 200, 500, 1000, Infinity]

export interface Pause {
  readonly atSeconds: number
  readonly ms: number
}

/** fio's latency log: milliseconds since the start, latency in ns, direction, size, offset, priority. */
export function readPauses(log: string, leastMs = PAUSE_MS): readonly Pause[] {
  return log.split('\n').flatMap((line) => {
    const [at = Number.NaN, ns = Number.NaN] = line.split(',').map(Number)
    return ns >= leastMs * 1e6 ? [{ atSeconds: at / 1000, ms: ns / 1e6 }] : []
  })
}

export function histogram(pauses: readonly Pause[]): readonly string[] {
  return STEPS_MS.slice(0, -1).map((from, i) => {
    const to = STEPS_MS[i + 1] ?? Infinity
    const count = pauses.filter(({ ms }) => ms >= from && ms < to).length
    return `${String(from).padStart(5)} ms ${to === Infinity ? 'and more' : `to ${to} ms`}: ${count}`
  })
}
