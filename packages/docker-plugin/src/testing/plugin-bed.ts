/** A plugin on a socket of its own, with a cluster and mounts that exist only in memory: for tests. */
import { mkdtempSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FakeCluster, FakeMounts } from '@holdfast/api/testing'
import type { EventLog, VolumeView } from '@holdfast/base'
import { type DockerPlugin, type DriverSettings, startDockerPlugin } from '../index.ts'

export class Cluster extends FakeCluster {
  /** How often all volumes were asked for. */
  looks = 0

  override volumes(): readonly VolumeView[] {
    this.looks++
    return super.volumes()
  }

  record(namespace: string, name: string): VolumeView['record'] {
    const view = this.volume(namespace, name)
    if (view === undefined) throw new Error(`there is no ${namespace}/${name}`)
    return view.record
  }
}

export interface Answer {
  readonly status: number
  readonly Err?: string
  readonly [field: string]: unknown
}

const HOLDER = `
  const [, path] = process.argv
  require('fs').rmSync(path, { force: true })
  require('net').createServer().listen(path, () => {
    console.log('listens')
    process.exit(0)
  })
`

export class PluginBed {
  readonly folder = mkdtempSync(join(tmpdir(), 'holdfast-plugin-'))
  /** What Docker finds. */
  readonly socketPath = join(this.folder, 'plugins', 'holdfast.sock')
  readonly nodeSocketPath = join(this.folder, 'node', 'docker.sock')
  /** The program that holds Docker's socket: here one that leaves it there and ends; calls go to the node's. */
  programArguments: (name: string, from: string) => readonly string[] = () => ['-e', HOLDER]
  readonly cluster = new Cluster()
  readonly mounts = new FakeMounts(join(this.folder, 'mounts'))
  readonly logged: string[] = []
  readonly events: EventLog = {
    event: (level, message, fields) => this.logged.push(`${level} ${message} ${JSON.stringify(fields)}`),
  }
  ready: () => Promise<unknown> = async () => undefined
  /** Of every start. */
  readonly frontPids: number[] = []
  #plugin: DockerPlugin | undefined

  async start(settings: Partial<DriverSettings> = {}): Promise<this> {
    const { socketPath, nodeSocketPath, programArguments, cluster: admin, mounts, events } = this
    this.#plugin = await startDockerPlugin({
      ...{ socketPath, nodeSocketPath, programArguments, admin, mounts, events, settings },
      ready: () => this.ready(),
    })
    this.frontPids.push(this.#plugin.frontPid)
    return this
  }

  /** Who holds the socket now. */
  get frontPid(): number {
    return this.#plugin?.frontPid ?? 0
  }

  /** The node process ends; what it mounted stays. */
  async stop(): Promise<void> {
    await this.#plugin?.close()
    this.#plugin = undefined
  }

  async close(): Promise<void> {
    await this.stop()
    rmSync(this.folder, { recursive: true })
  }

  /** A call as Docker makes it. */
  call(name: string, body: object = {}): Promise<Answer> {
    return this.send(`/${name.includes('.') ? name : `VolumeDriver.${name}`}`, JSON.stringify(body))
  }

  send(path: string, body: string, socketPath: string = this.nodeSocketPath): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const headers = { accept: 'application/vnd.docker.plugins.v1.2+json' }
      // A connection for each call: one that is kept would be of the plugin before.
      const options = { socketPath, path, method: 'POST', headers, agent: false }
      const call = request(options, (response) => {
        const parts: Buffer[] = []
        response.on('data', (part: Buffer) => parts.push(part))
        response.on('error', reject)
        response.on('end', () => {
          const fields = JSON.parse(Buffer.concat(parts).toString()) as object
          resolve({ status: response.statusCode ?? 0, ...fields })
        })
      })
      call.on('error', reject)
      call.end(body)
    })
  }

  /** The sentence of a refusal; fails if there is none. */
  async refusal(name: string, body: object): Promise<string> {
    const { status, Err } = await this.call(name, body)
    if (status !== 500 || Err === undefined || Err === '') {
      throw new Error(`${name} was not refused: ${status}`)
    }
    if (/undefined|\[object|HF_|\n/.test(Err)) throw new Error(`${Err} is nothing to read`)
    return Err
  }

  path(name: string, namespace = 'default'): string {
    return join(this.folder, 'mounts', namespace, name, 'data')
  }

  users(name: string): readonly string[] {
    return this.mounts.list().find((one) => one.name === name)?.mountIds ?? []
  }
}

/** A promise to be resolved by hand. */
export function gate(): { readonly opened: Promise<void>; readonly open: () => void } {
  let open = (): void => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  return { opened, open: () => open() }
}
