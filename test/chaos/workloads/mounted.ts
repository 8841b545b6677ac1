/** A program that works on a mounted volume, moved between hosts and verified after every fault. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { StorageHost } from '../hosts.ts'
import type { Stream } from '../journal.ts'
import { MountedVolume } from '../mounted-volume.ts'
import { message } from '../shell.ts'
import { sleep, waitUntil } from '../../support/waiting.ts'
import type { Workload, WorkloadContext } from './workload.ts'

const PYTHON = '/usr/bin/python3'
const VERIFY_MS = 60_000
const MOVE_MS = 60_000

/** What distinguishes the programs. */
export interface MountedProgram {
  readonly name: string
  readonly script: string
  readonly sizeBytes: number
  readonly replicas: number
  /** The program said a line: `c T NUMBER …` or another of its own. */
  line(words: readonly string[]): void
  /** Number at which it goes on. */
  next(): number
  /** What the verifier gets on stdin. */
  acknowledged(): string
}

export class MountedWorkload implements Workload {
  readonly name: string
  readonly volume: string
  readonly #context: WorkloadContext
  readonly #program: MountedProgram
  readonly #stream: Stream
  #mounted: MountedVolume | undefined
  #writer: ChildProcess | undefined
  #writerEnded: Promise<void> = Promise.resolve()
  #watch: NodeJS.Timeout | undefined
  /** The host's node died under it: the container is being started elsewhere, or could not be. */
  #moving: Promise<void> | undefined
  #ending = false

  constructor(context: WorkloadContext, program: MountedProgram) {
    this.name = program.name
    this.volume = program.name
    this.#context = context
    this.#program = program
    this.#stream = context.journal.stream(this.name, 'program')
  }

  async start(): Promise<void> {
    const { cluster, dice, folder } = this.#context
    await cluster.createVolume(this.volume, this.#program.sizeBytes, this.#program.replicas)
    const mounted = await MountedVolume.attach(this.volume, dice.pick(cluster.hosts), folder)
    await mounted.makeFilesystem()
    await mounted.mount()
    this.#goOn(mounted)
    this.#watch = setInterval(() => this.#look(), 200)
  }

  #startWriter(mounted: MountedVolume): void {
    const { seed, journal } = this.#context
    const { host, path } = mounted
    const args = [this.#program.script, 'write', path, String(seed), String(this.#program.next())]
    const child = spawn(PYTHON, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    this.#stream.host = host.name
    this.#writer = child
    child.stdin.on('error', () => {})
    child.stderr.on('data', (text: Buffer) => journal.say(`  ${this.name}: ${text.toString().trim()}`))
    createInterface({ input: child.stdout }).on('line', (line) => {
      const words = line.split(' ')
      this.#program.line(words)
      if (words[0] === 'c') this.#stream.answered(journal.secondsOf(Number(words[1])))
      if (words[0] === 'x') this.#refused(mounted, words.slice(2).join(' '))
    })
    this.#writerEnded = new Promise((resolve) => {
      child.once('close', () => {
        if (this.#writer === child) this.#writer = undefined
        resolve()
      })
    })
  }

  /** An error of the filesystem is right only when the node under the mount has died. */
  #refused(mounted: MountedVolume, text: string): void {
    // The process may have ended a moment before we are told.
    setTimeout(() => {
      if (this.#ending || this.#moving !== undefined || this.#mounted !== mounted || mounted.orphaned) return
      const { name } = mounted.host
      this.#context.journal.violation(`${this.name} got an error from its filesystem through ${name}: ${text}`)
    }, 500)
  }

  /** A dead node takes its attachments with it: what was there starts elsewhere. */
  #look(): void {
    const mounted = this.#mounted
    if (this.#ending || this.#moving !== undefined || mounted?.orphaned !== true) return
    this.#moving = this.#restartElsewhere(mounted).then(
      () => {
        this.#moving = undefined
      },
      (error: unknown) => {
        this.#moving = undefined
        this.#context.journal.violation(`${this.name} could not be started elsewhere: ${message(error)}`)
      },
    )
  }

