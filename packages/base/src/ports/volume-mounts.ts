/**
 * Volumes as devices and mounted filesystems of this host. `VolumeMounts` is implemented by `attach` and used by
 * the Docker volume driver and the REST API; `AttachmentDesk` is what `attach` asks of the cluster.
 *
 * Every failure is a HoldfastError whose message is fit for the user of `docker run`.
 */
import type { NodeId, VolumeId } from '../numbers.ts'

export const FILE_SYSTEMS = ['ext4', 'xfs'] as const
export type FileSystem = (typeof FILE_SYSTEMS)[number]

export interface MountRequest {
  readonly namespace: string
  readonly name: string
  /** Names one user of the mount (a start of a container): the same id twice is one mount. */
  readonly mountId: string
  /** Made only if the device carries no signature at all. */
  readonly fileSystem: FileSystem
  readonly mkfsOptions: readonly string[]
  readonly mountOptions: readonly string[]
  readonly readOnly: boolean
  /** Absolute; where to mount instead of the node's own place. Such a mount has one user. */
  readonly directory?: string | undefined
}

export interface MountedVolume {
  readonly namespace: string
  readonly name: string
  /** The block device, absolute: `/dev/nbd3`, `/dev/loop1`. */
  readonly device: string
  /** Undefined: attached only. */
  readonly path: string | undefined
  readonly mountIds: readonly string[]
}

export interface VolumeMounts {
  /** Attaches, makes or checks the filesystem, mounts. Idempotent per (volume, mountId). */
  mount(request: MountRequest): Promise<{ readonly path: string }>
  /** Forgets one user; the last one unmounts and, after a short while, detaches. No error if there is none. */
  unmount(namespace: string, name: string, mountId: string): Promise<void>
  /** The device alone, without a filesystem. Idempotent. */
  attach(namespace: string, name: string): Promise<{ readonly device: string }>
  /** @throws HoldfastError HF_CONFLICT while it is mounted. */
  detach(namespace: string, name: string): Promise<void>
  list(): readonly MountedVolume[]
}

/** An exclusive right as it was taken: to this volume, whatever bears its name later, and by this claim. */
export interface AttachmentRight {
  readonly volume: VolumeId
  readonly generation: number
}

/** The right to use a volume from one host alone, kept in the coordinator and bound to the lease of the host. */
export interface AttachmentDesk {
  /**
   * Takes the right, or finds that it is ours. Once it resolves no other host can write to the volume.
   * @throws HoldfastError HF_CONFLICT that names the living holder; HF_NOT_FOUND; HF_UNAVAILABLE.
   */
  claim(namespace: string, name: string): Promise<AttachmentRight>
  /**
   * Finds that a right which was taken before is still ours, and takes none: a device that is older than another host's use
   * of the volume must never write to it again. `undefined`: all that is known of it is that it was ours.
   * @throws HoldfastError HF_CONFLICT where it has been anybody else's since; HF_NOT_FOUND; HF_UNAVAILABLE.
   */
  reconfirm(namespace: string, name: string, right: AttachmentRight | undefined): Promise<AttachmentRight>
  /** Gives it back. No error if it is not ours. */
  release(namespace: string, name: string): Promise<void>
  /** Volumes whose right this host has, whoever took it. Resolves once that is known. */
  rights(): Promise<readonly { readonly namespace: string; readonly name: string }[]>
  holder(namespace: string, name: string): NodeId | undefined
}
