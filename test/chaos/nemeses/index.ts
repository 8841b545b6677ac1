import { clockJumps } from './clocks.ts'
import { corruptPrimary, corruptSecondary, corruptTail } from './corruption.ts'
import { fullDiskOfPrimary, fullDiskOfSecondary } from './disks.ts'
import { killEtcd, killEtcdMember } from './etcd-outages.ts'
import type { Nemesis } from './nemesis.ts'
import * as partitions from './partitions.ts'
import { killPrimary, killSecondary, pausePrimary, pauseSecondary, rollingRestart, stutter } from './processes.ts'

/** In the order in which they take their turns. */
export const NEMESES: readonly Nemesis[] = [
  killPrimary,
  partitions.partitionHost,
  partitions.partitionFromEtcd,
  killSecondary,
  pausePrimary,
  partitions.partitionPair,
  partitions.partitionOneWay,
  killEtcdMember,
  killEtcd,
  corruptPrimary,
  corruptSecondary,
  corruptTail,
  pauseSecondary,
  stutter,
  fullDiskOfSecondary,
  fullDiskOfPrimary,
  rollingRestart,
  partitions.slowLink,
  partitions.flapping,
  partitions.partitionAll,
  clockJumps,
]
