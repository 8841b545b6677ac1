/** The programs that run on mounted volumes. */
import type { MountedProgram } from './mounted.ts'

const script = (name: string): string => new URL(name, import.meta.url).pathname

/** Files with contents that follow from their numbers, fsync'ed. */
export function filesProgram(): MountedProgram {
  const there = new Set<number>()
  let next = 0
  return {
    ...{ name: 'ext4', script: script('files_client.py'), sizeBytes: 256 * 1024 * 1024, replicas: 2 },
    line([kind, , number]) {
      if (kind === 'c') {
        there.add(Number(number))
        next = Number(number) + 1
      }
      // Being removed: from now on both is right.
      if (kind === 'd') there.delete(Number(number))
    },
    next: () => next,
    acknowledged: () => [...there].join(' '),
  }
}

/** A ledger in SQLite. */
export function ledgerProgram(): MountedProgram {
  let last = 0
  return {
    ...{ name: 'sqlite', script: script('ledger_client.py'), sizeBytes: 256 * 1024 * 1024, replicas: 3 },
    line([kind, , number]) {
      if (kind === 'c') last = Number(number)
    },
    next: () => last + 1,
    acknowledged: () => String(last),
  }
}
