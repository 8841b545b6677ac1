/**
 * The volumes that are attached here: the right to each, its device, its keeper; written down at every
 * change. Who uses them, and since when nobody does, is `host-mounts.ts`.
 */
import { type AttachmentDesk, type AttachmentRight, type EventLog, HoldfastError, isHoldfastError } from '@holdfast/base'
import { type AttachedDevice, Attachment } from './attachment.ts'
import { chooseBackend, type DeviceBackend } from './backend.ts'
import { sleep } from './gate.ts'
import type { KeptVolume } from './kept-volume.ts'
import { mountTable, removeMountPoint, unmountDevice } from './mount-table.ts'
import { cleanUp, removeOrphans } from './remnants.ts'
import type { AttachmentRecord, AttachmentState } from './state-file.ts'

export interface DeviceTableOptions {
  readonly desk: AttachmentDesk
  readonly backends: readonly DeviceBackend[]
  readonly state: AttachmentState
  readonly stateDir: string
  readonly mountRoot: string
  readonly events: EventLog
  /** How long a claim waits for another host to let go. */
  readonly claimPatienceMs: number
}

const CLAIM_RETRY_MS = 250
const RELEASE_RETRY_MS = 5_000

export class DeviceTable {
  readonly #options: DeviceTableOptions
  /** Never shrinks: what waits for its turn on a volume has to wait in one queue. */
  readonly #volumes = new Map<string, Attachment>()
  #backend: DeviceBackend | undefined
  #closed = false

  constructor(options: DeviceTableOptions) {
    this.#options = options
  }

  /** Finds again what an earlier process of this node attached, and cleans up what can't be used any more. */
  async restore(): Promise<void> {
    const { state, stateDir } = this.#options
    const { current, attachments } = await state.load()
    for (const record of attachments) await this.#restore(record, current)
    const known = this.all().flatMap(({ attached }) => (attached ? [attached.kept.folder] : []))
    await removeOrphans(stateDir, new Set(known))
    await this.save().catch((error: unknown) => this.#said('what is attached can not be written down', {}, error))
    for (const volume of this.all()) void this.#reconfirm(volume)
    void this.#releaseStray()
  }

  /** One device that is beyond help is no reason to serve none. */
  async #restore(record: AttachmentRecord, current: boolean): Promise<void> {
    const { stateDir, mountRoot, desk } = this.#options
    const fields = { volume: `${record.namespace}/${record.name}` }
    try {
      if (current && (await this.#adopt(record)) !== undefined) return
      this.#options.events.event('warn', 'attachment of an earlier run is void', fields)
    } catch (error) {
      this.#said('attachment of an earlier run can not be taken up', fields, error)
    }
    try {
      await cleanUp(stateDir, record, mountRoot)
    } catch (error) {
      this.#said('attachment of an earlier run can not be tidied up', fields, error)
    }
    await desk.release(record.namespace, record.name).catch(() => undefined)
  }

  /** Rights that were taken and never written down: the process ended in between. Nobody else could have the volume. */
  async #releaseStray(): Promise<void> {
    for (const { namespace, name } of await this.#options.desk.rights()) {
      if (this.#closed) return
      await this.#releaseUnused(this.findOrAdd(namespace, name))
    }
  }

  /** From now on nothing new is attached. */
  close(): void {
    this.#closed = true
  }
  get closed(): boolean {
    return this.#closed
  }
  all(): Attachment[] {
    return [...this.#volumes.values()]
  }
  find(namespace: string, name: string): Attachment | undefined {
    return this.#volumes.get(Attachment.key(namespace, name))
  }
  /** @throws HoldfastError HF_UNAVAILABLE when the node stops. */
  findOrAdd(namespace: string, name: string): Attachment {
    if (this.#closed) throw new HoldfastError('HF_UNAVAILABLE', 'this node stops: try again in a moment')
    const volume = this.find(namespace, name) ?? new Attachment(namespace, name)
    this.#volumes.set(volume.title, volume)
    return volume
  }

  /** The device, attached if it is not. */
  async attach(volume: Attachment): Promise<KeptVolume> {
    if (volume.failure !== undefined) {
      if (volume.inUse) {
        const advice = 'stop its containers and unmount it here first'
        const message = `volume ${volume.title} gives errors, ${volume.failure}: ${advice}`
        throw new HoldfastError('HF_CONFLICT', message)
      }
      await this.dispose(volume)
    }
    // Whoever takes the right away says so by `lost`: a coordinator that is away for a moment is no reason to
    // refuse.
    if (volume.attached?.confirmed === true) return volume.attached.kept
    if (volume.attached !== undefined) {
      await this.#confirm(volume, volume.attached)
      return volume.attached.kept
    }
    const right = await this.#claim(volume)
    try {
      this.#backend ??= await chooseBackend(this.#options.backends)
      const kept = await this.#backend.connect(volume.namespace, volume.name)
      this.#keep(volume, { backend: this.#backend, kept, right, confirmed: true })
      await this.save()
      return kept
    } catch (error) {
      if (volume.attached === undefined) await this.#release(volume)
      throw error
    }
  }

  /** Unmounts, detaches, gives the right back. */
  async dispose(volume: Attachment): Promise<void> {
    volume.stopLingering()
    const { attached } = volume
    if (attached === undefined) return
    await this.unmount(volume)
    await attached.backend.disconnect(attached.kept, volume.failure !== undefined)
    volume.attached = undefined
    volume.failure = undefined
    await this.#release(volume)
    await this.save()
  }

  /** The filesystem alone. */
  async unmount(volume: Attachment): Promise<void> {
    if (volume.attached !== undefined) {
      await unmountDevice(volume.attached.kept.device, volume.failure !== undefined)
    }
    if (volume.path !== undefined && !volume.directory) await removeMountPoint(volume.path, 2)
    volume.path = undefined
    volume.directory = false
    volume.readOnly = false
    await this.save()
  }

  /** Errors from now on: the right to the volume has gone. */
  lose(volume: Attachment): void {
    if (volume.attached === undefined) return
    this.#failed(volume, 'the right to it was lost to another host')
    void volume.attached.kept.fail().catch(() => undefined)
  }

  async save(): Promise<void> {
    await this.#options.state.save(this.all().flatMap((volume) => volume.toRecord() ?? []))
  }

  warn(message: string, volume: Attachment, error: unknown): void {
    this.#said(message, { volume: volume.title }, error)
  }

  #said(message: string, fields: Readonly<Record<string, string>>, error: unknown): void {
    const reason = error instanceof Error ? error.message : String(error)
    this.#options.events.event('warn', message, { ...fields, reason })
  }

  async #claim(volume: Attachment): Promise<AttachmentRight> {
    const end = performance.now() + this.#options.claimPatienceMs
    for (;;) {
      try {
        return await this.#options.desk.claim(volume.namespace, volume.name)
      } catch (error) {
        // A container that moves comes here while the other host still lingers.
        const mayPass = isHoldfastError(error) && error.code === 'HF_CONFLICT' && performance.now() < end
        if (!mayPass) throw error
        await sleep(CLAIM_RETRY_MS)
      }
    }
  }

  async #release(volume: Attachment): Promise<void> {
    await this.#options.desk.release(volume.namespace, volume.name).catch((error: unknown) => {
      this.warn('right to a volume could not be given back: tried again', volume, error)
      setTimeout(() => void this.#releaseUnused(volume), RELEASE_RETRY_MS).unref()
    })
  }

