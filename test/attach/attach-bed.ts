/** A node with its NBD socket, and `VolumeMounts` on it in this process; everything is gone afterwards. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  type ClosableVolumeMounts,
  openVolumeMounts,
  type VolumeMountsOptions,
} from '../../packages/attach/src/index.ts'
import {
  type AttachmentDesk,
  type AttachmentRight,
  HoldfastError,
  type MountRequest,
  type NodeId,
  volumeId,
} from '../../packages/base/src/index.ts'
import { TestNode } from '../e2e/harness.ts'
import { waitUntil } from '../support/waiting.ts'

const PROGRAM = new URL('../../packages/cli/bin/holdfast.js', import.meta.url).pathname

export const sh = (command: string, ...args: string[]): string =>
  execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim()

/** Why tests with real mounts can't run here; undefined if they can. */
export function whyNot(): string | undefined {
  if (process.getuid?.() !== 0) return 'mounting needs root'
  for (const device of ['/dev/fuse', '/dev/loop-control'])
    if (!existsSync(device)) return `there is no ${device}`
  return undefined
}

/** One holder a volume, in memory. */
export class FakeDesk implements AttachmentDesk {
  readonly held = new Map<string, string>()
  readonly host: string
  /** Of all hosts. */
  readonly holders: Map<string, string>
  claims = 0
  /** Of the last claim that took a right. */
  generation = 0

  constructor(host = 'here', holders = new Map<string, string>()) {
    this.host = host
    this.holders = holders
  }
  async claim(namespace: string, name: string): Promise<AttachmentRight> {
    this.claims++
    const key = `${namespace}/${name}`
    const holder = this.holders.get(key)
    if (holder !== undefined && holder !== this.host) {
      throw new HoldfastError('HF_CONFLICT', `volume ${key} is attached on ${holder}`)
    }
    if (holder === undefined) this.generation++
    this.holders.set(key, this.host)
    return { volume: volumeId('00112233445566aa'), generation: this.generation }
  }
  async reconfirm(namespace: string, name: string, right: AttachmentRight | undefined): Promise<AttachmentRight> {
    this.claims++
    const key = `${namespace}/${name}`
    if (this.holders.get(key) !== this.host || (right !== undefined && right.generation !== this.generation)) {
      throw new HoldfastError('HF_CONFLICT', `volume ${key} was somebody else's meanwhile`)
    }
    return { volume: volumeId('00112233445566aa'), generation: this.generation }
  }
  async rights(): Promise<readonly { readonly namespace: string; readonly name: string }[]> {
    const ours = [...this.holders].filter(([, host]) => host === this.host)
    return ours.map(([key]) => key.split('/') as [string, string]).map(([namespace, name]) => ({ namespace, name }))
  }
  async release(namespace: string, name: string): Promise<void> {
    const key = `${namespace}/${name}`
    if (this.holders.get(key) === this.host) this.holders.delete(key)
  }
  holder(namespace: string, name: string): NodeId | undefined {
    return this.holders.get(`${namespace}/${name}`) as NodeId | undefined
  }
}

export class AttachBed {
  readonly folder = mkdtempSync(join(tmpdir(), 'holdfast-attach-'))
  readonly desk = new FakeDesk()
  readonly events: string[] = []
  readonly socket = join(this.folder, 'nbd.sock')
  readonly stateDir = join(this.folder, 'state')
  readonly mountRoot = join(this.folder, 'mounts')
  readonly #open: ClosableVolumeMounts[] = []
  node!: TestNode

  static async start(): Promise<AttachBed> {
    const bed = new AttachBed()
    const ports = await freePorts(3)
    const [nbd, api, peer] = ports.map((port) => `127.0.0.1:${port}`) as [string, string, string]
    const args = ['node', '--name', 'a', '--data-dir', join(bed.folder, 'a'), '--coordinator', 'embedded']
    bed.node = new TestNode('a', [
      ...args,
      '--nbd',
      nbd,
      '--api',
      api,
      '--peer',
      peer,
      '--nbd-socket',
      bed.socket,
    ])
    await bed.node.start()
    return bed
  }

  async createVolume(name: string, size = '256MiB'): Promise<void> {
    sh(
      process.execPath,
      PROGRAM,
      'volume',
      'create',
      name,
      '--size',
      size,
      '--replicas',
      '1',
      '--api',
      this.node.api,
    )
  }

  async open(options: Partial<VolumeMountsOptions> = {}): Promise<ClosableVolumeMounts> {
    const mounts = await openVolumeMounts({
      desk: this.desk,
      nbdSocket: this.socket,
      stateDir: this.stateDir,
      mountRoot: this.mountRoot,
      bootId: 'boot-1',
      events: {
        event: (level, message, fields) => this.events.push(`${level} ${message} ${JSON.stringify(fields)}`),
      },
      timings: { lingerMs: 200, claimPatienceMs: 500 },
      ...options,
    })
    this.#open.push(mounts)
    return mounts
  }

  request(name: string, mountId: string, more: Partial<MountRequest> = {}): MountRequest {
    const defaults = { fileSystem: 'ext4', mkfsOptions: [], mountOptions: [], readOnly: false } as const
    return { namespace: 'default', name, mountId, ...defaults, ...more }
  }

  /** Mounts, loop devices, processes and sockets of this bed. */
  remnants(): string[] {
    const inFolder = (text: string): boolean => text.includes(this.folder)
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n').filter(inFolder)
    const loops = sh('losetup', '--list', '--noheadings', '--output', 'NAME,BACK-FILE')
      .split('\n')
      .filter(inFolder)
    const keepers = join(this.stateDir, 'keepers')
    const folders = existsSync(keepers) ? readdirSync(keepers) : []
    return [...mounts, ...loops, ...this.processes().map(({ line }) => line), ...folders]
  }

  /** Waits until everything of the bed is gone but the node. */
  nothingLeft(): Promise<void> {
    return waitUntil('nothing to be left', 8_000, () => {
      const left = this.remnants()
      if (left.length > 0) throw new Error(left.join('\n'))
      return true
    })
  }

  /** Processes that work for this bed, the node itself excepted. */
  processes(): { readonly pid: number; readonly line: string }[] {
    return readdirSync('/proc').flatMap((pid) => {
      if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return []
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
        const isOurs =
          line.includes(this.stateDir) || readFileSync(`/proc/${pid}/environ`, 'utf8').includes(this.stateDir)
        return isOurs ? [{ pid: Number(pid), line }] : []
      } catch {
        return []
      }
    })
  }

  async close(): Promise<void> {
    for (const mounts of this.#open) await mounts.close({ keepMounted: false }).catch(() => undefined)
    for (const { pid } of this.processes()) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {}
    }
    await this.node.stop()
    const ours = readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[4] ?? '')
    for (const path of ours.filter((path) => path.startsWith(this.folder)).toReversed())
      sh('umount', '--lazy', path)
    rmSync(this.folder, { recursive: true, force: true })
  }
}

async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer()
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      return server
    }),
  )
  const ports = servers.map((server) => (server.address() as AddressInfo).port)
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}
