/**
 * Docker's volume calls. What Docker does with a driver, and what follows from it here:
 *
 * - A broken connection is tried again, so every call may come twice, the second while the first still runs.
 * - It gives a Mount up after 120 s and sends no Unmount then: what is ready later is undone.
 * - It creates a volume that it knows and the cluster does not, empty, without a word: refused for a while
 *   after a removal.
 * - It calls Unmount for ids of runs long ago, and ignores errors of it.
 */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import { formatBytes, formatFailureMode } from '@holdfast/api/client'
import {
  type ClusterAdmin,
  type CreateVolume,
  type EventLog,
  HoldfastError,
  isHoldfastError,
  type MountedVolume,
  type VolumeMounts,
  type VolumeView,
} from '@holdfast/base'
import { inTime, Turns } from './calls.ts'
import { RunningMounts } from './running-mounts.ts'
import { findVolume, listVolumes, mayMean } from './volume-names.ts'
import { contradiction, mountOptionsOf, readVolumeOptions, type VolumeDefaults } from './volume-options.ts'

/**
 * By a program: this process serves the filesystem, and a thread of its pool that waits for it is one fewer of those that
 * have to answer.
 */
const makeFolder = (path: string): Promise<unknown> => promisify(execFile)('mkdir', ['-p', '--', path])

/** The folder of the filesystem that containers see. */
const DATA_FOLDER = 'data'
const SEEN_POLL_MS = 50

export interface DriverSettings extends Omit<VolumeDefaults, 'replicaCount'> {
  /** Docker gives up after 120 s; a node that starts takes some of it. */
  readonly mountMs: number
  /** Docker gives up after 60 s. */
  readonly callMs: number
  /** How long a volume that another host creates at the same time may take to be seen here. */
  readonly seenMs: number
  /** Whether a volume is created that nobody gave an option for: `docker run -v new:/path`. */
  readonly implicitCreation: boolean
  /** How long a name that was removed is not created anew without options. */
  readonly removedMs: number
}

