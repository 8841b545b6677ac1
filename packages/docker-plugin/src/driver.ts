/**
 * Docker's volume calls. What Docker does with a driver, and what follows from it here:
 *
 * - A broken connection is tried again, so the same Mount(name, id) may come twice: both are one.
 * - It gives a Mount up after 120 s and sends no Unmount then: what is ready later is undone.
 * - It creates a volume that it knows and the cluster does not, empty, without a word: refused for a while after
 *   a removal.
 * - It calls Unmount for ids of runs long ago, and ignores errors of it.
 */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { formatBytes } from '@holdfast/api/client'
import {
  type ClusterAdmin,
  type EventLog,
  HoldfastError,
  isHoldfastError,
  type VolumeMounts,
  type VolumeView,
} from '@holdfast/base'
import { findVolume, listVolumes } from './volume-names.ts'
import { contradiction, mountOptionsOf, readVolumeOptions, type VolumeDefaults } from './volume-options.ts'

/** The folder of the filesystem that containers see. */
const DATA_FOLDER = 'data'

export interface DriverSettings extends Omit<VolumeDefaults, 'replicaCount'> {
  /** Docker gives up after 120 s. */
  readonly mountMs: number
  /** Docker gives up after 60 s. */
  readonly callMs: number
  /** How long a name that was removed is not created anew without options. */
  readonly removedMs: number
}

export const defaultDriverSettings: DriverSettings = {
  sizeBytes: 10 * 1024 ** 3,
  fileSystem: 'ext4',
  mountMs: 105_000,
  callMs: 50_000,
  removedMs: 600_000,
}

export interface VolumeInfo {
  readonly Name: string
  readonly Mountpoint: string
  readonly CreatedAt: string
  readonly Status: Readonly<Record<string, string | number>>
}

export class Driver {
  readonly #admin: ClusterAdmin
  readonly #mounts: VolumeMounts
  readonly #events: EventLog
  readonly #settings: DriverSettings
  /** Mounts under way, by volume and id. */
  readonly #mounting = new Map<string, Promise<string>>()
  /** Names that existed when they were listed last. */
  #known: ReadonlySet<string> = new Set()
  /** Names that others have removed since, and when that was noticed, in milliseconds since 1970. */
  readonly #removed = new Map<string, number>()

  constructor(admin: ClusterAdmin, mounts: VolumeMounts, events: EventLog, settings: DriverSettings) {
    this.#admin = admin
    this.#mounts = mounts
    this.#events = events
    this.#settings = settings
  }

  async create(name: string, options: Readonly<Record<string, string>>): Promise<void> {
    const asked = readVolumeOptions(name, options, this.#defaults())
    const existing = findVolume(this.#admin, name)
    if (existing !== undefined) {
      const why = contradiction(options, asked, existing.record)
      if (why === undefined) return
      throw new HoldfastError('HF_CONFLICT', `volume ${name} exists already and is not what was asked for: ${why}`)
    }
    this.#noteRemoved()
    if (Object.keys(options).length === 0) this.#refuseRemoved(name)
    else this.#removed.delete(name)
    try {
      await this.#inTime(this.#settings.callMs, this.#admin.createVolume(asked), `volume ${name} is not ready yet`)
    } catch (error) {
      if (isHoldfastError(error) && error.code === 'HF_TIMEOUT') await this.#undoCreate(asked.namespace, name)
      throw error
    }
  }

  async remove(name: string): Promise<void> {
    const { namespace, name: own } = this.#find(name).record
    const mounted = this.#mounts.list().find((one) => one.namespace === namespace && one.name === own)
    if (mounted !== undefined && mounted.mountIds.length > 0) {
      throw new HoldfastError('HF_CONFLICT', `volume ${name} is in use by ${mounted.mountIds.length} container(s) here: stop them first`)
    }
    await this.#mounts.detach(namespace, own)
    await this.#inTime(this.#settings.callMs, this.#admin.removeVolume(namespace, own), `volume ${name} is not removed yet`)
    // Docker forgets it too: who names it again wants a new one.
    this.#known = new Set([...this.#known].filter((known) => known !== name))
  }

  async mount(name: string, id: string): Promise<string> {
    const key = `${name}/${id}`
    let mounting = this.#mounting.get(key)
    if (mounting === undefined) {
      mounting = this.#mountOnce(name, id).finally(() => this.#mounting.delete(key))
      this.#mounting.set(key, mounting)
    }
    return mounting
  }

  async unmount(name: string, id: string): Promise<void> {
    // A mount that is still under way would outlive its end.
    await this.#mounting.get(`${name}/${id}`)?.catch(() => undefined)
    for (const { namespace, name: own, mountIds } of this.#mounts.list()) {
      if (own === name && mountIds.includes(id)) await this.#mounts.unmount(namespace, own, id)
    }
  }

  path(name: string): string {
    return this.#mountpoint(this.#find(name))
  }

  get(name: string): VolumeInfo {
    return this.#info(name, this.#find(name))
  }

  list(): readonly VolumeInfo[] {
    this.#noteRemoved()
    return listVolumes(this.#admin).map(({ dockerName, view }) => this.#info(dockerName, view))
  }

  async #mountOnce(name: string, id: string): Promise<string> {
    const { record } = this.#find(name)
    const { namespace, name: own } = record
    const options = mountOptionsOf(record, this.#defaults())
    let late = false
    const mounted = this.#mounts.mount({ namespace, name: own, mountId: id, readOnly: false, ...options })
    const ready = mounted.then(async ({ path }) => {
      const folder = join(path, DATA_FOLDER)
      await mkdir(folder, { recursive: true }).catch(async (error: unknown) => {
        await this.#mounts.unmount(namespace, own, id)
        throw new HoldfastError('HF_IO', `volume ${name} is mounted but can't be written: ${String(error)}`)
      })
      if (late) await this.#mounts.unmount(namespace, own, id)
      return folder
    })
    try {
      return await this.#inTime(this.#settings.mountMs, ready, `volume ${name} could not be mounted in time`)
    } catch (error) {
      late = true
      ready.catch((failure: unknown) => {
        this.#events.event('warn', 'a mount that docker has given up failed', { volume: own, reason: String(failure) })
      })
      throw error
    }
  }

  async #undoCreate(namespace: string, name: string): Promise<void> {
    await this.#admin.removeVolume(namespace, name).catch((error: unknown) => {
      this.#events.event('warn', 'a half-made volume stays', { volume: `${namespace}/${name}`, reason: String(error) })
    })
  }

