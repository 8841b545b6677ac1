/** `VolumeMounts` of this host: claims, devices, filesystems and who uses them. */
import { mkdir } from 'node:fs/promises'
import { isAbsolute, join } from 'node:path'
import {
  type AttachmentDesk,
  type EventLog,
  HoldfastError,
  isHoldfastError,
  type MountedVolume,
  type MountRequest,
  type VolumeMounts,
} from '@holdfast/base'
import { Attachment } from './attachment.ts'
import { chooseBackend, type DeviceBackend } from './backend.ts'
import { sleep } from './gate.ts'
import type { KeptVolume } from './kept-volume.ts'
import { mountDevice, mountTable, removeMountPoint, unmountDevice } from './mount-table.ts'
import { cleanUp, removeOrphans } from './remnants.ts'
import type { AttachmentRecord, AttachmentState } from './state-file.ts'
import { runOrFail } from './command.ts'

export interface HostTimings {
  /** How long a volume stays mounted after its last user: a container often comes back at once. */
  readonly lingerMs: number
  /** How long a claim waits for another host to let go. */
  readonly claimPatienceMs: number
}

export interface HostMountsOptions {
  readonly desk: AttachmentDesk
  readonly backends: readonly DeviceBackend[]
  readonly state: AttachmentState
  readonly stateDir: string
  readonly mountRoot: string
  readonly events: EventLog
  readonly timings: HostTimings
}

const CLAIM_RETRY_MS = 250
const CLOSE_MS_MAX = 10_000

export class HostMounts implements VolumeMounts {
  readonly #options: HostMountsOptions
  readonly #volumes = new Map<string, Attachment>()
  #backend: DeviceBackend | undefined
  #closed = false

  constructor(options: HostMountsOptions) {
    this.#options = options
  }

