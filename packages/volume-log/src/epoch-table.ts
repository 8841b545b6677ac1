/** Which epoch wrote which part of the log, and where two logs part (I6). */
import type { Epoch, LogPosition, Lsn } from '@holdfast/base'
import type { EpochStart } from './types.ts'

export class EpochTable {
  readonly #entries: EpochStart[] = []

  get entries(): readonly EpochStart[] {
    return this.#entries
  }

  get last(): Epoch {
    return this.#entries.at(-1)?.epoch ?? (0 as Epoch)
  }

  note(epoch: Epoch, firstLsn: Lsn): void {
    if (epoch > this.last) this.#entries.push({ epoch, firstLsn })
  }

  /** Whether a log with this table that ends at `end` has the whole history up to that position. */
  holds(position: LogPosition, end: number): boolean {
    const index = this.#entries.findIndex((start) => start.epoch === position.epoch)
    return index >= 0 && position.lsn <= (this.#entries[index + 1]?.firstLsn ?? end)
  }

  /** Forgets what began at `lsn` or later. */
  cut(lsn: number): void {
    while ((this.#entries.at(-1)?.firstLsn ?? -1) >= lsn) this.#entries.pop()
  }

  replace(entries: readonly EpochStart[]): void {
    this.#entries.length = 0
    this.#entries.push(...entries)
  }
}

/**
 * Largest LSN below which two logs are the same history. One epoch has one primary, which writes one sequence on
 * top of one history; so below the shorter end of the last epoch that both know, both are the same.
 */
export function forkPoint(
  mine: readonly EpochStart[],
  myEnd: number,
  theirs: readonly EpochStart[],
  theirEnd: number,
): Lsn {
  let i = mine.length - 1
  let j = theirs.length - 1
  while (i >= 0 && j >= 0) {
    const a = mine[i]
    const b = theirs[j]
    if (a === undefined || b === undefined) break
    if (a.epoch === b.epoch && a.firstLsn === b.firstLsn) {
      const endA = mine[i + 1]?.firstLsn ?? myEnd
      const endB = theirs[j + 1]?.firstLsn ?? theirEnd
      return Math.min(endA, endB) as Lsn
    }
    if (a.epoch >= b.epoch) i--
    if (b.epoch >= a.epoch) j--
  }
  return 0 as Lsn
}
