/** `VolumeMounts` of this host: filesystems on the devices of `device-table.ts`, and who uses them. */
import { mkdir } from 'node:fs/promises'
import { isAbsolute, join } from 'node:path'
import {
  type EventLog,
  HoldfastError,
  type MountedVolume,
  type MountRequest,
  type VolumeMounts,
} from '@holdfast/base'
import type { Attachment } from './attachment.ts'
import { runOrFail } from './command.ts'
import type { DeviceTable } from './device-table.ts'
import { sleep } from './gate.ts'
import type { KeptVolume } from './kept-volume.ts'
import { mountDevice, unmountDevice } from './mount-table.ts'

export interface HostMountsOptions {
  readonly devices: DeviceTable
  readonly mountRoot: string
  readonly events: EventLog
  /** How long a volume stays mounted after its last user: a container often comes back at once. */
  readonly lingerMs: number
}

const CLOSE_MS_MAX = 10_000
/** Somebody still has a file open, say. */
const RETRY_MS = 2000

export class HostMounts implements VolumeMounts {
  readonly #options: HostMountsOptions
  readonly #devices: DeviceTable

  constructor(options: HostMountsOptions) {
    this.#options = options
    this.#devices = options.devices
  }

  /** Goes on with what an earlier process of this node attached. */
  async restore(): Promise<void> {
    await this.#devices.restore()
    for (const volume of this.#devices.all()) if (!volume.inUse) this.#letLinger(volume)
  }

  async mount(request: MountRequest): Promise<{ readonly path: string }> {
    if (request.directory !== undefined && !isAbsolute(request.directory)) {
      throw new HoldfastError('HF_BAD_REQUEST', `${request.directory} is not an absolute path`)
    }
    return this.#using(request.namespace, request.name, async (volume, kept) => {
      const path = await this.#mounted(volume, kept, request)
      volume.mountIds.add(request.mountId)
      await this.#devices.save()
      return { path }
    })
  }

  async attach(namespace: string, name: string): Promise<{ readonly device: string }> {
    return this.#using(namespace, name, async (volume, kept) => {
      volume.pinned = true
      await this.#devices.save()
      return { device: kept.device }
    })
  }

  async unmount(namespace: string, name: string, mountId: string): Promise<void> {
    const volume = this.#devices.find(namespace, name)
    await volume?.inTurn(async () => {
      if (!volume.mountIds.has(mountId)) return
      if (volume.mountIds.size === 1 && volume.directory && volume.attached !== undefined) {
        // Somebody waits for this one, and wants to hear that a file is still open.
        await unmountDevice(volume.attached.kept.device, volume.failure !== undefined)
        volume.path = undefined
      }
      volume.mountIds.delete(mountId)
      await this.#devices.save()
      if (volume.mountIds.size === 0) this.#letLinger(volume)
    })
  }

  async detach(namespace: string, name: string): Promise<void> {
    const volume = this.#devices.find(namespace, name)
    await volume?.inTurn(async () => {
      if (volume.mountIds.size > 0) {
        const users = `by ${volume.mountIds.size} user(s)`
        throw new HoldfastError(
          'HF_CONFLICT',
          `volume ${volume.title} is mounted here ${users}: unmount it first`,
        )
      }
      const wasPinned = volume.pinned
      volume.pinned = false
      try {
        await this.#devices.dispose(volume)
      } catch (error) {
        volume.pinned = wasPinned
        if (!wasPinned) this.#letLinger(volume, RETRY_MS)
        throw error
      }
    })
  }

  list(): readonly MountedVolume[] {
    return this.#devices.all().flatMap((volume) => volume.toMounted() ?? [])
  }

  /** The right to the volume has gone: its device gives errors from now on, until all its users have left. */
  lost(namespace: string, name: string): void {
    const volume = this.#devices.find(namespace, name)
    if (volume !== undefined) this.#devices.lose(volume)
  }

  /** Lets go of everything; what is in use stays, with its keeper, unless `keepMounted` is false. */
  async close(options: { readonly keepMounted: boolean } = { keepMounted: true }): Promise<void> {
    this.#devices.close()
    let failure: unknown
    const closing = this.#devices.all().map((volume) =>
      volume.inTurn(async () => {
        volume.stopLingering()
        if (options.keepMounted && volume.inUse) {
          volume.attached?.kept.release()
          return
        }
        volume.mountIds.clear()
        volume.pinned = false
        await this.#devices.dispose(volume).catch((error: unknown) => {
          this.#devices.warn('volume could not be let go', volume, error)
          failure ??= error
          volume.attached?.kept.release()
        })
      }),
    )
    // A call that waits for the device must not keep the node from stopping.
    await Promise.race([Promise.all(closing), sleep(CLOSE_MS_MAX, true)])
    if (failure !== undefined && !options.keepMounted) throw failure
  }

  /** Runs a task on an attached volume; if it fails, what was made for it goes again. */
  async #using<T>(
    namespace: string,
    name: string,
    task: (volume: Attachment, kept: KeptVolume) => Promise<T>,
  ): Promise<T> {
    checkNames(namespace, name)
    const volume = this.#devices.findOrAdd(namespace, name)
    return volume.inTurn(async () => {
      volume.stopLingering()
      try {
        return await task(volume, await this.#devices.attach(volume))
      } catch (error) {
        await this.#tidy(volume)
        throw error
      }
    })
  }

  /** After a failure: nothing half-made stays, but what others use does. */
  async #tidy(volume: Attachment): Promise<void> {
    if (volume.inUse) return
    await this.#devices.dispose(volume).catch((error: unknown) => {
      this.#devices.warn('half-made attachment stays for now', volume, error)
      this.#letLinger(volume, RETRY_MS)
    })
  }

  /** The path, mounted if it is not. */
  async #mounted(volume: Attachment, kept: KeptVolume, request: MountRequest): Promise<string> {
    if (volume.path !== undefined) {
      if (request.directory !== undefined && request.directory !== volume.path) {
        throw new HoldfastError('HF_CONFLICT', `volume ${volume.title} is mounted on ${volume.path} already`)
      }
      if (volume.readOnly && !request.readOnly) {
        await runOrFail('mount', ['-o', 'remount,rw', volume.path])
        volume.readOnly = false
      }
      return volume.path
    }
    const path = request.directory ?? join(this.#options.mountRoot, volume.namespace, volume.name)
    const { type, made } = await kept.prepare(request.fileSystem, request.mkfsOptions)
    if (made) this.#options.events.event('info', 'filesystem made', { volume: volume.title, type })
    else if (type !== request.fileSystem) {
      const fields = { volume: volume.title, type, asked: request.fileSystem }
      const message = 'volume has another filesystem than was asked for, and keeps it'
      this.#options.events.event('warn', message, fields)
    }
    if (request.directory === undefined) await mkdir(path, { recursive: true, mode: 0o700 })
    await mountDevice(kept.device, path, type, mountOptions(type, request))
    volume.path = path
    volume.directory = request.directory !== undefined
    volume.readOnly = request.readOnly
    return path
  }

  #letLinger(volume: Attachment, ms = this.#options.lingerMs): void {
    volume.stopLingering()
    if (this.#devices.closed) return
    volume.linger = setTimeout(() => {
      void volume.inTurn(async () => {
        if (volume.mountIds.size > 0 || volume.linger === undefined) return
        try {
          if (volume.pinned) await this.#devices.unmount(volume)
          else await this.#devices.dispose(volume)
        } catch (error) {
          this.#devices.warn('volume can not be let go yet', volume, error)
          this.#letLinger(volume, RETRY_MS)
        }
      })
    }, ms)
  }
}

function checkNames(...names: readonly string[]): void {
  for (const name of names) {
    if (/^[^./][^/\0]*$/.test(name)) continue
    throw new HoldfastError('HF_BAD_REQUEST', `${JSON.stringify(name)} is not a name that can be a folder`)
  }
}

function mountOptions(type: string, request: MountRequest): string[] {
  const given = request.mountOptions.flatMap((option) => option.split(','))
  const options = [...given, request.readOnly ? 'ro' : 'rw']
  const canDiscard = ['ext4', 'xfs', 'btrfs'].includes(type)
  if (canDiscard && !given.some((option) => option.endsWith('discard'))) options.push('discard')
  // Clones of a volume have its UUID; that nobody mounts the same volume twice is known from elsewhere.
  if (type === 'xfs' && !given.includes('nouuid')) options.push('nouuid')
  return options
}
