/** Processes and temporary folders of one benchmark, and how they all go away again. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'

const LOG_BYTES = 4096
const START_MS = 60_000
const END_MS = 10_000

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>> | undefined
  /** What it is first asked by to end when the benchmark is stopped. Default: SIGKILL. */
  readonly endBy?: NodeJS.Signals | undefined
}

/** A process that runs until it is told to end. */
export class Running {
  readonly command: string
  readonly #child: ChildProcess
  readonly #ended: Promise<void>
  #stdout = ''
  #log = ''

  constructor(command: string, args: readonly string[], cwd: string, options: RunOptions) {
    this.command = command
    // A session of its own, so that Ctrl-C reaches the benchmark alone and it ends its parts in order;
    // and the parent's death signal, so that nothing outlives a benchmark that is killed.
    this.#child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', command, ...args], {
      cwd,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
    })
    this.#child.stdout?.on('data', (text: Buffer) => {
      this.#stdout += text.toString()
    })
    this.#child.stderr?.on('data', (text: Buffer) => {
      this.#log = (this.#log + text.toString()).slice(-LOG_BYTES)
    })
    this.#ended = new Promise((resolve) => {
      this.#child.once('close', () => resolve())
      this.#child.once('error', (error) => {
        this.#log += error.message
        resolve()
      })
    })
  }

  /** Throws for a process that never started. */
  get pid(): number {
    if (this.#child.pid === undefined) throw new Error(`${this.command} can't be started: ${this.#log}`)
    return this.#child.pid
  }
  get running(): boolean {
    return this.#child.pid !== undefined && this.#child.exitCode === null && this.#child.signalCode === null
  }
  get stdout(): string {
    return this.#stdout
  }
  /** The end of what it said on stderr. */
  get log(): string {
    return this.#log
  }

  /** Resolves with the exit code; null when it was ended by a signal or never started. */
  async finished(): Promise<number | null> {
    await this.#ended
    return this.#child.exitCode
  }

  /** Asks it to end, insists after a while, and resolves when it is gone. */
  async end(signal: NodeJS.Signals = 'SIGKILL', insistAfterMs = END_MS): Promise<void> {
    if (this.running) this.#child.kill(signal)
    const insist = setTimeout(() => this.#child.kill('SIGKILL'), insistAfterMs)
    await this.#ended
    clearTimeout(insist)
  }
}

export class Host {
  readonly folder = mkdtempSync(join(tmpdir(), 'holdfast-bench-'))
  readonly #undo: (() => unknown)[] = []
  #closing: Promise<void> | undefined

  /** The last one that was deferred is called first. */
  defer(undo: () => unknown): void {
    this.#undo.push(undo)
  }

  path(name: string): string {
    return join(this.folder, name)
  }

  /** Starts a server; it is killed by `close` at the latest. */
  run(command: string, args: readonly string[], options: RunOptions = {}): Running {
    if (this.#closing !== undefined) throw new Error('the benchmark is being stopped')
    const running = new Running(command, args, this.folder, options)
    this.#undo.push(() => running.end(options.endBy))
    return running
  }

  /** Runs a program of the clean-up itself and returns its output; throws when it fails. */
  async undo(command: string, args: readonly string[]): Promise<string> {
    const running = new Running(command, args, '/', {})
    const code = await running.finished()
    if (code === 0) return running.stdout
    throw new Error(`${command} ${args.join(' ')} failed (${code}): ${running.log}`)
  }

  /**
   * Runs a shell script in a process namespace of its own, and in more namespaces where `unshare` is told
   * to: daemons that leave their parent can't leave it, and end with it. The script is its first process.
   */
  contain(script: string, unshare: readonly string[] = []): Running {
    const own = ['--fork', '--pid', '--mount-proc', '--kill-child', ...unshare]
    return this.run('unshare', [...own, 'sh', '-ec', `${script}\nexec sleep infinity`])
  }

  /** Runs a program to its end and returns its output; throws with its complaint when it fails. */
  async do(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
    const running = this.run(command, args, options)
    const code = await running.finished()
    if (code === 0) return running.stdout
    throw new Error(`${command} ${args.join(' ')} failed (${code}): ${running.log}${running.stdout.slice(-1000)}`)
  }

  /** Undoes everything, the last thing first; what fails is told and the rest goes on. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    for (const undo of this.#undo.splice(0).reverse()) {
      try {
        await undo()
      } catch (error) {
        process.stderr.write(`clean-up: ${error instanceof Error ? error.message : String(error)}\n`)
      }
    }
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** Runs `body` with a host; cleans up at its end, after a failure, and on SIGINT or SIGTERM. */
export async function withHost(body: (host: Host) => Promise<void>): Promise<void> {
  const host = new Host()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    // More of them change nothing: half a clean-up is worse than a slow one.
    process.on(signal, () => {
      process.stderr.write(`${signal}: stopping everything\n`)
      void host.close().then(() => process.exit(130))
    })
  }
  try {
    await body(host)
  } finally {
    await host.close()
  }
}

/** Awaits a condition; looks at it every 20 ms, and gives up with the log of the process it waits for. */
export async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
  by?: Running,
  ms = START_MS,
): Promise<void> {
  const end = performance.now() + ms
  while (!(await holds())) {
    if (by !== undefined && !by.running) throw new Error(`${what}: ${by.command} has ended: ${by.log}`)
    if (performance.now() > end) throw new Error(`waited ${ms / 1000} s in vain for ${what}: ${by?.log ?? ''}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  return typeof address === 'object' && address !== null ? address.port : 0
}

/** The first of these programs that is not installed. */
export function firstMissing(programs: readonly string[]): string | undefined {
  const folders = (process.env['PATH'] ?? '').split(delimiter)
  return programs.find((program) => !folders.some((folder) => existsSync(join(folder, program))))
}

/** What a program says about its version: the first number of its first lines. */
export async function versionOf(program: string, args: readonly string[] = ['--version']): Promise<string> {
  try {
    const { stdout, stderr } = await promisify(execFile)(program, [...args])
    return /\d+\.\d[\w.]*/.exec(stdout + stderr)?.[0] ?? 'unknown'
  } catch {
    return 'unknown'
  }
}
