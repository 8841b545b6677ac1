/** A volume attached through one host and mounted: nbdfuse, a loop device, ext4. */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { StorageHost } from './hosts.ts'
import { sh } from './shell.ts'
import { waitUntil } from '../support/waiting.ts'

const MOUNT_MS = 60_000
let counter = 0

export class MountedVolume {
  readonly host: StorageHost
  /** Where the files are. */
  readonly path: string
  readonly #fusePoint: string
  readonly #fuse: ChildProcess
  readonly #fuseEnded: Promise<void>
  /** Which life of the host's node it is attached to. */
  readonly #life: number

  private constructor(host: StorageHost, folder: string, fuse: ChildProcess) {
    this.host = host
    this.path = join(folder, 'files')
    this.#fusePoint = join(folder, 'fuse')
    this.#fuse = fuse
    this.#life = host.program.lives
    this.#fuseEnded = new Promise((resolve) => fuse.once('exit', () => resolve()))
  }

  /** Attaches; `mount` makes the files visible. */
  static async attach(volume: string, host: StorageHost, parent: string): Promise<MountedVolume> {
    // A folder of its own each time: an attachment that is stuck is in nobody's way.
    const folder = join(parent, `${volume}-${++counter}`)
    for (const name of ['fuse', 'files']) mkdirSync(join(folder, name), { recursive: true })
    const uri = `nbd+unix:///${volume}?socket=${host.socket}`
    const fuse = spawn('nbdfuse', [join(folder, 'fuse'), uri], { stdio: ['ignore', 'ignore', 'pipe'] })
    let errors = ''
    fuse.stderr.on('data', (text: Buffer) => {
      errors = (errors + text.toString()).slice(-1000)
    })
    const mounted = new MountedVolume(host, folder, fuse)
    try {
      await waitUntil(`nbdfuse through ${host.name}`, 15_000, () => {
        return fuse.exitCode === null && existsSync(join(folder, 'fuse', 'nbd'))
      })
    } catch (error) {
      await mounted.detach()
      throw new Error(`${volume} could not be attached through ${host.name}: ${errors}`, { cause: error })
    }
    return mounted
  }

  /** The node that it was attached to has died since, or is about to end. */
  get orphaned(): boolean {
    return !this.host.program.staying || this.host.program.lives !== this.#life
  }

  get #file(): string {
    return join(this.#fusePoint, 'nbd')
  }

  async makeFilesystem(): Promise<void> {
    await sh('mkfs.ext4', ['-q', '-F', this.#file], MOUNT_MS)
  }

  async mount(): Promise<void> {
    const device = await sh('losetup', ['-f', '--show', this.#file])
    try {
      await sh('mount', ['-t', 'ext4', '-o', 'errors=remount-ro', device, this.path], MOUNT_MS)
    } finally {
      // It goes with its last user, whatever becomes of us: loop devices belong to no namespace.
      await sh('losetup', ['-d', device])
    }
  }

  async unmount(): Promise<void> {
    await sh('umount', [this.path], MOUNT_MS)
  }

  /** Throws with what fsck says unless the filesystem is clean. */
  async check(): Promise<void> {
    await sh('e2fsck', ['-f', '-n', this.#file], MOUNT_MS)
  }

  async detach(): Promise<void> {
    await sh('umount', [this.#fusePoint]).catch(() => this.#fuse.kill('SIGKILL'))
    await this.#fuseEnded
  }

  /**
   * Like the loss of the host with the container: whatever was not durable is gone. The attachment goes first, so that
   * nothing of the old mount can be written any more.
   */
  async abandon(): Promise<void> {
    this.#fuse.kill('SIGKILL')
    await this.#fuseEnded
    await sh('umount', [this.path], MOUNT_MS).catch(() => sh('umount', ['-l', this.path]).catch(() => {}))
    await sh('umount', ['-l', this.#fusePoint]).catch(() => {})
  }
}
