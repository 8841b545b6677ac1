/** What `docker volume create --opt` may say, and what of it is kept in labels for the mounts to come. */
import {
  checkLabels,
  checkName,
  checkReplicaCount,
  DEFAULT_NAMESPACE,
  formatBytes,
  formatFailureMode,
  parseFailureMode,
  parseSize,
  quoted,
} from '@holdfast/api/client'
import { type CreateVolume, FILE_SYSTEMS, type FileSystem, HoldfastError, type VolumeRecord } from '@holdfast/base'
import { NAME_LABEL, splitFullName } from './volume-names.ts'

const FS_LABEL = 'docker.fs'
const MKFS_LABEL = 'docker.mkfs-options'
const MOUNT_LABEL = 'docker.mount-options'
const LABEL_PREFIX = 'label.'
/** Labels of the driver itself. */
const OWN_PREFIX = 'docker.'
const KNOWN = ['size', 'replicas', 'fs', 'mkfs-options', 'mount-options', 'namespace', 'failure-mode', 'from']

export interface VolumeDefaults {
  readonly sizeBytes: number
  readonly replicaCount: number
  readonly fileSystem: FileSystem
}

/** How the volume is mounted, wherever that is. */
export interface MountOptions {
  readonly fileSystem: FileSystem
  readonly mkfsOptions: readonly string[]
  readonly mountOptions: readonly string[]
}

const bad = (message: string): HoldfastError => new HoldfastError('HF_BAD_REQUEST', message)

/** @throws HoldfastError HF_BAD_REQUEST with a sentence for the user of `docker volume create`. */
export function readVolumeOptions(
  dockerName: string,
  options: Readonly<Record<string, string>>,
  defaults: VolumeDefaults,
): CreateVolume {
  const full = splitFullName(dockerName)
  const name = checkName('volume name', full?.name ?? dockerName)
  const unknown = Object.keys(options).find((key) => !KNOWN.includes(key) && !key.startsWith(LABEL_PREFIX))
  if (unknown !== undefined) {
    throw bad(`there is no option ${quoted(unknown)}: the options are ${KNOWN.join(', ')} and ${LABEL_PREFIX}NAME`)
  }
  const { size, replicas, fs, namespace: given, from } = options
  if (from !== undefined) {
    throw bad(`a volume can't be made from a snapshot yet: leave out the option from=${from}`)
  }
  const namespace = checkName('namespace', given ?? full?.namespace ?? DEFAULT_NAMESPACE)
  if (full !== undefined && namespace !== full.namespace) {
    const advice = `leave out the option namespace=${namespace}`
    throw bad(`${dockerName} is in the namespace ${full.namespace}: ${advice}`)
  }
  const fileSystem = fs === undefined ? defaults.fileSystem : checkFileSystem(fs)
  const labels = {
    ...labelsOf(options),
    [FS_LABEL]: fileSystem,
    ...kept(MKFS_LABEL, options['mkfs-options']),
    ...kept(MOUNT_LABEL, options['mount-options']),
    ...(namespace === DEFAULT_NAMESPACE || full !== undefined ? {} : { [NAME_LABEL]: dockerName }),
  }
  const failureMode = options['failure-mode']
  return {
    name,
    namespace,
    sizeBytes: size === undefined ? defaults.sizeBytes : parseSize(size),
    replicaCount: replicas === undefined ? defaults.replicaCount : readReplicaCount(replicas),
    labels: checkLabels(labels),
    failureMode: failureMode === undefined ? undefined : parseFailureMode(failureMode),
  }
}

/** Of a volume that was made in another way, the defaults. */
export function mountOptionsOf({ labels }: VolumeRecord, defaults: VolumeDefaults): MountOptions {
  return {
    fileSystem: FILE_SYSTEMS.find((fs) => fs === labels[FS_LABEL]) ?? defaults.fileSystem,
    mkfsOptions: words(labels[MKFS_LABEL]),
    mountOptions: words(labels[MOUNT_LABEL]?.replaceAll(',', ' ')),
  }
}

/** The option that asks for something else than the volume is; undefined: none does. */
export function contradiction(
  options: Readonly<Record<string, string>>,
  asked: CreateVolume,
  { sizeBytes, replicaCount, failureMode, namespace, labels }: VolumeRecord,
): string | undefined {
  const has = (option: string): boolean => options[option] !== undefined
  if (has('namespace') && asked.namespace !== namespace) return `it is in the namespace ${namespace}`
  if (has('size') && asked.sizeBytes !== sizeBytes) return `it has a size of ${formatBytes(sizeBytes)}`
  if (has('replicas') && asked.replicaCount !== replicaCount) return `it has ${replicaCount} copies`
  const fileSystem = labels[FS_LABEL]
  if (has('fs') && fileSystem !== undefined && options['fs'] !== fileSystem) return `it has ${fileSystem}`
  const mode = formatFailureMode(failureMode)
  const askedMode = asked.failureMode === undefined ? mode : formatFailureMode(asked.failureMode)
  return askedMode === mode ? undefined : `its failure mode is ${mode}`
}

function labelsOf(options: Readonly<Record<string, string>>): Record<string, string> {
  const given = Object.entries(options).filter(([key]) => key.startsWith(LABEL_PREFIX))
  const own = given.find(([key]) => key.startsWith(`${LABEL_PREFIX}${OWN_PREFIX}`))
  if (own !== undefined) {
    const label = own[0].slice(LABEL_PREFIX.length)
    throw bad(`the label ${label} is the driver's own: choose a name without ${OWN_PREFIX}`)
  }
  return Object.fromEntries(given.map(([key, value]) => [key.slice(LABEL_PREFIX.length), value]))
}

function checkFileSystem(text: string): FileSystem {
  const found = FILE_SYSTEMS.find((fs) => fs === text)
  if (found === undefined) throw bad(`${quoted(text)} is no filesystem that volumes can have: use ${FILE_SYSTEMS.join(' or ')}`)
  return found
}

function readReplicaCount(text: string): number {
  if (!/^\d{1,3}$/.test(text)) throw bad(`${quoted(text)} is no number of replicas: write a number, such as 2`)
  return checkReplicaCount(Number(text))
}

const kept = (label: string, value: string | undefined): Record<string, string> =>
  value === undefined || value.trim() === '' ? {} : { [label]: value.trim() }
const words = (text: string | undefined): string[] => text?.split(/\s+/).filter((word) => word !== '') ?? []