  /** Finds again what an earlier process of this node attached, and cleans up what can't be used any more. */
  async restore(): Promise<void> {
    const { state, stateDir, desk, events } = this.#options
    const { current, attachments } = await state.load()
    for (const record of attachments) {
      const kept = current ? await this.#adopt(record) : undefined
      if (kept !== undefined) continue
      events.event('warn', 'attachment of an earlier run is void', {
        volume: `${record.namespace}/${record.name}`,
      })
      await cleanUp(stateDir, record, this.#options.mountRoot)
      await desk.release(record.namespace, record.name).catch(() => undefined)
    }
    const known = [...this.#volumes.values()].flatMap(({ attached }) =>
      attached ? [attached.kept.folder] : [],
    )
    await removeOrphans(stateDir, new Set(known))
    await this.#save()
    for (const volume of this.#volumes.values()) void this.#reconfirm(volume)
  }

  async mount(request: MountRequest): Promise<{ readonly path: string }> {
    checkNames(request.namespace, request.name)
    if (request.directory !== undefined && !isAbsolute(request.directory)) {
      throw new HoldfastError('HF_BAD_REQUEST', `${request.directory} is not an absolute path`)
    }
    const volume = this.#volume(request.namespace, request.name)
    return volume.inTurn(async () => {
      volume.stopLingering()
      try {
        const kept = await this.#device(volume)
        const path = await this.#mounted(volume, kept, request)
        volume.mountIds.add(request.mountId)
        await this.#save()
        return { path }
      } catch (error) {
        await this.#tidy(volume)
        throw error
      }
    })
  }

  async unmount(namespace: string, name: string, mountId: string): Promise<void> {
    const volume = this.#volumes.get(Attachment.key(namespace, name))
    await volume?.inTurn(async () => {
      if (!volume.mountIds.has(mountId)) return
      if (volume.mountIds.size === 1 && volume.directory && volume.attached !== undefined) {
        // Somebody waits for this one, and wants to hear that a file is still open.
        await unmountDevice(volume.attached.kept.device, volume.failure !== undefined)
        volume.path = undefined
      }
      volume.mountIds.delete(mountId)
      await this.#save()
      if (volume.mountIds.size === 0) this.#letLinger(volume)
    })
  }

  async attach(namespace: string, name: string): Promise<{ readonly device: string }> {
    checkNames(namespace, name)
    const volume = this.#volume(namespace, name)
    return volume.inTurn(async () => {
      volume.stopLingering()
      try {
        const kept = await this.#device(volume)
        volume.pinned = true
        await this.#save()
        return { device: kept.device }
      } catch (error) {
        await this.#tidy(volume)
        throw error
      }
    })
  }

  async detach(namespace: string, name: string): Promise<void> {
    const volume = this.#volumes.get(Attachment.key(namespace, name))
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
        await this.#dispose(volume)
      } catch (error) {
        volume.pinned = wasPinned
        if (!wasPinned) this.#letLinger(volume)
        throw error
      }
    })
  }

  list(): readonly MountedVolume[] {
    return [...this.#volumes.values()].flatMap((volume) => volume.toMounted() ?? [])
  }

  /** The right to the volume has gone: its device gives errors from now on, until all its users have left. */
  lost(namespace: string, name: string): void {
    const volume = this.#volumes.get(Attachment.key(namespace, name))
    if (volume?.attached === undefined) return
    this.#failed(volume, 'the right to it was lost to another host')
    void volume.attached.kept.fail().catch(() => undefined)
  }

  /** Lets go of everything; what is in use stays, with its keeper, unless `keepMounted` is false. */
  async close(options: { readonly keepMounted: boolean } = { keepMounted: true }): Promise<void> {
    this.#closed = true
    let failure: unknown
    const closing = [...this.#volumes.values()].map((volume) =>
      volume.inTurn(async () => {
        volume.stopLingering()
        if (options.keepMounted && volume.inUse) {
          volume.attached?.kept.release()
          return
        }
        volume.mountIds.clear()
        volume.pinned = false
        await this.#dispose(volume).catch((error: unknown) => {
          this.#warn('volume could not be let go', volume, error)
          failure ??= error
          volume.attached?.kept.release()
        })
      }),
    )
    // A call that waits for the device must not keep the node from stopping.
    await Promise.race([Promise.all(closing), sleep(CLOSE_MS_MAX, true)])
    if (failure !== undefined && !options.keepMounted) throw failure
  }

  #volume(namespace: string, name: string): Attachment {
    if (this.#closed) throw new HoldfastError('HF_UNAVAILABLE', 'this node stops: try again in a moment')
    const key = Attachment.key(namespace, name)
    const volume = this.#volumes.get(key) ?? new Attachment(namespace, name)
    this.#volumes.set(key, volume)
    return volume
  }

  /** The device, attached if it is not. */
  async #device(volume: Attachment): Promise<KeptVolume> {
    if (volume.failure !== undefined) {
      if (volume.inUse) {
        const advice = 'stop its containers and unmount it here first'
        throw new HoldfastError(
          'HF_CONFLICT',
          `volume ${volume.title} gives errors, ${volume.failure}: ${advice}`,
        )
      }
      await this.#dispose(volume)
    }
    if (volume.attached?.confirmed === true) {
      // Whoever takes the right away says so by `lost`: a coordinator that is away for a moment is no reason
      // to refuse.
      return volume.attached.kept
    }
    await this.#claim(volume)
    if (volume.attached !== undefined) {
      await volume.attached.kept.confirm()
      volume.attached.confirmed = true
      return volume.attached.kept
    }
    this.#volumes.set(volume.title, volume)
    try {
      this.#backend ??= await chooseBackend(this.#options.backends)
      const backend = this.#backend
      const kept = await backend.connect(volume.namespace, volume.name)
      this.#keep(volume, backend, kept, true)
      await this.#save()
      return kept
    } catch (error) {
      if (volume.attached === undefined) await this.#release(volume)
      throw error
    }
  }

  async #claim(volume: Attachment): Promise<void> {
    const end = performance.now() + this.#options.timings.claimPatienceMs
    for (;;) {
      try {
        return await this.#options.desk.claim(volume.namespace, volume.name)
      } catch (error) {
        // A container that moves comes here while the other host still lingers.
        const mayPass = isHoldfastError(error) && error.code === 'HF_CONFLICT' && performance.now() < end
        if (!mayPass || volume.attached !== undefined) throw error
        await sleep(CLAIM_RETRY_MS)
      }
    }
  }

  /** The path, mounted if it is not. */
  async #mounted(volume: Attachment, kept: KeptVolume, request: MountRequest): Promise<string> {
    if (volume.path !== undefined) {
      if (request.directory !== undefined && request.directory !== volume.path) {
        const message = `volume ${volume.title} is mounted on ${volume.path} already`
        throw new HoldfastError('HF_CONFLICT', message)
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
      this.#options.events.event(
        'warn',
        'volume has another filesystem than was asked for, and keeps it',
        fields,
      )
    }
    if (request.directory === undefined) await mkdir(path, { recursive: true, mode: 0o700 })
    await mountDevice(kept.device, path, type, mountOptions(type, request))
    volume.path = path
    volume.directory = request.directory !== undefined
    volume.readOnly = request.readOnly
    return path
  }

  #keep(volume: Attachment, backend: DeviceBackend, kept: KeptVolume, confirmed: boolean): void {
    volume.attached = { backend, kept, confirmed }
    void kept.ended.then(() => volume.inTurn(() => this.#replaceKeeper(volume, backend, kept)))
  }

  /** A keeper has ended, and nobody asked it to. */
  async #replaceKeeper(volume: Attachment, backend: DeviceBackend, kept: KeptVolume): Promise<void> {
    if (volume.attached?.kept !== kept || this.#closed || volume.failure !== undefined) return
    try {
      const next = await backend.adopt(volume.namespace, volume.name, kept.device)
      if (next === undefined) throw new HoldfastError('HF_IO', `its keeper has ended (log in ${kept.folder})`)
      const { confirmed } = volume.attached
      this.#keep(volume, backend, next, confirmed)
      if (confirmed) await next.confirm()
      else void this.#reconfirm(volume)
    } catch (error) {
      this.#failed(volume, error instanceof Error ? error.message : String(error))
    }
  }

  #failed(volume: Attachment, reason: string): void {
    volume.failure = reason
    this.#options.events.event('error', 'device of a volume gives errors', { volume: volume.title, reason })
  }

  #letLinger(volume: Attachment): void {
    volume.stopLingering()
    if (this.#closed) return
    volume.linger = setTimeout(() => {
      void volume.inTurn(async () => {
        if (volume.mountIds.size > 0 || volume.linger === undefined) return
        try {
          if (volume.pinned) await this.#unmountOnly(volume)
          else await this.#dispose(volume)
        } catch (error) {
          this.#warn('volume can not be let go yet', volume, error)
          this.#letLinger(volume)
        }
      })
    }, this.#options.timings.lingerMs)
  }

  async #unmountOnly(volume: Attachment): Promise<void> {
    if (volume.attached !== undefined) {
      await unmountDevice(volume.attached.kept.device, volume.failure !== undefined)
    }
    if (volume.path !== undefined && !volume.directory) await removeMountPoint(volume.path, 2)
    volume.path = undefined
    volume.directory = false
    volume.readOnly = false
    await this.#save()
  }

  /** Unmounts, detaches, gives the right back. */
  async #dispose(volume: Attachment): Promise<void> {
    volume.stopLingering()
    const { attached } = volume
    if (attached !== undefined) {
      await this.#unmountOnly(volume)
      await attached.backend.disconnect(attached.kept, volume.failure !== undefined)
      volume.attached = undefined
      volume.failure = undefined
    }
    await this.#release(volume)
    await this.#save()
  }

  async #release(volume: Attachment): Promise<void> {
    this.#volumes.delete(volume.title)
    await this.#options.desk.release(volume.namespace, volume.name).catch((error: unknown) => {
      this.#warn('right to a volume could not be given back', volume, error)
    })
  }

  /** After a failed mount: nothing half-made stays, but what others use does. */
  async #tidy(volume: Attachment): Promise<void> {
    if (volume.inUse) return
    if (volume.attached === undefined) {
      this.#volumes.delete(volume.title)
      return
    }
    await this.#dispose(volume).catch((error: unknown) => {
      this.#warn('half-made attachment stays for now', volume, error)
      this.#letLinger(volume)
    })
  }

  async #adopt(record: AttachmentRecord): Promise<KeptVolume | undefined> {
    const backend = this.#options.backends.find(({ name }) => name === record.backend)
    const kept = await backend?.adopt(record.namespace, record.name, record.device)
    if (backend === undefined || kept === undefined) return undefined
    const volume = this.#volume(record.namespace, record.name)
    this.#keep(volume, backend, kept, false)
    volume.pinned = record.pinned
    const isMounted = mountTable().some(({ path, source }) => path === record.path && source === kept.device)
    if (record.path !== undefined && isMounted) {
      volume.path = record.path
      volume.directory = record.directory
      volume.readOnly = record.readOnly
      for (const id of record.mountIds) volume.mountIds.add(id)
    }
    this.#options.events.event('info', 'attachment adopted', { volume: volume.title, device: kept.device })
    return kept
  }

  /** Asks for the right to what was adopted; its keeper may not talk to the node before. */
  async #reconfirm(volume: Attachment): Promise<void> {
    const { attached } = volume
    if (!volume.inUse) this.#letLinger(volume)
    while (!this.#closed && attached !== undefined && volume.attached === attached && !attached.confirmed) {
      try {
        await this.#options.desk.claim(volume.namespace, volume.name)
        await attached.kept.confirm()
        attached.confirmed = true
        return
      } catch (error) {
        const code = isHoldfastError(error) ? error.code : undefined
        if (code === 'HF_CONFLICT' || code === 'HF_NOT_FOUND') {
          this.#warn('attachment lost while the node was down', volume, error)
          this.lost(volume.namespace, volume.name)
          return
        }
        await sleep(CLAIM_RETRY_MS)
      }
    }
  }

  async #save(): Promise<void> {
    await this.#options.state.save([...this.#volumes.values()].flatMap((volume) => volume.toRecord() ?? []))
  }

  #warn(message: string, volume: Attachment, error: unknown): void {
    const reason = error instanceof Error ? error.message : String(error)
    this.#options.events.event('warn', message, { volume: volume.title, reason })
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
