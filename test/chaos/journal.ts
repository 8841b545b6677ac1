/** What happened in a run: operations over time, faults, violations; for the report and for people who watch. */
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'

export interface FaultRecord {
  readonly name: string
  /** Who it hit and how. */
  detail: string
  /** Seconds since the start of the run. */
  readonly beganAt: number
  endedAt: number
  wholeAt: number | undefined
  readonly violations: string[]
  /** Longest time without an answer, ms, per workload: clients at the hosts that were hit, and all others. */
  readonly pauses: Record<string, { hit: number; others: number }>
  /** Answers while the fault was there. */
  readonly operations: Record<string, number>
  readonly notes: string[]
}

/** One source of operations: a client process. */
export class Stream {
  readonly workload: string
  readonly name: string
  /** Through which host. */
  host: string | undefined
  readonly #journal: Journal
  #lastAt: number | undefined
  #longest = 0
  /** Whether it used a host that was hit at any time since the reset. */
  #hit = false

  constructor(journal: Journal, workload: string, name: string) {
    this.#journal = journal
    this.workload = workload
    this.name = name
  }

  /** An operation was answered. `atSeconds` since the start of the run. */
  answered(atSeconds: number): void {
    this.#journal.count(this.workload, atSeconds)
    if (this.#lastAt !== undefined) this.#longest = Math.max(this.#longest, atSeconds - this.#lastAt)
    this.#lastAt = atSeconds
    this.#look()
  }

  /** It works on purpose on nothing, until the next answer. */
  rest(): void {
    this.#lastAt = undefined
  }

  #look(): void {
    if (this.host !== undefined && this.#journal.hitHosts.has(this.host)) this.#hit = true
  }

  beginFault(nowSeconds: number): void {
    // One that is about to begin is waiting too.
    this.#lastAt = Math.max(this.#lastAt ?? 0, nowSeconds - 0.5)
    this.#longest = 0
    this.#hit = false
    this.#look()
  }

  answeredSince(seconds: number): boolean {
    return this.#lastAt !== undefined && this.#lastAt > seconds
  }

  pause(nowSeconds: number): { readonly ms: number; readonly hit: boolean } {
    this.#look()
    const current = this.#lastAt === undefined ? 0 : nowSeconds - this.#lastAt
    return { ms: Math.max(current, this.#longest) * 1000, hit: this.#hit }
  }
}

export class Journal {
  readonly startedAt = performance.now()
  readonly faults: FaultRecord[] = []
  readonly violations: string[] = []
  /** Answers per second of the run, per workload. */
  readonly series = new Map<string, number[]>()
  readonly streams: Stream[] = []
  /** Names of the hosts that the present fault hits. */
  hitHosts: ReadonlySet<string> = new Set()
  readonly #timeline: string
  #fault: FaultRecord | undefined
  #allowed: ((errno: number) => boolean) | undefined
  #permitted = 0

  constructor(out: string) {
    this.#timeline = join(out, 'timeline.txt')
  }

  /** Seconds since the start. */
  get now(): number {
    return (performance.now() - this.startedAt) / 1000
  }

  /** Of a time of CLOCK_MONOTONIC in microseconds, as the Python clients tell it. */
  secondsOf(monotonicMicroseconds: number): number {
    const nowMicroseconds = Number(process.hrtime.bigint() / 1000n)
    return this.now - (nowMicroseconds - monotonicMicroseconds) / 1e6
  }

  stream(workload: string, name: string): Stream {
    const stream = new Stream(this, workload, name)
    this.streams.push(stream)
    return stream
  }

  count(workload: string, atSeconds: number): void {
    let series = this.series.get(workload)
    if (series === undefined) this.series.set(workload, (series = []))
    const second = Math.max(0, Math.floor(atSeconds))
    while (series.length <= second) series.push(0)
    series[second] = (series[second] ?? 0) + 1
    if (this.#fault !== undefined) {
      this.#fault.operations[workload] = (this.#fault.operations[workload] ?? 0) + 1
    }
  }

  operations(workload: string): number {
    return (this.series.get(workload) ?? []).reduce((sum, one) => sum + one, 0)
  }

  say(text: string): void {
    const line = `${this.now.toFixed(1).padStart(7)}  ${text}`
    process.stdout.write(`${line}\n`)
    appendFileSync(this.#timeline, `${line}\n`)
  }

  violation(text: string): void {
    this.violations.push(`${this.now.toFixed(1)} s: ${text}`)
    this.#fault?.violations.push(text)
    // One cause may break thousands of reads.
    if (this.violations.length <= 50) this.say(`VIOLATION ${text}`)
  }

  note(text: string): void {
    this.#fault?.notes.push(text)
    this.say(`  ${text}`)
  }

  /** An error reply; it is right only while a fault permits it. */
  errorReply(workload: string, errno: number, what: string): void {
    if (this.#allowed?.(errno) === true) this.#permitted++
    else this.violation(`${workload}: ${what} was answered by errno ${errno}`)
  }

  beginFault(name: string, hit: readonly string[], allowed?: (errno: number) => boolean): FaultRecord {
    const now = this.now
    this.hitHosts = new Set(hit)
    this.#allowed = allowed
    const counts = { violations: [], pauses: {}, operations: {}, notes: [] }
    this.#fault = { name, detail: '', beganAt: now, endedAt: now, wholeAt: undefined, ...counts }
    this.faults.push(this.#fault)
    for (const stream of this.streams) stream.beginFault(now)
    return this.#fault
  }

  /** More hosts than were known at the beginning. */
  alsoHit(host: string): void {
    this.hitHosts = new Set([...this.hitHosts, host])
  }

  /** Clients without an answer since then. */
  stuckSince(seconds: number): string | undefined {
    const stuck = this.streams.filter((stream) => !stream.answeredSince(seconds))
    if (stuck.length === 0) return undefined
    return `no answer to ${stuck.map(({ workload, name, host }) => `${workload} ${name} at ${host}`).join(', ')}`
  }

  /** Takes the pauses; to be called when the cluster is whole again, or will not be. */
  measure(): void {
    const fault = this.#fault
    if (fault === undefined) return
    for (const stream of this.streams) {
      const { ms, hit } = stream.pause(this.now)
      const pauses = (fault.pauses[stream.workload] ??= { hit: 0, others: 0 })
      if (hit) pauses.hit = Math.max(pauses.hit, ms)
      else pauses.others = Math.max(pauses.others, ms)
    }
  }

  endFault(): void {
    if (this.#permitted > 0) this.note(`${this.#permitted} error replies, as permitted`)
    this.#permitted = 0
    this.#fault = undefined
    this.#allowed = undefined
    this.hitHosts = new Set()
  }
}
