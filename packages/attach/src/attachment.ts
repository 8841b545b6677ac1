/** What the node knows of one attached volume. */
import type { AttachmentRight, MountedVolume } from '@holdfast/base'
import type { DeviceBackend } from './backend.ts'
import type { KeptVolume } from './kept-volume.ts'
import type { AttachmentRecord } from './state-file.ts'

export interface AttachedDevice {
  readonly backend: DeviceBackend
  readonly kept: KeptVolume
  /** By which claim the device was made. */
  right: AttachmentRight | undefined
  /** The right to it was asked for by this process, and is ours. */
  confirmed: boolean
}

export class Attachment {
  readonly namespace: string
  readonly name: string
  /** Undefined: nothing is attached, or not yet. */
  attached: AttachedDevice | undefined
  path: string | undefined
  /** The path was asked for, and is not ours to remove. */
  directory = false
  readOnly = false
  /** Asked for by `attach`: stays without a mount. */
  pinned = false
  readonly mountIds = new Set<string>()
  /** Why the device gives errors, if it does. */
  failure: string | undefined
  linger: NodeJS.Timeout | undefined
  #serial: Promise<unknown> = Promise.resolve()

  constructor(namespace: string, name: string) {
    this.namespace = namespace
    this.name = name
  }

  static key(namespace: string, name: string): string {
    return `${namespace}/${name}`
  }
  get title(): string {
    return Attachment.key(this.namespace, this.name)
  }
  get inUse(): boolean {
    return this.mountIds.size > 0 || this.pinned
  }

  /** Runs tasks of this volume one after the other. */
  inTurn<T>(task: () => Promise<T>): Promise<T> {
    const done = this.#serial.then(task)
    this.#serial = done.catch(() => undefined)
    return done
  }

  stopLingering(): void {
    clearTimeout(this.linger)
    this.linger = undefined
  }

  toMounted(): MountedVolume | undefined {
    if (this.attached === undefined) return undefined
    const { namespace, name, path } = this
    return { namespace, name, device: this.attached.kept.device, path, mountIds: [...this.mountIds] }
  }

  toRecord(): AttachmentRecord | undefined {
    if (this.attached === undefined) return undefined
    const { namespace, name, path, directory, readOnly, pinned } = this
    const { backend, kept, right } = this.attached
    const mountIds = [...this.mountIds]
    return {
      namespace,
      name,
      right,
      backend: backend.name,
      device: kept.device,
      path,
      directory,
      readOnly,
      pinned,
      mountIds,
    }
  }
}
