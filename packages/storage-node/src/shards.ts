/**
 * The shards of a node but the first, as the main thread has them: their threads, what is handed to them, what they report.
 *
 * A shard that ends by itself is a bug, like an exception in the main thread: its volumes' logs are in an unknown state,
 * and the process has to recover from them.
 */
import { getHeapStatistics } from 'node:v8'
import { MessageChannel, Worker } from 'node:worker_threads'
import type { EngineStatistics, LocalReplicaView, VolumeId } from '@holdfast/base'
import type { SharedCoordinator } from '@holdfast/coordinator/shared'
import type { EngineSelf } from '@holdfast/engine'
import type { HandedConnection, NbdCounters } from '@holdfast/nbd-server'
import type { HandedLink } from '@holdfast/peer-link'
import type { FromShard, ShardBirth, ShardReport, ToShard } from './shard-protocol.ts'

/** Who asks for the state of the node waits no longer for a busy shard, and gets what it said before. */
const REPORT_MS = 500
const MIB = 1024 * 1024

export interface ShardsOptions {
  readonly count: number
  readonly birth: Omit<ShardBirth, 'shard' | 'coordinator' | 'leaseMemory'>
  readonly coordinator: SharedCoordinator
  /** One NBD connection that a shard had has ended. */
  readonly nbdClosed: () => void
  /** A shard has ended by itself. Default: thrown where nobody catches it. */
  readonly died?: ((error: Error) => void) | undefined
}

export class Shards {
  readonly #shards: ShardThread[]
  /** Before that there is nothing in the threads that could be asked or closed. */
  #started = false

