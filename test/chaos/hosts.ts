/** A storage host: its place, its disk, its `holdfast node`. */
import { mkdirSync, rmSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import type { Place } from './network.ts'
import { Program } from './program.ts'
import { sh } from './shell.ts'

export interface HostPorts {
  readonly nbd: number
  readonly api: number
  readonly peer: number
}

export interface HostOptions {
  readonly place: Place
  readonly ports: HostPorts
  readonly folder: string
  readonly logs: string
  readonly program: string
  readonly coordinator: string
  readonly leaseSeconds: number
  readonly onEnd: (host: StorageHost, how: string) => void
}

/** Fields of the API's volume that are used here. */
export interface VolumeObject {
  readonly name: string
  readonly state: string
  readonly epoch: number
  readonly primary?: string | null
  readonly inSync: readonly string[]
  readonly replicas: readonly string[]
}

export class StorageHost {
  readonly name: string
  readonly place: Place
  readonly socket: string
  readonly program: Program
  readonly #mount: string
  readonly #image: string
  readonly #api: string
  #disk = false

  constructor(options: HostOptions) {
    const { place, ports, folder } = options
    this.name = place.name
    this.place = place
    this.socket = join(folder, `${place.name}.sock`)
    this.#mount = join(folder, place.name)
    this.#image = join(folder, `${place.name}.img`)
    this.#api = `http://${place.address}:${ports.api}`
    mkdirSync(this.#mount)
    const command = [
      [process.execPath, options.program, 'node', '--name', this.name, '--data-dir', this.dataFolder],
      ['--coordinator', options.coordinator, '--lease-ttl', String(options.leaseSeconds)],
      ['--nbd', `${place.address}:${ports.nbd}`, '--nbd-socket', this.socket],
      ['--api', `${place.address}:${ports.api}`],
      ['--peer', `${place.address}:${ports.peer}`, '--advertise', place.address],
    ].flat()
    const logFile = join(options.logs, `${this.name}.log`)
    const onEnd = (how: string): void => options.onEnd(this, how)
    this.program = new Program({ name: this.name, place, command, logFile, onEnd })
  }

  get dataFolder(): string {
    return join(this.#mount, 'data')
  }

  /** A filesystem of its own for the data, so that it can be full. */
  async makeDisk(mebibytes: number): Promise<void> {
    await sh('truncate', ['-s', `${mebibytes}M`, this.#image])
    await sh('mkfs.ext4', ['-q', '-m', '0', this.#image])
    await sh('mount', ['-o', 'loop', this.#image, this.#mount])
    this.#disk = true
  }

  /** Takes what is free but for `keepMebibytes`. */
  async fillDisk(keepMebibytes: number): Promise<void> {
    const { bavail, bsize } = statfsSync(this.#mount)
    const bytes = bavail * bsize - keepMebibytes * 1024 * 1024
    if (bytes > 0) await sh('fallocate', ['-l', String(bytes), this.#ballast])
  }

  freeDisk(): void {
    rmSync(this.#ballast, { force: true })
  }

  get #ballast(): string {
    return join(this.#mount, 'ballast')
  }

  async removeDisk(): Promise<void> {
    if (this.#disk) await sh('umount', [this.#mount])
    this.#disk = false
  }

  async start(extraEnv: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.program.start(/^ready /m, extraEnv)
  }

  /** Calls the REST API; throws when it does not answer in time or answers an error. */
  async api(method: string, path: string, body?: unknown, timeoutMs = 2000): Promise<unknown> {
    const answer = await fetch(`${this.#api}${path}`, {
      method,
      signal: AbortSignal.timeout(timeoutMs),
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    })
    const text = await answer.text()
    if (!answer.ok) throw new Error(`${method} ${path} at ${this.name}: ${answer.status} ${text}`)
    return text === '' ? undefined : JSON.parse(text)
  }

  async volumes(): Promise<readonly VolumeObject[]> {
    return (await this.api('GET', '/v1/volumes')) as readonly VolumeObject[]
  }
}
