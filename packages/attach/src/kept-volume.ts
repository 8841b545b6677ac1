/** One keeper process as the node sees it: its folder, its link, its device. */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { closeSync, openSync } from 'node:fs'
import { mkdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type FileSystem, HoldfastError } from '@holdfast/base'
import { run } from './command.ts'
import { sleep } from './gate.ts'
import { KeeperLink } from './keeper-link.ts'
import {
  CONTROL_SOCKET,
  FUSE_FOLDER,
  type KeeperSpec,
  LOG_FILE,
  type Prepared,
  PROXY_SOCKET,
  SPEC_FILE,
} from './keeper-protocol.ts'
import { programArguments } from './script.ts'

const START_MS_MAX = 20_000

/** Where keepers of a volume live: short, whatever the names are. */
export function keeperFolder(stateDir: string, namespace: string, name: string): string {
  const hash = createHash('sha256').update(`${namespace}/${name}`).digest('hex').slice(0, 16)
  return join(stateDir, 'keepers', hash)
}

export class KeptVolume {
  readonly device: string
  readonly folder: string
  readonly #link: KeeperLink

  private constructor(folder: string, device: string, link: KeeperLink) {
    this.folder = folder
    this.device = device
    this.#link = link
  }

  /**
   * Starts a keeper and waits for its device; leaves nothing if that fails. One that adopts is not confirmed
   * yet.
   */
  static async start(folder: string, spec: KeeperSpec): Promise<KeptVolume> {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    await writeFile(join(folder, SPEC_FILE), JSON.stringify(spec))
    try {
      const link = await startKeeper(folder)
      if (spec.adoptDevice === undefined) await link.ask({ do: 'confirm' })
      try {
        const { device } = await link.ask({ do: 'device' })
        if (device !== undefined) return new KeptVolume(folder, device, link)
        throw new HoldfastError('HF_IO', 'the keeper named no device')
      } catch (error) {
        await link.ask({ do: 'detach', force: true }).catch(() => undefined)
        await link.closed
        throw error
      }
    } catch (error) {
      await removeKeeperFolder(folder)
      throw error
    }
  }

  /** The keeper that runs there; undefined if none does. One that has no device yet is ended. */
  static async find(folder: string): Promise<KeptVolume | undefined> {
    let link: KeeperLink
    try {
      link = await KeeperLink.connect(folder)
    } catch {
      return undefined
    }
    try {
      const { device } = await link.ask({ do: 'status' })
      if (device !== undefined) return new KeptVolume(folder, device, link)
      await link.ask({ do: 'detach', force: true })
      await link.closed
    } catch {
      // It ends already; the caller cleans up.
    }
    return undefined
  }

  get ended(): Promise<void> {
    return this.#link.closed
  }
  async confirm(): Promise<void> {
    await this.#link.ask({ do: 'confirm' })
  }
  async fail(): Promise<void> {
    await this.#link.ask({ do: 'lost' })
  }
  async prepare(fileSystem: FileSystem, mkfsOptions: readonly string[]): Promise<Prepared> {
    const { prepared } = await this.#link.ask({ do: 'prepare', fileSystem, mkfsOptions })
    if (prepared === undefined) throw new HoldfastError('HF_IO', 'the keeper did not say what it prepared')
    return prepared
  }
  /** @throws HoldfastError HF_CONFLICT if the device is in use and `force` is false. */
  async end(force: boolean): Promise<void> {
    try {
      await this.#link.ask({ do: 'detach', force })
    } catch (error) {
      // With force, what is left of a keeper that was killed is taken away all the same.
      if (!force) throw error
      this.#link.close()
    }
    await this.#link.closed
    await removeKeeperFolder(this.folder)
  }
  /** Lets go without ending it. */
  release(): void {
    this.#link.close()
  }
}

async function startKeeper(folder: string): Promise<KeeperLink> {
  const log = openSync(join(folder, LOG_FILE), 'a', 0o600)
  const keeper = spawn(process.execPath, [...programArguments('keeper-main', import.meta.url), folder], {
    cwd: '/',
    detached: true,
    stdio: ['ignore', log, log],
    // Nothing of the node's own settings: options of a debugger among them.
    env: { ...process.env, NODE_OPTIONS: '' },
  })
  closeSync(log)
  let ended = false
  keeper.once('error', () => (ended = true))
  keeper.once('exit', () => (ended = true))
  keeper.unref()
  for (const end = Date.now() + START_MS_MAX; ;) {
    try {
      return await KeeperLink.connect(folder)
    } catch {
      await sleep(10)
    }
    if (!ended && Date.now() < end) continue
    const said = await readFile(join(folder, LOG_FILE), 'utf8').catch(() => '')
    if (!ended && keeper.pid !== undefined) process.kill(keeper.pid, 'SIGKILL')
    throw new HoldfastError('HF_IO', `the keeper of the device did not start: ${said.trim().slice(-500)}`)
  }
}

/** Removes what a keeper leaves; what it left mounted if it was killed, too. */
export async function removeKeeperFolder(folder: string): Promise<void> {
  const device = join(folder, FUSE_FOLDER)
  // Never a recursive removal: that folder would be a mounted device.
  if ((await rmdir(device).catch((error: NodeJS.ErrnoException) => error.code)) === 'EBUSY') {
    await run('umount', ['--lazy', device])
    await rmdir(device).catch(() => undefined)
  }
  for (const file of [CONTROL_SOCKET, PROXY_SOCKET, SPEC_FILE, LOG_FILE])
    await rm(join(folder, file), { force: true })
  await rmdir(folder).catch(() => undefined)
}
