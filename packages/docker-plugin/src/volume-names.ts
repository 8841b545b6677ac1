/**
 * Docker's names for volumes. A volume of the default namespace has its own name; one of another namespace was given
 * a name by `--opt namespace=`, and carries it in a label, so that every host finds it again.
 */
import type { ClusterAdmin, VolumeView } from '@holdfast/base'
import { HoldfastError } from '@holdfast/base'
import { DEFAULT_NAMESPACE } from '@holdfast/api/client'

export const NAME_LABEL = 'docker.name'

/** The volume that Docker means; undefined: there is none. */
export function findVolume(admin: ClusterAdmin, dockerName: string): VolumeView | undefined {
  const own = admin.volume(DEFAULT_NAMESPACE, dockerName)
  if (own !== undefined) return own
  const others = admin.volumes().filter(({ record }) => isNamed(record, dockerName))
  if (others.length < 2) return others[0]
  const where = others.map(({ record }) => record.namespace).join(' and ')
  throw new HoldfastError(
    'HF_CONFLICT',
    `volume ${dockerName} exists in the namespaces ${where}: remove one, or give it another name`,
  )
}

/** Volumes that Docker shall see, each with its name there. */
export function listVolumes(admin: ClusterAdmin): readonly { readonly dockerName: string; readonly view: VolumeView }[] {
  return admin
    .volumes()
    .filter(({ record }) => record.namespace === DEFAULT_NAMESPACE || isNamed(record, record.name))
    .map((view) => ({ dockerName: view.record.name, view }))
}

function isNamed({ name, labels }: VolumeView['record'], dockerName: string): boolean {
  return name === dockerName && labels[NAME_LABEL] === dockerName
}
