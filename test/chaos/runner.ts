/** One run: the cluster, the workloads on it, and the faults in turn. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { Cluster } from './cluster.ts'
import { Journal } from './journal.ts'
import type { Fault, Nemesis, NemesisContext } from './nemeses/nemesis.ts'
import type { Options } from './options.ts'
import { Dice } from './dice.ts'
import { message } from './shell.ts'
import { sleep } from '../support/waiting.ts'
import { BlocksWorkload } from './workloads/blocks.ts'
import { MountedWorkload } from './workloads/mounted.ts'
import { filesProgram, ledgerProgram } from './workloads/programs.ts'
import type { Workload } from './workloads/workload.ts'

const QUIET_MS = 3000
const WHOLE_WITHIN_MS = 90_000

export interface RunOptions extends Options {
  readonly namespaces: boolean
  readonly folder: string
  readonly nemeses: readonly Nemesis[]
}

export class Run {
  readonly journal: Journal
  readonly #options: RunOptions
  readonly #dice: Dice
  #cluster: Cluster | undefined
  #workloads: Workload[] = []
  #fault: Fault | undefined
  #stopped = false

  constructor(options: RunOptions) {
    mkdirSync(options.out, { recursive: true })
    this.#options = options
    this.#dice = new Dice(options.seed)
    this.journal = new Journal(options.out)
  }

  get blocks(): BlocksWorkload | undefined {
    return this.#workloads.find((one) => one instanceof BlocksWorkload)
  }

  /** From start to the last check; violations are in the journal. Throws only when nothing could be tested. */
  async run(): Promise<void> {
    const { journal } = this
    const { nodes, namespaces, folder, program, out } = this.#options
    journal.say(`seed ${this.#options.seed}, ${nodes} storage hosts, ${namespaces ? 'namespaces' : 'loopback'}`)
    const cluster = await Cluster.start({
      ...{ nodes, namespaces, folder, program, logs: join(out, 'logs') },
      onEnd: (host, how) => {
        journal.violation(`node ${host.name} ended by itself: ${how}`)
        void host.start().catch((error: unknown) => journal.violation(message(error)))
      },
    })
    this.#cluster = cluster
    await this.#startWorkloads(cluster)
    await sleep(QUIET_MS)
    await this.#faults(cluster)
    if (this.#stopped) return
    journal.say('last checks')
    for (const workload of this.#workloads) await this.#guard(workload, () => workload.finish())
  }

  async #startWorkloads(cluster: Cluster): Promise<void> {
    const { seed, folder, workloads, out } = this.#options
    const context = { cluster, journal: this.journal, dice: this.#dice, seed, folder, logs: join(out, 'logs') }
    const makers = {
      blocks: () => new BlocksWorkload(context),
      ext4: () => new MountedWorkload(context, filesProgram()),
      sqlite: () => new MountedWorkload(context, ledgerProgram()),
    }
    for (const name of workloads) {
      const workload: Workload = makers[name]()
      this.#workloads.push(workload)
      await workload.start()
    }
    const problem = await cluster.whole(60_000)
    if (problem !== undefined) throw new Error(`the cluster does not come up: ${problem}`)
    this.journal.say(`workloads: ${workloads.join(', ')}`)
  }

  async #faults(cluster: Cluster): Promise<void> {
    const { nemeses, minutes, once } = this.#options
    for (let turn = 0; !this.#stopped && nemeses.length > 0; turn++) {
      if (once ? turn >= nemeses.length : this.journal.now > minutes * 60) return
      await this.#turn(cluster, nemeses[turn % nemeses.length] as Nemesis)
    }
  }

  async #turn(cluster: Cluster, nemesis: Nemesis): Promise<void> {
    const { journal } = this
    const volumes = this.#workloads.map(({ volume }) => volume)
    const context: NemesisContext = { cluster, journal, dice: this.#dice, volumes, blocks: this.blocks }
    let fault: Fault
    try {
      fault = await nemesis.plan(context)
    } catch (error) {
      journal.violation(`${nemesis.name} found no victim: ${message(error)}`)
      await sleep(QUIET_MS)
      return
    }
    const hit = fault.hit.map(({ name }) => name)
    const record = journal.beginFault(nemesis.name, hit, fault.allowed)
    record.detail = fault.detail
    journal.say(`${nemesis.name}: ${fault.detail}`)
    this.#fault = fault
    try {
      await fault.start()
      if (fault.holdMs > 0) await sleep(Math.max(fault.holdMs, this.#options.hold * 1000))
    } catch (error) {
      journal.violation(`during ${nemesis.name}: ${message(error)}`)
    }
    await this.#end(fault, nemesis.name)
    record.endedAt = journal.now
    const problem = await cluster.whole(WHOLE_WITHIN_MS, () => journal.stuckSince(record.endedAt))
    if (problem === undefined) {
      record.wholeAt = journal.now
      journal.say(`  full redundancy after ${(record.wholeAt - record.endedAt).toFixed(1)} s`)
    } else journal.violation(`not whole ${WHOLE_WITHIN_MS / 1000} s after ${nemesis.name}: ${problem}`)
    // Whoever was stuck gets the time to show that it goes on.
    await sleep(QUIET_MS)
    journal.measure()
    for (const workload of this.#workloads) await this.#guard(workload, () => workload.check())
    const pauses = Object.entries(record.pauses).map(([name, { hit, others }]) => {
      return `${name} ${(others / 1000).toFixed(1)} s${hit > 0 ? ` (at the hosts hit ${(hit / 1000).toFixed(1)} s)` : ''}`
    })
    journal.say(`  longest pause: ${pauses.join(', ')}`)
    journal.endFault()
    await sleep(QUIET_MS)
  }

  async #end(fault: Fault, name: string): Promise<void> {
    try {
      await fault.stop()
    } catch (error) {
      this.journal.violation(`${name} could not be ended: ${message(error)}`)
    }
    this.#fault = undefined
  }

  async #guard(workload: Workload, check: () => Promise<void>): Promise<void> {
    try {
      await check()
    } catch (error) {
      this.journal.violation(`${workload.name}: ${message(error)}`)
    }
  }

  /** No further fault; what goes on is brought to its end by `close`. */
  stop(): void {
    this.#stopped = true
  }

  /** Ends everything that was started. */
  async close(): Promise<void> {
    await this.#fault?.stop().catch(() => {})
    for (const workload of this.#workloads) await workload.kill().catch(() => {})
    await this.#cluster?.stop()
  }
}
