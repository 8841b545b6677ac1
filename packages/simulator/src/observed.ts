/** A simulated cluster as the checks see it. */
import type { NodeId, VolumeRecord } from '@holdfast/base'
import type { Engine } from '@holdfast/engine'
import type { RegisterChecker } from './register-checker.ts'
import type { SimPlatter } from './sim-disk.ts'
import type { SimEndpoint } from './sim-network.ts'
import type { WireVersion } from './wire-versions.ts'
import type { Life, NodeClock, World } from './world.ts'

export interface SimNode {
  readonly name: NodeId
  readonly platter: SimPlatter
  readonly clock: NodeClock
  readonly labels: Readonly<Record<string, string>>
  life: Life
  engine: Engine | undefined
  /** One per thread, as are `threads`. */
  endpoints: SimEndpoint[]
  /** The main thread's is `life`: with it all of them end. */
  threads: Life[]
  wire: WireVersion | undefined
  bootId: string
  lives: number
  /** The life that was asked to end. */
  stopping: Life | undefined
}

export interface ObservedCluster {
  readonly world: World
  readonly nodes: readonly SimNode[]
  /** By the name of the volume. */
  readonly checkers: ReadonlyMap<string, RegisterChecker>
  checker(volume: string): RegisterChecker
  record(volume: string): VolumeRecord | undefined
  primaryOf(volume: string): SimNode | undefined
  healthy(volume: string): boolean
  violation(text: string): void
}