  /** Docker still knows a volume that another host has removed, and would make it again, empty. */
  #refuseRemoved(name: string): void {
    const noticed = this.#removed.get(name)
    if (noticed === undefined) return
    const advice = `to make a new, empty one: docker volume create --driver holdfast --opt size=10GiB ${name}`
    throw new HoldfastError('HF_CONFLICT', `volume ${name} was removed elsewhere a while ago; ${advice}`)
  }

  /** The process that holds the socket lists the volumes every few seconds, so that this is never far behind. */
  #noteRemoved(): void {
    const now = Date.now()
    const names = new Set(listVolumes(this.#admin).map(({ dockerName }) => dockerName))
    for (const name of this.#known) if (!names.has(name)) this.#removed.set(name, now)
    for (const [name, at] of this.#removed) {
      if (names.has(name) || now - at > this.#settings.removedMs) this.#removed.delete(name)
    }
    this.#known = names
  }

  /** Two copies where a second node exists, as in the API. */
  #defaults(): VolumeDefaults {
    const { sizeBytes, fileSystem } = this.#settings
    return { sizeBytes, fileSystem, replicaCount: this.#admin.nodes().length > 1 ? 2 : 1 }
  }

  #find(name: string): VolumeView {
    const view = findVolume(this.#admin, name)
    if (view !== undefined) return view
    throw new HoldfastError('HF_NOT_FOUND', `there is no volume ${name}: see docker volume ls or holdfast volume ls`)
  }

  #mountpoint({ record }: VolumeView): string {
    const { namespace, name } = record
    const mounted = this.#mounts.list().find((one) => one.namespace === namespace && one.name === name)
    return mounted?.path === undefined ? '' : join(mounted.path, DATA_FOLDER)
  }

  #info(name: string, view: VolumeView): VolumeInfo {
    const { record, state, primary } = view
    const status = {
      namespace: record.namespace,
      size: formatBytes(record.sizeBytes),
      state,
      copies: `${record.inSync.length} of ${record.replicaCount} in sync`,
      primary: primary ?? '',
      attachedTo: record.attachment?.node ?? '',
    }
    return { Name: name, Mountpoint: this.#mountpoint(view), CreatedAt: record.createdAt, Status: status }
  }

  async #inTime<T>(ms: number, work: Promise<T>, what: string): Promise<T> {
    let timer: NodeJS.Timeout | undefined
    const timeout = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new HoldfastError('HF_TIMEOUT', `${what}: look at holdfast volume ls, then try again`))
      }, ms)
    })
    try {
      return await Promise.race([work, timeout])
    } finally {
      clearTimeout(timer)
    }
  }
}
