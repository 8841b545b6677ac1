/** Medians, and ratios with their spread. */

/** NaN for an empty list. */
export function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const upper = sorted[middle] ?? Number.NaN
  if (sorted.length % 2 === 1) return upper
  return ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

/**
 * The ratio of two series measured in the same rounds: round by round, since neighbours in time share what
 * else happens on the machine. Undefined unless every round has both.
 */
export function ratio(ours: readonly number[], theirs: readonly number[]): Spread | undefined {
  if (ours.length === 0 || ours.length !== theirs.length) return undefined
  const ratios = ours.map((value, round) => value / (theirs[round] ?? Number.NaN))
  if (ratios.some((value) => !Number.isFinite(value))) return undefined
  return { median: median(ratios), min: Math.min(...ratios), max: Math.max(...ratios) }
}