export const defaultDriverSettings: DriverSettings = {
  sizeBytes: 10 * 1024 ** 3,
  fileSystem: 'ext4',
  mountMs: 100_000,
  callMs: 45_000,
  seenMs: 3_000,
  implicitCreation: true,
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
  readonly #mounting: RunningMounts
  /** Creations and removals, by Docker's name. */
  readonly #turns = new Turns()
  /** Names that existed when they were listed last. */
  #known: ReadonlySet<string> = new Set()
  /** Names that others have removed since, and when that was noticed, in milliseconds since 1970. */
  readonly #removed = new Map<string, number>()

  constructor(admin: ClusterAdmin, mounts: VolumeMounts, events: EventLog, settings: DriverSettings) {
    this.#admin = admin
    this.#mounts = mounts
    this.#events = events
    this.#settings = settings
    this.#mounting = new RunningMounts(events)
  }

  /**
   * Success if there is such a volume already.
   * @throws HoldfastError HF_BAD_REQUEST; HF_CONFLICT if it is not what the options say; of the cluster.
   */
  async create(name: string, options: Readonly<Record<string, string>>): Promise<void> {
    const asked = readVolumeOptions(name, options, this.#defaults())
    const { callMs, seenMs } = this.#settings
    const late = `volume ${name} is not ready yet`
    await this.#turns.run(name, callMs + 2 * seenMs, late, async () => {
      if (this.#exists(name, options, asked)) return
      this.#noteRemoved()
      if (Object.keys(options).length === 0) this.#refuseImplicit(name)
      else this.#removed.delete(name)
      try {
        await inTime(callMs, this.#admin.createVolume(asked), late)
      } catch (error) {
        const code = isHoldfastError(error) ? error.code : undefined
        if (code === 'HF_CONFLICT' && (await this.#appears(name, options, asked))) return
        if (code === 'HF_TIMEOUT' && (await this.#endsWell(name, asked))) return
        throw error
      }
    })
  }

  /**
   * Success if there is no such volume: the call may be a second one of a removal that was done.
   * @throws HoldfastError HF_CONFLICT while it is in use.
   */
  async remove(name: string): Promise<void> {
    await this.#turns.run(name, this.#settings.callMs, `volume ${name} is not removed yet`, async () => {
      const view = findVolume(this.#admin, name)
      if (view === undefined) return
      const { namespace, name: own } = view.record
      const users = this.#mountedHere(view)?.mountIds.length ?? 0
      if (users > 0) {
        const message = `volume ${name} is in use by ${users} container(s) here: stop them first`
        throw new HoldfastError('HF_CONFLICT', message)
      }
      await this.#mounts.detach(namespace, own)
      await this.#admin.removeVolume(namespace, own).catch((error: unknown) => {
        if (!isHoldfastError(error) || error.code !== 'HF_NOT_FOUND') throw error
      })
      // Docker forgets it too: who names it again wants a new one.
      this.#forget(name)
    })
  }

  /**
   * Answers with the folder for the container.
   * @throws HoldfastError HF_NOT_FOUND; HF_TIMEOUT; or why it can't be mounted.
   */
  async mount(name: string, id: string): Promise<string> {
    const { record } = this.#find(name)
    const { namespace, name: own } = record
    const options = mountOptionsOf(record, this.#defaults())
    const request = { namespace, name: own, mountId: id, readOnly: false, ...options }
    return this.#mounting.mount(name, id, this.#settings.mountMs, {
      mount: async () => {
        const { path } = await this.#mounts.mount(request)
        const folder = join(path, DATA_FOLDER)
        await makeFolder(folder).catch(async (error: unknown) => {
          await this.#mounts.unmount(namespace, own, id)
          throw new HoldfastError('HF_IO', `volume ${name} is mounted but can't be written: ${String(error)}`)
        })
        return folder
      },
      unmount: () => this.#mounts.unmount(namespace, own, id),
    })
  }

  /** Success if there is no such mount, and if the volume is gone. */
  async unmount(name: string, id: string): Promise<void> {
    const { callMs } = this.#settings
    const end = Date.now() + callMs
    // A mount that is still under way would outlive its end.
    if (!(await this.#mounting.drop(name, id, callMs))) return
    const mounted = this.#mounts.list().filter((one) => mayMean(name, one) && one.mountIds.includes(id))
    const unmounted = Promise.all(mounted.map((one) => this.#mounts.unmount(one.namespace, one.name, id)))
    await inTime(Math.max(end - Date.now(), 1), unmounted, `volume ${name} is not unmounted yet`)
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

  /** @throws HoldfastError HF_CONFLICT if it is not what was asked for. */
  #exists(name: string, options: Readonly<Record<string, string>>, asked: CreateVolume): boolean {
    const existing = findVolume(this.#admin, name)
    const why = existing === undefined ? undefined : contradiction(options, asked, existing.record)
    if (why === undefined) return existing !== undefined
    const message = `volume ${name} exists already and is not what was asked for: ${why}`
    throw new HoldfastError('HF_CONFLICT', message)
  }

  /** Another host was faster: its volume will be seen here in a moment. */
  async #appears(
    name: string,
    options: Readonly<Record<string, string>>,
    asked: CreateVolume,
  ): Promise<boolean> {
    for (const end = Date.now() + this.#settings.seenMs; ; await setTimeout(SEEN_POLL_MS)) {
      if (this.#exists(name, options, asked)) return true
      if (Date.now() >= end) return false
    }
  }

  /**
   * After a creation that took too long: true if it serves by now. What has never served is removed: it holds
   * no data, whoever made it.
   */
  async #endsWell(dockerName: string, { namespace, name }: CreateVolume): Promise<boolean> {
    const view = this.#admin.volume(namespace, name)
    if (view === undefined) return false
    if (view.state !== 'creating') return view.primary !== undefined
    try {
      await inTime(this.#settings.seenMs, this.#admin.removeVolume(namespace, name), 'it is not removed yet')
    } catch (error) {
      const volume = `${namespace}/${name}`
      this.#events.event('warn', 'a half-made volume stays', { volume, reason: String(error) })
    }
    this.#forget(dockerName)
    return false
  }

  /** Docker still knows a volume that another host has removed, and would make it again, empty. */
  #refuseImplicit(name: string): void {
    const how = `docker volume create --driver holdfast --opt size=10GiB ${name}`
    if (!this.#settings.implicitCreation) {
      const message = `there is no volume ${name}, and none is made unasked: create it with ${how}`
      throw new HoldfastError('HF_CONFLICT', message)
    }
    if (!this.#removed.has(name)) return
    const advice = `to make a new, empty one: ${how}`
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

  /** Of a volume that was removed here, which may have been noticed meanwhile. */
  #forget(name: string): void {
    this.#known = new Set([...this.#known].filter((known) => known !== name))
    this.#removed.delete(name)
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

  #mountedHere({ record: { namespace, name } }: VolumeView): MountedVolume | undefined {
    return this.#mounts.list().find((one) => one.namespace === namespace && one.name === name)
  }

  /** Empty while it is not mounted here. */
  #mountpoint(view: VolumeView): string {
    const path = this.#mountedHere(view)?.path
    return path === undefined ? '' : join(path, DATA_FOLDER)
  }

  #info(name: string, view: VolumeView): VolumeInfo {
    const { record, state, primary } = view
    const status = {
      namespace: record.namespace,
      size: formatBytes(record.sizeBytes),
      replicas: record.replicaCount,
      failureMode: formatFailureMode(record.failureMode),
      state,
      copies: `${record.inSync.length} of ${record.replicaCount} in sync`,
      primary: primary ?? '',
      attachedTo: record.attachment?.node ?? '',
    }
    return { Name: name, Mountpoint: this.#mountpoint(view), CreatedAt: record.createdAt, Status: status }
  }
}
