/**
 * Docker's names for volumes: one flat list. A volume of the default namespace has its own name there. One of
 * another namespace that was made with `--opt namespace=` carries Docker's name in a label, so that every
 * host finds it again. Every volume has its full name too, `namespace..name`: no name of the cluster has `..`.
 */
import type { ClusterAdmin, VolumeRecord, VolumeView } from '@holdfast/base'
import { HoldfastError } from '@holdfast/base'
import { DEFAULT_NAMESPACE } from '@holdfast/api/client'

export const NAME_LABEL = 'docker.name'
/** A name begins with a letter or digit, so the last `..` is the one between. */
const FULL_NAME = /^([a-z0-9][a-z0-9_.-]*)\.\.([A-Za-z0-9][A-Za-z0-9_.-]*)$/

interface Place {
  readonly namespace: string
  readonly name: string
}

/** The parts of `namespace..name`; undefined: it is a plain name. */
export function splitFullName(dockerName: string): Place | undefined {
  const [, namespace, name] = FULL_NAME.exec(dockerName) ?? []
  return namespace === undefined || name === undefined ? undefined : { namespace, name }
}

/** Whether Docker may mean this volume by that name, whether or not the cluster still has it. */
export function mayMean(dockerName: string, { namespace, name }: Place): boolean {
  return dockerName === name || dockerName === fullNameOf({ namespace, name })
}

/**
 * The volume that Docker means; undefined: there is none.
 * @throws HoldfastError HF_CONFLICT when two have that name: one of them is foreign data to a container.
 */
export function findVolume(admin: ClusterAdmin, dockerName: string): VolumeView | undefined {
  const full = splitFullName(dockerName)
  if (full !== undefined) return admin.volume(full.namespace, full.name)
  const found = admin.volumes().filter(({ record }) => isShort(record) && record.name === dockerName)
  if (found.length < 2) return found[0]
  const names = found.map(({ record }) => fullNameOf(record)).join(' or ')
  const advice = `say which one with its full name, ${names}`
  throw new HoldfastError('HF_CONFLICT', `${found.length} volumes have the name ${dockerName}: ${advice}`)
}

/** All volumes of the cluster, each with a name by which Docker finds it alone. */
export function listVolumes(
  admin: ClusterAdmin,
): readonly { readonly dockerName: string; readonly view: VolumeView }[] {
  const views = admin.volumes()
  const counts = new Map<string, number>()
  for (const { record } of views) {
    if (isShort(record)) counts.set(record.name, (counts.get(record.name) ?? 0) + 1)
  }
  return views.map((view) => {
    const { record } = view
    const alone = isShort(record) && counts.get(record.name) === 1
    return { dockerName: alone ? record.name : fullNameOf(record), view }
  })
}

const fullNameOf = ({ namespace, name }: Place): string => `${namespace}..${name}`

function isShort({ namespace, name, labels }: VolumeRecord): boolean {
  return namespace === DEFAULT_NAMESPACE || labels[NAME_LABEL] === name
}