  constructor({ count, birth, coordinator, nbdClosed, died = throwUncaught }: ShardsOptions) {
    this.#shards = Array.from({ length: count - 1 }, (_, at) => {
      const { port1, port2 } = new MessageChannel()
      coordinator.serve(port1)
      const shard = { index: at + 1, count }
      const leaseMemory = coordinator.memory.buffer
      return new ShardThread({ ...birth, shard, coordinator: port2, leaseMemory }, nbdClosed, died)
    })
  }

  get ready(): boolean {
    return this.#shards.every(({ ready }) => ready)
  }

  start(self: EngineSelf): void {
    this.#started = true
    this.#tellAll({ kind: 'start', self })
  }

  handConnection(handed: HandedConnection): void {
    this.#shards[handed.agreement.shard - 1]?.tell({ kind: 'nbd', handed })
  }

  handLink(handed: HandedLink): void {
    this.#shards[handed.hello.toShard - 1]?.tell({ kind: 'peer', handed })
  }

  /** Asks all of them how they are, for `statistics`, `localView`, `nbdCounters` and `awakeCount`. */
  async refresh(): Promise<void> {
    if (!this.#started) return
    await Promise.all(this.#shards.map((shard) => shard.refresh()))
  }

  /** All shards' together with the main thread's. */
  statistics(own: EngineStatistics): EngineStatistics {
    return [own, ...this.#reports.map(({ statistics }) => statistics)].reduce((sum, one) => ({
      operations: [...sum.operations, ...one.operations],
      epochChanges: sum.epochChanges + one.epochChanges,
      relayedRequests: sum.relayedRequests + one.relayedRequests,
      damagedBlocks: sum.damagedBlocks + one.damagedBlocks,
      membersDropped: sum.membersDropped + one.membersDropped,
      membersAdded: sum.membersAdded + one.membersAdded,
    }))
  }

  localView(volume: VolumeId): LocalReplicaView | undefined {
    for (const { replicas } of this.#reports) {
      const view = replicas.get(volume)
      if (view !== undefined) return view
    }
    return undefined
  }

  nbdCounters(own: NbdCounters): NbdCounters {
    const sum = { ...own }
    for (const { nbd } of this.#reports) {
      for (const key of Object.keys(sum) as (keyof NbdCounters)[]) sum[key] += nbd[key]
    }
    return sum
  }

  /** How many of them keep processors awake. */
  get awakeCount(): number {
    return this.#reports.filter(({ awake }) => awake).length
  }

  async closeNbd(): Promise<void> {
    if (!this.#started) return
    await Promise.all(this.#shards.map((shard) => shard.ask({ kind: 'close-nbd' }, 'nbd-closed-all')))
  }

  /** Ends them in order. The coordinator is given back only when the main thread has closed it, too. */
  async stop(): Promise<void> {
    await Promise.all(this.#shards.map((shard) => shard.stop()))
  }

  /** At once, where they never started. */
  async abandon(): Promise<void> {
    await Promise.all(this.#shards.map((shard) => shard.abandon()))
  }

  get #reports(): ShardReport[] {
    return this.#shards.flatMap(({ report }) => (report === undefined ? [] : [report]))
  }

  #tellAll(message: ToShard): void {
    for (const shard of this.#shards) shard.tell(message)
  }
}

class ShardThread {
  ready = false
  report: ShardReport | undefined
  readonly #worker: Worker
  readonly #name: string
  readonly #nbdClosed: () => void
  readonly #tellDied: (error: Error) => void
  readonly #reported = new Map<number, () => void>()
  readonly #waiting = new Map<FromShard['kind'], (() => void)[]>()
  #asked = 0
  #ending = false

  constructor(birth: ShardBirth, nbdClosed: () => void, died: (error: Error) => void) {
    this.#nbdClosed = nbdClosed
    this.#tellDied = died
    this.#name = `shard ${birth.shard.index}`
    const { url, execArgv } = program()
    this.#worker = new Worker(url, {
      workerData: birth,
      transferList: [birth.coordinator],
      // What a thread is given by default depends on the version of Node: as much as the main thread has.
      resourceLimits: { maxOldGenerationSizeMb: Math.floor(getHeapStatistics().heap_size_limit / MIB) },
      ...(execArgv === undefined ? {} : { execArgv }),
    })
    this.#worker.on('message', (message: FromShard) => this.#take(message))
    this.#worker.on('error', (error) => this.#died(error))
    this.#worker.on('exit', (code) => {
      if (!this.#ending) this.#died(new Error(`it has ended with code ${code}`))
    })
  }

  tell(message: ToShard): void {
    this.#worker.postMessage(message)
  }

  ask(message: ToShard, answer: FromShard['kind']): Promise<void> {
    return new Promise((resolve) => {
      const waiting = this.#waiting.get(answer) ?? []
      this.#waiting.set(answer, [...waiting, resolve])
      this.tell(message)
    })
  }

  refresh(): Promise<void> {
    const id = ++this.#asked
    return new Promise((resolve) => {
      const answered = (): void => {
        clearTimeout(late)
        this.#reported.delete(id)
        resolve()
      }
      const late = setTimeout(answered, REPORT_MS)
      this.#reported.set(id, answered)
      this.tell({ kind: 'report', id })
    })
  }

  async stop(): Promise<void> {
    this.#ending = true
    await this.ask({ kind: 'stop' }, 'stopped')
    await this.#worker.terminate()
  }

  async abandon(): Promise<void> {
    this.#ending = true
    await this.#worker.terminate()
  }

  #take(message: FromShard): void {
    switch (message.kind) {
      case 'ready':
        this.ready = true
        break
      case 'report':
        this.report = message.report
        this.#reported.get(message.id)?.()
        break
      case 'nbd-closed':
        this.#nbdClosed()
        break
      default:
    }
    for (const answered of this.#waiting.get(message.kind) ?? []) answered()
    this.#waiting.delete(message.kind)
  }

  #died(cause: unknown): void {
    // Its exit follows; once is enough.
    this.#ending = true
    const what = cause instanceof Error ? cause.message : String(cause)
    this.#tellDied(new Error(`${this.#name} has died: ${what}`, { cause }))
  }
}

/** Not to whoever happens to be on the stack: it is a bug like any other that nobody catches. */
function throwUncaught(error: Error): void {
  setImmediate(() => {
    throw error
  })
}

/** Built, or from source where this file is. */
function program(): { readonly url: URL; readonly execArgv?: string[] } {
  if (!import.meta.url.endsWith('.ts')) return { url: new URL('./shard-main.js', import.meta.url) }
  const url = new URL('./testing/shard-from-source.mjs', import.meta.url)
  return { url, execArgv: ['--conditions=@holdfast/source'] }
}
