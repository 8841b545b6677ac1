import type { Cluster } from '../cluster.ts'
import type { Journal } from '../journal.ts'
import type { Dice } from '../dice.ts'

export interface WorkloadContext {
  readonly cluster: Cluster
  readonly journal: Journal
  readonly dice: Dice
  readonly seed: number
  readonly folder: string
  /** Kept when there was a violation. */
  readonly logs: string
}

/** Operations of real clients on a volume of their own, for the whole run. */
export interface Workload {
  readonly name: string
  readonly volume: string
  /** Makes the volume and begins. */
  start(): Promise<void>
  /** Between faults, the cluster whole: looks whether everything acknowledged is there, then goes on. */
  check(): Promise<void>
  /** The same for the last time, then ends. */
  finish(): Promise<void>
  /** Ends now, whatever the state. */
  kill(): Promise<void>
}
