import type { Cluster } from '../cluster.ts'
import type { StorageHost } from '../hosts.ts'
import type { Journal } from '../journal.ts'
import type { Network } from '../network.ts'
import type { Dice } from '../dice.ts'
import type { BlocksWorkload } from '../workloads/blocks.ts'

export interface NemesisContext {
  readonly cluster: Cluster
  readonly journal: Journal
  readonly dice: Dice
  /** Volumes with traffic. */
  readonly volumes: readonly string[]
  readonly blocks: BlocksWorkload | undefined
}

export interface Fault {
  /** Hosts whose own clients can't be expected to work meanwhile. */
  readonly hit: readonly StorageHost[]
  /** Who and what, for the report. */
  readonly detail: string
  /** Error replies that are right while it lasts. */
  readonly allowed?: (errno: number) => boolean
  /** Brings it about; it lasts until `stop`. */
  start(): Promise<void>
  /** How long it stays, ms. */
  readonly holdMs: number
  /** Ends it. Undoes what is there, also after a `start` that failed half way. */
  stop(): Promise<void>
}

export interface Nemesis {
  readonly name: string
  /** What this machine must allow; without it the nemesis is left out. */
  readonly needs: 'nothing' | 'namespaces' | 'disks' | 'blocks' | 'faketime'
  /** Chooses the victims, the cluster being whole. */
  plan(context: NemesisContext): Promise<Fault>
}

/** The network that a nemesis which needs namespaces has. */
export function networkOf({ cluster }: NemesisContext): Network {
  if (cluster.network === undefined) throw new Error('this nemesis needs namespaces')
  return cluster.network
}
