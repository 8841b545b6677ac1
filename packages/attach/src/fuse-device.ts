/** A loop device over nbdfuse over the proxy; lives in the keeper. */
import { type ChildProcess, type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { mkdir, rmdir } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { HoldfastError } from '@holdfast/base'
import { commandEnvironment, run, runOrFail } from './command.ts'
import { type Gate, sleep } from './gate.ts'
import { FUSE_FOLDER, type KeeperSpec, PROXY_SOCKET } from './keeper-protocol.ts'
import { type KeptDevice, requireUnused } from './kept-device.ts'
import { NbdProxy } from './nbd-proxy.ts'

const START_MS_MAX = 15_000
const RELEASE_MS_MAX = 5_000

/**
 * Relative paths are inside the keeper's folder, which is its working directory: socket paths have to be
 * short.
 */
export class FuseDevice implements KeptDevice {
  readonly #proxy: NbdProxy
  readonly #log: (text: string) => void
  #fuse: ChildProcess | undefined
  #loop: HeldLoop | undefined
  #stopping = false
  #tellGone: () => void = () => undefined
  readonly gone: Promise<void>

  constructor(spec: KeeperSpec, gate: Gate, log: (text: string) => void) {
    this.#log = log
    rmSync(PROXY_SOCKET, { force: true })
    const exportName = `${spec.namespace}/${spec.name}`
    this.#proxy = new NbdProxy({ nbdSocket: spec.nbdSocket, exportName, listenPath: PROXY_SOCKET, gate, log })
    this.gone = new Promise((resolve) => (this.#tellGone = resolve))
  }

  async start(): Promise<string> {
    try {
      await this.#proxy.open()
      await this.#startFuse()
      return await this.#startLoop()
    } catch (error) {
      await this.stop(true)
      throw error
    }
  }

  fail(): void {
    this.#proxy.fail()
  }

  async #startFuse(): Promise<void> {
    await mkdir(FUSE_FOLDER, { recursive: true })
    const args = [resolve(FUSE_FOLDER), '--unix', PROXY_SOCKET]
    const fuse = spawn('nbdfuse', args, { stdio: ['ignore', 'inherit', 'inherit'], env: commandEnvironment })
    this.#fuse = fuse
    let failure: string | undefined
    fuse.once('error', (error) => (failure = error.message))
    fuse.once('exit', (code, signal) => {
      failure ??= `exit ${signal ?? code}`
      this.#log(`nbdfuse ended: ${failure}`)
      if (!this.#stopping) this.#tellGone()
    })
    const end = Date.now() + START_MS_MAX
    while (!existsSync(`${FUSE_FOLDER}/nbd`)) {
      if (failure !== undefined) throw new HoldfastError('HF_IO', `nbdfuse did not start: ${failure}`)
      if (Date.now() > end) throw new HoldfastError('HF_TIMEOUT', 'nbdfuse did not start in time')
      await sleep(10)
    }
  }

  async #startLoop(): Promise<string> {
    const args = ['--find', '--show', '--direct-io=on', `${FUSE_FOLDER}/nbd`]
    const path = (await runOrFail('losetup', args)).trim()
    this.#loop = await holdOpen(path)
    // Only marks it: the device goes with its last user, of whom this process is one. Nothing outlives a dead
    // host.
    await runOrFail('losetup', ['--detach', path])
    return path
  }

  async stop(force: boolean): Promise<void> {
    if (this.#loop !== undefined) await this.#releaseLoop(this.#loop, force)
    this.#stopping = true
    this.#proxy.fail()
    if (existsSync(FUSE_FOLDER)) {
      await this.#stopFuse(force)
      await rmdir(FUSE_FOLDER).catch(() => undefined)
    }
    this.#proxy.close()
    rmSync(PROXY_SOCKET, { force: true })
  }

  async #releaseLoop(loop: HeldLoop, force: boolean): Promise<void> {
    if (!force) await requireUnused(loop.path)
    loop.holder.stdin.end()
    this.#loop = undefined
    const end = Date.now() + RELEASE_MS_MAX
    while (isLoopOf(loop.path, resolve(FUSE_FOLDER))) {
      if (Date.now() > end) {
        this.#log(`${loop.path} is still open somewhere`)
        if (force) return
        this.#loop = await holdOpen(loop.path)
        throw new HoldfastError(
          'HF_CONFLICT',
          `${loop.path} is still open somewhere: see fuser -v ${loop.path}`,
        )
      }
      await sleep(10)
    }
  }

  async #stopFuse(force: boolean): Promise<void> {
    const fuse = this.#fuse
    const ended = fuse === undefined || fuse.exitCode !== null || fuse.signalCode !== null
    const exit = ended ? undefined : once(fuse, 'exit')
    const unmounted = await run('umount', [FUSE_FOLDER])
    if (unmounted.code !== 0 && !ended) await run('umount', ['--lazy', FUSE_FOLDER])
    if (exit === undefined) return
    const timer = setTimeout(() => fuse?.kill('SIGKILL'), force ? 500 : RELEASE_MS_MAX)
    await exit
    clearTimeout(timer)
  }
}

interface HeldLoop {
  readonly path: string
  readonly holder: ChildProcessByStdio<Writable, Readable, null>
}

/**
 * Keeps the device open, in a process that ends with this one. Not here: the last one to close it waits for
 * what is not written yet, and this process has to write it.
 */
async function holdOpen(path: string): Promise<HeldLoop> {
  const script = 'exec 3< "$0" && echo open && exec cat > /dev/null'
  const options = {
    env: commandEnvironment,
    stdio: ['pipe', 'pipe', 'inherit'] as ['pipe', 'pipe', 'inherit'],
  }
  const holder = spawn('sh', ['-c', script, path], options)
  holder.stdin.on('error', () => undefined)
  const isOpen = await Promise.race([once(holder.stdout, 'data'), once(holder, 'exit').then(() => undefined)])
  if (isOpen === undefined) throw new HoldfastError('HF_IO', `${path} could not be opened`)
  return { path, holder }
}

/** True while the loop device serves a file in that folder. */
function isLoopOf(device: string, folder: string): boolean {
  try {
    return readFileSync(`/sys/block/${basename(device)}/loop/backing_file`, 'utf8').startsWith(folder)
  } catch {
    return false
  }
}
