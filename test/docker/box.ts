/**
 * A host without hardware: process, mount, network, UTS and IPC namespaces with a PID 1 of their own. PID 1
 * waits for the end of its stdin: however the test ends, the kernel then ends and undoes everything inside.
 */
import {
  type ChildProcess,
  type ChildProcessByStdio,
  execFile,
  spawn,
  type SpawnOptionsWithStdioTuple,
} from 'node:child_process'
import { createWriteStream, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { Hopeless, waitUntil } from '../support/waiting.ts'

export interface CommandResult {
  /** Exit code; -1: it was killed because it took too long. */
  readonly code: number
  readonly stdout: string
  readonly stderr: string
  readonly ms: number
}

export interface BoxProcess {
  /** As the test sees it. */
  readonly pid: number
  readonly line: string
}

type Daemon = ChildProcessByStdio<null, Readable, Readable>

const OWN_NAMESPACES = ['--pid', '--mount', '--net', '--uts', '--ipc', '--mount-proc']
/** A shell as PID 1 also buries whatever is orphaned inside. */
const INIT = `
mount -t tmpfs none /run && mkdir -p /run/holdfast /run/docker/plugins /run/lock &&
hostname "$1" && ip link set lo up &&
mount --bind "$2" /proc/sys/kernel/random/boot_id && echo ready && cat > /dev/null
exit 0`

/** The only child of a process that has one; undefined before and after. */
function childOf(pid: number): number | undefined {
  try {
    const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ')
    return child === undefined || child === '' ? undefined : Number(child)
  } catch {
    return undefined
  }
}

function endedOf(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null
}

export class Box {
  readonly name: string
  /** PID 1 of the box, as the test sees it. */
  readonly pid: number
  readonly #unshare: ChildProcess
  readonly #daemons = new Set<ChildProcess>()

  private constructor(name: string, pid: number, unshare: ChildProcess) {
    this.name = name
    this.pid = pid
    this.#unshare = unshare
  }

  /** `bootId` is what the kernel says in there: each start of a host has its own. */
  static async start(name: string, folder: string, bootId: string): Promise<Box> {
    const bootFile = join(folder, `${name}.boot-id`)
    writeFileSync(bootFile, `${bootId}\n`)
    const command = ['sh', '-c', INIT, 'init', name, bootFile]
    const args = ['--fork', '--kill-child', ...OWN_NAMESPACES, ...command]
    const unshare = spawn('unshare', args, { stdio: ['pipe', 'pipe', 'pipe'] })
    unshare.stdin.on('error', () => {})
    let output = ''
    for (const stream of [unshare.stdout, unshare.stderr]) {
      stream.on('data', (text: Buffer) => (output += text.toString()))
    }
    await waitUntil(`the namespaces of ${name}`, 10_000, () => {
      if (endedOf(unshare)) throw new Hopeless(`no namespaces for ${name}: ${output}`)
      return output.includes('ready')
    })
    const pid = childOf(unshare.pid ?? 0)
    if (pid === undefined) throw new Error(`PID 1 of ${name} is not found`)
    return new Box(name, pid, unshare)
  }

  get alive(): boolean {
    return !endedOf(this.#unshare)
  }

  /** Arguments of nsenter for a command inside. */
  inside(command: readonly string[]): string[] {
    return ['-t', String(this.pid), '-a', '--', ...command]
  }

  /** Runs a command inside to its end; never throws for what it says, never longer than `timeoutMs`. */
  async run(
    command: readonly string[],
    timeoutMs = 30_000,
    env: Readonly<Record<string, string>> = {},
  ): Promise<CommandResult> {
    const start = performance.now()
    const options = { maxBuffer: 64 * 1024 * 1024, env: { ...process.env, ...env } }
    return await new Promise((resolve) => {
      const child = execFile('nsenter', this.inside(command), options, (_error, stdout, stderr) => {
        clearTimeout(late)
        resolve({ code: child.exitCode ?? -1, stdout, stderr, ms: performance.now() - start })
      })
      child.stdin?.end()
      const late = setTimeout(() => {
        const inner = childOf(child.pid ?? 0)
        if (inner !== undefined) process.kill(inner, 'SIGKILL')
        child.kill('SIGKILL')
      }, timeoutMs)
    })
  }

  /** Like `run`; its stdout, and an Error when it fails. */
  async sh(command: readonly string[], timeoutMs = 30_000): Promise<string> {
    const { code, stdout, stderr } = await this.run(command, timeoutMs)
    if (code === 0) return stdout.trim()
    const what = command.join(' ').slice(0, 200)
    throw new Error(`${what} failed on ${this.name} (${code}): ${stderr.slice(-1000)}`)
  }

  /** Everything that runs inside, containers included, but PID 1 and its `cat`. */
  processes(): BoxProcess[] {
    const namespace = readlinkSync(`/proc/${this.pid}/ns/pid`)
    const all = readdirSync('/proc').flatMap((entry) => processOf(entry))
    const inside = new Set(all.filter((one) => one.namespace === namespace).map(({ pid }) => pid))
    // Containers have namespaces of their own below.
    for (let before = -1; before !== inside.size; ) {
      before = inside.size
      for (const { pid, parent } of all) if (inside.has(parent)) inside.add(pid)
    }
    return all.filter(({ pid, line }) => inside.has(pid) && pid !== this.pid && line !== '' && line !== 'cat')
  }

  /** Mount points inside, in their order. */
  mounts(): string[] {
    const text = readFileSync(`/proc/${this.pid}/mountinfo`, 'utf8')
    return text.split('\n').flatMap((line) => line.split(' ')[4] ?? [])
  }

  /** Starts a daemon inside: the parent of its process, outside. */
  spawn(command: readonly string[], options: SpawnOptionsWithStdioTuple<'ignore', 'pipe', 'pipe'>): Daemon {
    const child = spawn('nsenter', this.inside(command), options)
    this.#daemons.add(child)
    child.once('exit', () => this.#daemons.delete(child))
    return child
  }

  /** SIGKILL to PID 1; resolves when nothing of it runs any more. */
  async kill(): Promise<void> {
    if (!this.alive) return
    const ended = new Promise((resolve) => this.#unshare.once('exit', resolve))
    process.kill(this.pid, 'SIGKILL')
    // One that was frozen would leave its dead child unburied, and the namespaces with it.
    for (const child of this.#daemons) child.kill('SIGCONT')
    const late = setTimeout(() => this.#unshare.kill('SIGKILL'), 20_000)
    await ended
    clearTimeout(late)
  }
}

/** An entry of /proc; nothing if it is none, or has ended. */
function processOf(entry: string): (BoxProcess & { readonly namespace: string; readonly parent: number })[] {
  if (!/^\d+$/.test(entry)) return []
  try {
    const line = readFileSync(`/proc/${entry}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()
    const parent = /^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${entry}/status`, 'utf8'))?.[1]
    const namespace = readlinkSync(`/proc/${entry}/ns/pid`)
    return [{ pid: Number(entry), line, namespace, parent: Number(parent) }]
  } catch {
    return []
  }
}

/** A daemon in a box, with its log in a file; it may be ended and started again. */
export class BoxProgram {
  readonly name: string
  readonly logFile: string
  #nsenter: ChildProcess | undefined
  #pid: number | undefined
  #output = ''

  constructor(name: string, logFile: string) {
    this.name = name
    this.logFile = logFile
  }

  get running(): boolean {
    return this.#nsenter !== undefined && !endedOf(this.#nsenter)
  }

  get pid(): number {
    if (this.#pid === undefined || !this.running) throw new Error(`${this.name} does not run`)
    return this.#pid
  }

  /** Resolves when `serves` says so. */
  async start(
    box: Box,
    command: readonly string[],
    serves: (output: string) => boolean | Promise<boolean>,
    env: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    const log = createWriteStream(this.logFile, { flags: 'a' })
    const child = box.spawn(command, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    })
    this.#nsenter = child
    this.#output = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.pipe(log, { end: false })
      stream.on('data', (text: Buffer) => {
        if (this.#output.length < 1 << 18) this.#output += text.toString()
      })
    }
    child.once('exit', () => log.end())
    await waitUntil(`${this.name} to serve`, 60_000, async () => {
      if (endedOf(child)) throw new Hopeless(`${this.name} ended: ${this.#output.slice(-2000)}`)
      this.#pid ??= childOf(child.pid ?? 0)
      return await serves(this.#output)
    })
    // What serves has a process: nsenter has made it by now.
    this.#pid = childOf(child.pid ?? 0)
  }

  signal(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal)
    // nsenter stops with its child, and has to go on to bury it.
    if (signal === 'SIGCONT') this.#nsenter?.kill(signal)
  }

  /** Ends it; resolves when it is gone, after `killAfterMs` by SIGKILL. */
  async stop(signal: 'SIGKILL' | 'SIGTERM' = 'SIGKILL', killAfterMs = 40_000): Promise<void> {
    const child = this.#nsenter
    if (child === undefined || endedOf(child)) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    const pid = this.#pid ?? childOf(child.pid ?? 0)
    if (pid === undefined) child.kill('SIGKILL')
    else process.kill(pid, signal)
    child.kill('SIGCONT')
    const late = setTimeout(() => pid !== undefined && process.kill(pid, 'SIGKILL'), killAfterMs)
    await ended
    clearTimeout(late)
    this.#pid = undefined
  }

  tail(lines = 40): string {
    try {
      return readFileSync(this.logFile, 'utf8').split('\n').slice(-lines).join('\n')
    } catch {
      return ''
    }
  }
}

/** Runs a command of the test's own namespaces; its stdout. Throws with what it said. */
export async function command(program: string, ...args: readonly string[]): Promise<string> {
  return await new Promise((resolve, reject) => {
    execFile(program, [...args], { timeout: 30_000, maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout.trim())
      else reject(new Error(`${program} ${args.join(' ').slice(0, 200)} failed: ${stderr.slice(-1000)}`))
    })
  })
}

/** Loop devices on files below a folder, whichever namespace made them: they belong to none. */
export async function loopDevices(folder: string): Promise<string[]> {
  const lines = await command('losetup', '--list', '--noheadings', '--output', 'NAME,BACK-FILE')
  return lines.split('\n').filter((line) => line.includes(`${folder}/`))
}

export { waitUntil }
