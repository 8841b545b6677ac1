/** Seeds that once found a mistake of ours, and which. A seed stays as long as the generator makes the same plan of it. */
export const REGRESSIONS: readonly { readonly seed: number; readonly found: string }[] = [
  { seed: 17, found: 'a copy whose log could not be opened stayed out until the process restarted' },
  { seed: 47, found: 'a flush sent again to a new primary was answered before the old epoch was durable' },
  { seed: 72, found: 'a former member that held more than the only complete copy could never join again' },
  { seed: 149, found: 'the same after a failed datasync' },
  { seed: 191, found: 'a member that came back heard nothing of the commit position until the next write' },
  { seed: 206, found: 'a mistake of the simulator: a victim that does not exist' },
  { seed: 227, found: 'as 191, with three volumes' },
  { seed: 255, found: 'as 191, after a one-way partition' },
  { seed: 268, found: 'a copy that may lack its tail was elected although a damaged member held it' },
  { seed: 290, found: 'an election went by an answer that had become old' },
  { seed: 835, found: 'as 290, after a failed datasync' },
  { seed: 911, found: 'a mistake of the simulator: a client asked a node that was stopping' },
  { seed: 1120, found: 'a mistake of the checker: a flush after a loss of power vouched for what it took' },
  { seed: 1227, found: 'as 290, after a failed read' },
]
