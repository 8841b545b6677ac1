/** A program that works on a mounted volume, moved between hosts and verified after every fault. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { StorageHost } from '../hosts.ts'
import type { Stream } from '../journal.ts'
import { MountedVolume } from '../mounted-volume.ts'
import { message, sleep, waitUntil } from '../util.ts'
import type { Workload, WorkloadContext } from './workload.ts'

const PYTHON = '/usr/bin/python3'
const VERIFY_MS = 60_000

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
    const host = dice.pick(cluster.hosts)
    this.#mounted = await MountedVolume.attach(this.volume, host, folder)
    await this.#mounted.makeFilesystem()
    await this.#mounted.mount()
    this.#startWriter(host)
    this.#watch = setInterval(() => this.#look(), 200)
  }

  #startWriter(host: StorageHost): void {
    const { seed, journal } = this.#context
    const args = [this.#program.script, 'write', this.#path, String(seed), String(this.#program.next())]
    const child = spawn(PYTHON, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    this.#stream.host = host.name
    this.#writer = child
    child.stdin.on('error', () => {})
    child.stderr.on('data', (text: Buffer) => journal.say(`  ${this.name}: ${text.toString().trim()}`))
    createInterface({ input: child.stdout }).on('line', (line) => {
      const words = line.split(' ')
      this.#program.line(words)
      if (words[0] === 'c') this.#stream.answered(journal.secondsOf(Number(words[1])))
      if (words[0] === 'x') this.#refused(host, words.slice(2).join(' '))
    })
    this.#writerEnded = new Promise((resolve) => {
      child.once('close', () => {
        if (this.#writer === child) this.#writer = undefined
        resolve()
      })
    })
  }

  /** An error of the filesystem is right only when the node under the mount has died. */
  #refused(host: StorageHost, text: string): void {
    // The process may have ended a moment before we are told.
    setTimeout(() => {
      const mounted = this.#mounted
      if (this.#ending || this.#moving !== undefined || mounted?.host !== host || mounted.orphaned) return
      this.#context.journal.violation(`${this.name} got an error from its filesystem through ${host.name}: ${text}`)
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
        this.#mounted = undefined
        this.#context.journal.violation(`${this.name} could not be started elsewhere: ${message(error)}`)
      },
    )
  }

  async #restartElsewhere(old: MountedVolume): Promise<void> {
    const { cluster, dice, journal, folder } = this.#context
    await this.#killWriter()
    await old.abandon()
    const alive = cluster.hosts.filter((host) => host !== old.host && host.program.running)
    const host = dice.pick(alive.length > 0 ? alive : cluster.hosts)
    this.#mounted = await MountedVolume.attach(this.volume, host, folder)
    await this.#mounted.mount()
    const wrong = await this.#verify()
    journal.note(`${this.name} moved from ${old.host.name} to ${host.name}, ${wrong === 0 ? 'all there' : 'NOT all there'}`)
    this.#startWriter(host)
  }

  get #path(): string {
    if (this.#mounted === undefined) throw new Error(`${this.name} is not mounted`)
    return this.#mounted.path
  }

  /** How many things are wrong; each is a violation. */
  async #verify(): Promise<number> {
    const args = [this.#program.script, 'verify', this.#path, String(this.#context.seed)]
    const child = spawn(PYTHON, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    let wrong = 0
    createInterface({ input: child.stdout }).on('line', (line) => {
      wrong++
      this.#context.journal.violation(`${this.name}: ${line}`)
    })
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
    const { cluster, dice, folder } = this.#context
    const old = this.#mounted
    if (old === undefined) throw new Error('is not mounted any more')
    await this.#stopWriter()
    await old.unmount()
    await old.check()
    await old.detach()
    this.#mounted = undefined
    const host = dice.pick(cluster.others(old.host))
    const mounted = await MountedVolume.attach(this.volume, host, folder)
    await mounted.mount()
    this.#mounted = mounted
    await this.#verify()
    this.#startWriter(host)
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