  #releaseUnused(volume: Attachment): Promise<void> {
    return volume.inTurn(async () => {
      if (!this.#closed && volume.attached === undefined) await this.#release(volume)
    })
  }

  #keep(volume: Attachment, device: AttachedDevice): void {
    volume.attached = device
    void device.kept.ended.then(() => volume.inTurn(() => this.#replaceKeeper(volume, device)))
  }

  /** A keeper has ended, and nobody asked it to. */
  async #replaceKeeper(volume: Attachment, device: AttachedDevice): Promise<void> {
    const { backend, kept } = device
    if (volume.attached !== device || this.#closed || volume.failure !== undefined) return
    try {
      const next = await backend.adopt(volume.namespace, volume.name, kept.device)
      if (next === undefined) throw new HoldfastError('HF_IO', `its keeper has ended (log in ${kept.folder})`)
      const { confirmed } = device
      this.#keep(volume, { ...device, kept: next })
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

  async #adopt(record: AttachmentRecord): Promise<KeptVolume | undefined> {
    const backend = this.#options.backends.find(({ name }) => name === record.backend)
    const kept = await backend?.adopt(record.namespace, record.name, record.device)
    if (backend === undefined || kept === undefined) return undefined
    const volume = this.findOrAdd(record.namespace, record.name)
    this.#keep(volume, { backend, kept, right: record.right, confirmed: false })
    volume.pinned = record.pinned
    const isMounted = mountTable().some(({ path, source }) => path === record.path && source === kept.device)
    if (record.path !== undefined && isMounted) {
      volume.path = record.path
      volume.directory = record.directory
      volume.readOnly = record.readOnly
      for (const id of record.mountIds) volume.mountIds.add(id)
    }
    const fields = { volume: volume.title, device: kept.device, users: volume.mountIds.size }
    this.#options.events.event('info', 'attachment adopted', fields)
    return kept
  }

  /** @throws HoldfastError HF_CONFLICT, HF_NOT_FOUND where the device must never write again. */
  async #confirm({ namespace, name }: Attachment, device: AttachedDevice): Promise<void> {
    device.right = await this.#options.desk.reconfirm(namespace, name, device.right)
    await device.kept.confirm()
    device.confirmed = true
  }

  /** Asks for the right to what was adopted; its keeper may not talk to the node before. */
  async #reconfirm(volume: Attachment): Promise<void> {
    const { attached } = volume
    while (!this.#closed && attached !== undefined && volume.attached === attached && !attached.confirmed) {
      try {
        await this.#confirm(volume, attached)
        await this.save()
        return
      } catch (error) {
        // It was given up meanwhile, and perhaps attached anew: that one has a right of its own.
        if (volume.attached !== attached) return
        const code = isHoldfastError(error) ? error.code : undefined
        if (code === 'HF_CONFLICT' || code === 'HF_NOT_FOUND') {
          this.warn('attachment lost while the node was down', volume, error)
          this.lose(volume)
          return
        }
        await sleep(CLAIM_RETRY_MS)
      }
    }
  }
}