  async #restartElsewhere(old: MountedVolume): Promise<void> {
    const { cluster, dice, journal } = this.#context
    await this.#killWriter()
    await old.abandon()
    this.#mounted = undefined
    const end = performance.now() + MOVE_MS
    for (let from = old.host; !this.#ending; ) {
      const alive = cluster.hosts.filter((host) => host !== from && host.program.staying)
      const host = dice.pick(alive.length > 0 ? alive : cluster.hosts)
      try {
        const mounted = await this.#mountThrough(host)
        const wrong = await this.#wrongOn(mounted)
        if (!mounted.orphaned) {
          this.#tell(wrong, host)
          journal.note(`${this.name} moved from ${old.host.name} to ${host.name}`)
          this.#goOn(mounted)
          return
        }
        // That node died too: what was read through it says nothing.
        await mounted.abandon()
        from = host
      } catch (error) {
        if (performance.now() > end) throw error
        await sleep(500)
      }
    }
  }

  async #mountThrough(host: StorageHost): Promise<MountedVolume> {
    const mounted = await MountedVolume.attach(this.volume, host, this.#context.folder)
    try {
      await mounted.mount()
      return mounted
    } catch (error) {
      await mounted.abandon()
      throw error
    }
  }

  #goOn(mounted: MountedVolume): void {
    this.#mounted = mounted
    this.#startWriter(mounted)
  }

  #tell(wrong: readonly string[], host: StorageHost): void {
    if (wrong.length === 0) return
    const some = wrong.slice(0, 5).join('; ')
    this.#context.journal.violation(`${this.name} through ${host.name}: ${wrong.length} things are wrong: ${some}`)
  }

  /** What the verifier finds. */
  async #wrongOn(mounted: MountedVolume): Promise<readonly string[]> {
    const args = [this.#program.script, 'verify', mounted.path, String(this.#context.seed)]
    const child = spawn(PYTHON, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    const wrong: string[] = []
    createInterface({ input: child.stdout }).on('line', (line) => wrong.push(line))
    child.stdin.on('error', () => {})
    child.stdin.end(this.#program.acknowledged())
    const late = setTimeout(() => child.kill('SIGKILL'), VERIFY_MS)
    const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
    clearTimeout(late)
    if (code !== 0) throw new Error(`the verification of ${this.name} did not end: code ${code}`)
    return wrong
  }

  /** Unmounts, checks the filesystem, mounts through another host and compares everything. */
  async check(): Promise<void> {
    await this.#settle()
    const { cluster, dice } = this.#context
    const old = this.#mounted
    await this.#stopWriter()
    this.#mounted = undefined
    await old?.unmount()
    await old?.check()
    await old?.detach()
    const host = dice.pick(cluster.hosts.filter((one) => one !== old?.host))
    const mounted = await this.#mountThrough(host)
    this.#tell(await this.#wrongOn(mounted), host)
    this.#goOn(mounted)
  }

  async finish(): Promise<void> {
    await this.check()
    this.#ending = true
    clearInterval(this.#watch)
    await this.#stopWriter()
    await this.#mounted?.unmount()
    await this.#mounted?.check()
    await this.#mounted?.detach()
    this.#mounted = undefined
  }

  /** Waits for a move that is under way, or about to be. */
  async #settle(): Promise<void> {
    await sleep(500)
    await waitUntil(`${this.name} to have moved`, 120_000, () => this.#moving === undefined)
  }

  async #stopWriter(): Promise<void> {
    this.#writer?.stdin?.end()
    const late = setTimeout(() => this.#writer?.kill('SIGKILL'), 30_000)
    await this.#writerEnded
    clearTimeout(late)
    this.#stream.rest()
  }

  async #killWriter(): Promise<void> {
    this.#writer?.kill('SIGKILL')
    // Stuck in the kernel, it ends with its filesystem.
    await Promise.race([this.#writerEnded, sleep(2000)])
  }

  async kill(): Promise<void> {
    this.#ending = true
    clearInterval(this.#watch)
    await this.#killWriter()
    await this.#mounted?.abandon()
    await this.#moving
  }
}
