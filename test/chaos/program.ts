/** A process in a place, with its log in a file; it may be ended and started again. */
import { type ChildProcess, spawn } from 'node:child_process'
import { appendFileSync, createWriteStream, type WriteStream } from 'node:fs'
import { enter, type Place } from './network.ts'
import { sleep } from '../support/waiting.ts'

const running = new Set<ChildProcess>()
// Without namespaces nobody else ends them.
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

export interface ProgramOptions {
  readonly name: string
  readonly place: Place
  readonly command: readonly string[]
  readonly logFile: string
  /** Called when it ends and `stop` did not ask for that. */
  readonly onEnd: (how: string) => void
}

export class Program {
  readonly #options: ProgramOptions
  #child: ChildProcess | undefined
  #log: WriteStream | undefined
  #output = ''
  #stopping = false
  /** Times that it was started. */
  lives = 0

  constructor(options: ProgramOptions) {
    this.#options = options
  }

  get running(): boolean {
    return this.#child !== undefined
  }

  /** It runs, and nobody has told it to end. */
  get staying(): boolean {
    return this.#child !== undefined && !this.#stopping
  }

  /** `pattern` on stdout says that it serves; `extraEnv` is for this life only. */
  async start(pattern?: RegExp, extraEnv: Readonly<Record<string, string>> = {}): Promise<void> {
    const { place, command, logFile, name } = this.#options
    const line = place.namespace === undefined ? command : ['nsenter', ...enter(place), ...command]
    const [program = '', ...args] = line
    this.#note('starts')
    this.#log = createWriteStream(logFile, { flags: 'a' })
    const env = { ...process.env, ...extraEnv }
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env })
    this.#child = child
    this.#output = ''
    this.#stopping = false
    this.lives++
    running.add(child)
    for (const stream of [child.stdout, child.stderr]) stream.pipe(this.#log, { end: false })
    child.stdout.on('data', (text: Buffer) => {
      if (this.#output.length < 65_536) this.#output += text.toString()
    })
    child.once('error', () => this.#ended(child, 'could not be started'))
    child.once('exit', (code, signal) => this.#ended(child, `code ${code}, signal ${signal}`))
    const end = performance.now() + 30_000
    while (pattern !== undefined && !pattern.test(this.#output)) {
      if (this.#child !== child) throw new Error(`${name} ended instead of serving: see ${logFile}`)
      if (performance.now() > end) throw new Error(`${name} did not serve within 30 s: see ${logFile}`)
      await sleep(25)
    }
  }

  signal(signal: NodeJS.Signals): void {
    this.#note(signal)
    this.#child?.kill(signal)
  }

  /** Ends it; resolves when it is gone, and with whether it had to be killed. */
  async stop(signal: 'SIGKILL' | 'SIGTERM', killAfterMs = 40_000): Promise<boolean> {
    const child = this.#child
    if (child === undefined) return false
    this.#stopping = true
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
    this.#note(signal)
    child.kill('SIGCONT')
    child.kill(signal)
    let killed = false
    const late = setTimeout(() => {
      killed = true
      child.kill('SIGKILL')
    }, killAfterMs)
    await ended
    clearTimeout(late)
    return killed
  }

  #ended(child: ChildProcess, how: string): void {
    running.delete(child)
    if (this.#child !== child) return
    this.#child = undefined
    this.#note(`ended: ${how}`)
    if (!this.#stopping) this.#options.onEnd(how)
  }

  #note(text: string): void {
    appendFileSync(this.#options.logFile, `--- chaos ${new Date().toISOString()}: ${text}\n`)
  }
}
