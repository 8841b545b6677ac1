/**
 * Every target there is, in the order of the report, and in turn in that of the run: those that are compared most closely
 * stand side by side, since a machine's mood changes within half a minute.
 */
import { firstMissing } from '../../bed/host.ts'
import { ceph } from './ceph.ts'
import { gluster } from './gluster.ts'
import { holdfast } from './holdfast.ts'
import { nbdkit, nbdkitMemory, nbdServer, qemuNbd, rawDisk } from './one-copy.ts'
import { quorum } from './quorum.ts'
import type { Target } from './target.ts'

export const TARGETS: readonly Target[] = [
  rawDisk,
  qemuNbd,
  nbdkitMemory,
  nbdkit,
  nbdServer,
  holdfast(1),
  holdfast(2),
  holdfast(3),
  quorum(2),
  quorum(3),
  gluster(2),
  gluster(3),
  ceph(2),
  ceph(3),
]

/** Ours, and the one whose tails ours are compared with. */
export const ALONE: readonly string[] = ['nbdkit', 'holdfast-1', 'holdfast-2', 'holdfast-3']

/** Why a target can't run here, and what to install; undefined when it can. */
export function missing(target: Target): string | undefined {
  const program = firstMissing(target.needs)
  if (program === undefined) return undefined
  return `${target.name} is left out: ${program} is missing: apt-get install ${target.packages}`
}

/** The targets of these names, or all that are not optional. Throws for a name that there isn't. */
export function chooseTargets(names: readonly string[]): readonly Target[] {
  if (names.length === 0) return TARGETS.filter(({ optional }) => optional !== true)
  return names.map((name) => {
    const target = TARGETS.find((one) => one.name === name)
    if (target !== undefined) return target
    throw new Error(`no target ${name}: there are ${TARGETS.map((one) => one.name).join(', ')}`)
  })
}
