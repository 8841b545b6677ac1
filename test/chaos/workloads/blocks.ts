/** Client processes on raw blocks of one volume, a client per host; every answer goes through the register checker. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { History } from '../history.ts'
import type { Stream } from '../journal.ts'
import { waitUntil } from '../../support/waiting.ts'
import type { Workload, WorkloadContext } from './workload.ts'

const SCRIPT = new URL('blocks_client.py', import.meta.url).pathname
const PYTHON = '/usr/bin/python3'
const SIZE_BYTES = 256 * 1024 * 1024
const BLOCKS = 4096
const RATE = 150
const DEPTH = 8
const ADVANCE_MS = 100

interface Client {
  readonly id: number
  readonly child: ChildProcess
  readonly stream: Stream
  readonly ended: Promise<void>
  /** Times that it said that the reads asked for are done. */
  readsDone: number
}

export class BlocksWorkload implements Workload {
  readonly name = 'blocks'
  readonly volume = 'blocks'
  readonly history: History
  readonly #context: WorkloadContext
  readonly #clients: Client[] = []
  #timer: NodeJS.Timeout | undefined
  #ending = false

  constructor(context: WorkloadContext) {
    this.#context = context
    const { journal } = context
    this.history = new History({
      violation: (text) => journal.violation(text),
      errorReply: (_client, errno, what) => journal.errorReply(this.name, errno, what),
    })
  }

  async start(): Promise<void> {
    const { cluster } = this.#context
    await cluster.createVolume(this.volume, SIZE_BYTES, 3)
    cluster.hosts.forEach((_, id) => this.#clients.push(this.#spawn(id)))
    this.#timer = setInterval(() => this.#advance(), ADVANCE_MS)
  }

  #spawn(id: number): Client {
    const { cluster, journal, seed, logs } = this.#context
    const args = Object.entries({
      ...{ id, home: id, clients: cluster.hosts.length, blocks: BLOCKS, seed, depth: DEPTH, rate: RATE },
      ...{ export: this.volume, sockets: cluster.hosts.map(({ socket }) => socket).join(',') },
    }).flatMap(([name, value]) => [`--${name}`, String(value)])
    const child = spawn(PYTHON, [SCRIPT, ...args], { stdio: ['pipe', 'pipe', 'pipe'] })
    // The history of a run is what shows how it came to a violation.
    const record = createWriteStream(join(logs, `history-${id}.txt`))
    child.stdout.pipe(record)
    child.stderr.on('data', (text: Buffer) => journal.say(`  blocks client ${id}: ${text.toString().trim()}`))
    const stream = journal.stream(this.name, `client ${id}`)
    const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
    const client: Client = { id, child, stream, ended, readsDone: 0 }
    this.history.add(id)
    createInterface({ input: child.stdout }).on('line', (line) => this.#line(client, line))
    child.stdin.on('error', () => {})
    child.once('exit', (code, signal) => {
      this.history.ended(id)
      if (!this.#ending) journal.violation(`blocks client ${id} ended by itself: code ${code}, signal ${signal}`)
    })
    return client
  }

  #line(client: Client, line: string): void {
    this.history.line(client.id, line)
    const [kind, at, host] = line.split(' ')
    if (kind === 'n') client.stream.host = this.#context.cluster.hosts[Number(host)]?.name
    else if (kind === 'c') client.stream.answered(this.#context.journal.secondsOf(Number(at)))
    else if (kind === 'd') client.readsDone++
  }

  #advance(): void {
    try {
      this.history.advance()
    } catch (error) {
      // The harness contradicts itself: no result of this run means anything.
      this.#context.journal.violation(`the history can't be checked: ${String(error)}`)
      clearInterval(this.#timer)
    }
  }

  /** Reads these blocks through every client; resolves when all have answered. */
  async read(blocks: readonly number[], ms = 30_000): Promise<void> {
    await this.#ask(`read ${blocks.join(' ')}`, ms)
  }

  async #ask(command: string, ms: number): Promise<void> {
    const before = this.#clients.map(({ readsDone }) => readsDone)
    for (const { child } of this.#clients) child.stdin?.write(`${command}\n`)
    await waitUntil('the reads that were asked for', ms, () =>
      this.#clients.every(({ readsDone }, i) => readsDone > (before[i] ?? 0)),
    )
    this.#advance()
  }

  async check(): Promise<void> {
    for (const { child } of this.#clients) child.stdin?.write('home\n')
    const at = (id: number): boolean => this.#clients[id]?.stream.host === this.#context.cluster.hosts[id]?.name
    await waitUntil('block clients to be at their own hosts', 15_000, () => this.#clients.every(({ id }) => at(id)))
  }

  async finish(): Promise<void> {
    await this.#ask('sweep', 60_000)
    this.#ending = true
    for (const { child } of this.#clients) child.stdin?.end('stop\n')
    await Promise.all(this.#clients.map(({ ended }) => ended))
    clearInterval(this.#timer)
    this.#advance()
  }

  async kill(): Promise<void> {
    this.#ending = true
    clearInterval(this.#timer)
    for (const { child } of this.#clients) child.kill('SIGKILL')
    await Promise.all(this.#clients.map(({ ended }) => ended))
  }
}
