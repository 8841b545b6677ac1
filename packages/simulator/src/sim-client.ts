/**
 * One client of one volume: writes, zeroes, flushes and reads with several requests in flight, and checks what it reads.
 *
 * The volume is seen as units of 1 KiB, each a register of its own: a request covers one or more, aligned to blocks
 * or not. A unit has one writer; everybody reads all of them, which is what shows a primary that serves
 * although another was elected.
 */
import { type ExportSession, shardOf } from '@holdfast/base'
import type { SimCluster } from './cluster.ts'
import type { FlushSnapshot, RegisterChecker } from './register-checker.ts'
import { contentsOf, UNIT, versionOf } from './units.ts'
import type { Life, SeededRandom } from './world.ts'

const UNITS_MAX = 24

export interface SimClientOptions {
  readonly cluster: SimCluster
  readonly volume: string
  /** Units that this client alone writes. */
  readonly units: readonly number[]
  /** Units of the whole volume that it reads. */
  readonly unitCount: number
  readonly maxInFlight?: number
  /** Mean pause between requests, milliseconds. */
  readonly thinkMs?: number
  /** Of the flushes that it would ask for, and of the writes with FUA; the others are left out. */
  readonly flushShare?: number
}

export class SimClient {
  readonly volume: string
  readonly #cluster: SimCluster
  readonly #checker: RegisterChecker
  readonly #unitCount: number
  readonly #random: SeededRandom
  readonly #maxInFlight: number
  readonly #thinkMs: number
  readonly #flushShare: number
  #writable: number[]
  readonly #pending = new Map<number, (error: number) => void>()
  readonly #busy = new Set<number>()
  /** By unit: what this session was told is done, and not yet that it is durable. */
  readonly #unflushed = new Map<number, number>()
  #session: ExportSession | undefined
  /** Of the process that it is connected to, the main one first. */
  #threads: readonly Life[] = []
  #token = 0
  /** Losses of the volume before this session: none of its own writes is among them. */
  #lossesBefore = 0
  stopped = false
  operations = 0
  errors = 0

  constructor(options: SimClientOptions) {
    const { cluster, volume, units, unitCount, maxInFlight = 6, thinkMs = 4, flushShare = 1 } = options
    this.volume = volume
    this.#cluster = cluster
    this.#checker = cluster.checker(volume)
    this.#writable = [...units]
    this.#unitCount = unitCount
    this.#random = cluster.random.child()
    this.#maxInFlight = maxInFlight
    this.#thinkMs = thinkMs
    this.#flushShare = flushShare
    this.#loop()
  }

  /** Nothing is unanswered, or the node that would answer is gone and with it the question. */
  get idle(): boolean {
    return this.#pending.size === 0 || this.#life?.alive !== true
  }

  /** Reads the whole volume once; `done` when all has answered. */
  readAll(done: () => void): void {
    let left = Math.ceil(this.#unitCount / UNITS_MAX)
    for (let first = 0; first < this.#unitCount; first += UNITS_MAX) {
      this.#read(first, Math.min(UNITS_MAX, this.#unitCount - first), () => {
        if (--left === 0) done()
      })
    }
  }

  connect(): boolean {
    if (this.#session !== undefined && this.#life?.alive === true) return true
    this.#forget()
    const { alive } = this.#cluster
    const node = alive[this.#random.below(Math.max(1, alive.length))]
    if (node?.engine?.exports.find(this.volume) === undefined) return false
    this.#threads = node.threads
    this.#lossesBefore = this.#checker.losses
    this.#session = node.engine.exports.open(this.volume, (token, error) => {
      const done = this.#pending.get(token)
      this.#pending.delete(token)
      done?.(error)
    })
    return true
  }

  /** Goes away without waiting for answers and comes back elsewhere. What was under way may happen much later. */
  vanish(): void {
    if (this.#session === undefined) return
    this.#session.close()
    // Nobody can say when a write of the old session arrives: its units are left alone from now on.
    this.#writable = this.#writable.filter((unit) => !this.#busy.has(unit))
    this.#forget()
  }

  #forget(): void {
    this.#session = undefined
    this.#threads = []
    this.#pending.clear()
    this.#busy.clear()
    this.#unflushed.clear()
  }

  #loop(): void {
    const { world } = this.#cluster
    world.schedule(this.#random.between(0.1, 2) * this.#thinkMs, undefined, () => {
      if (this.stopped) return
      if (this.#life !== undefined && !this.#life.alive) {
        // What the old node had sent may still be on its way: a client that moves takes longer than that, but a cut
        // network may hold it back for longer still.
        this.#writable = this.#writable.filter((unit) => !this.#busy.has(unit))
        this.#forget()
        world.schedule(50, undefined, () => this.#loop())
        return
      }
      if (this.#pending.size < this.#maxInFlight && this.connect()) this.#operate()
      this.#loop()
    })
  }

  get #life(): Life | undefined {
    return this.#threads[0]
  }

  /** Reaches the thread that serves the volume when that takes something from its sockets: now, or as soon as it goes on. */
  #send(call: (session: ExportSession) => void): void {
    const session = this.#session
    const id = this.#cluster.record(this.volume)?.id
    if (session === undefined || id === undefined) return
    const { world } = this.#cluster
    const thread = this.#threads[shardOf(id, this.#threads.length)]
    world.scheduleAt(world.now, thread, () => {
      if (session === this.#session) call(session)
    })
  }

  #operate(): void {
    this.operations++
    const kind = this.#random.fraction()
    if (kind < 0.5) this.#mutate(false)
    else if (kind < 0.56) this.#mutate(true)
    else if (kind < 0.92) {
      const first = this.#random.below(this.#unitCount)
      this.#read(first, 1 + this.#random.below(Math.min(8, this.#unitCount - first)), () => {})
    } else if (this.#flushShare === 1 || this.#random.chance(this.#flushShare)) this.#flush()
  }

  /** A write or a zeroing of some neighbouring units that are free. */
  #mutate(zero: boolean): void {
    const free = this.#writable.filter((unit) => !this.#busy.has(unit))
    const first = free[this.#random.below(Math.max(1, free.length))]
    if (this.#session === undefined || first === undefined) return
    const countMax = this.#random.chance(0.8) ? 4 : UNITS_MAX
    const units = [first]
    while (units.length < countMax && free.includes(first + units.length)) units.push(first + units.length)
    const fua = this.#random.chance(0.1 * this.#flushShare)
    const versions = units.map((unit) => this.#checker.issue(unit, zero))
    const { losses } = this.#checker
    for (const unit of units) this.#busy.add(unit)
    const token = this.#expect((error) => {
      for (const unit of units) this.#busy.delete(unit)
      if (error !== 0) return this.#failed(zero ? 'zeroing' : 'write', error)
      for (const [at, unit] of units.entries()) this.#unflushed.set(unit, versions[at] ?? 0)
      // Acknowledged before a loss of power that came before the answer: gone perhaps, unless it was durable.
      if (losses !== this.#checker.losses && !fua) return
      for (const [at, unit] of units.entries()) this.#checker.acknowledged(unit, versions[at] ?? 0, fua)
      this.#cluster.invariants.acknowledged(this.volume, units, versions, zero)
    })
    const length = units.length * UNIT
    const keepAllocated = zero && this.#random.chance(0.3)
    this.#send((session) => {
      if (zero) session.zero(token, first * UNIT, length, { fua, keepAllocated })
      else session.write(token, first * UNIT, contentsOf(units, versions), 0, length, fua)
    })
  }

  #read(first: number, count: number, then: () => void): void {
    if (this.#session === undefined) return
    const { losses } = this.#checker
    const floors = Array.from({ length: count }, (_, at) => this.#checker.floor(first + at))
    const target = new Uint8Array(count * UNIT)
    const check = (error: number): void => {
      if (error !== 0) this.#failed('read', error)
      for (let at = 0; at < count && error === 0; at++) {
        const floor = losses === this.#checker.losses ? floors[at] : undefined
        const wrong = checkUnit(this.#checker, target, at, first + at, floor)
        if (wrong !== undefined) this.#cluster.violation(`volume ${this.volume}: ${wrong}`)
      }
      then()
    }
    const token = this.#expect(check)
    this.#send((session) => {
      if (!session.read(token, first * UNIT, count * UNIT, target, 0)) return
      this.#pending.delete(token)
      check(0)
    })
  }

  #flush(): void {
    const snapshot: FlushSnapshot = this.#checker.beforeFlush()
    const committedLsn = this.#cluster.invariants.committedLsn(this.volume)
    const own = [...this.#unflushed]
    const { flushedLosses } = this.#checker
    if (this.#session === undefined) return
    const token = this.#expect((error) => {
      for (const [unit, version] of own) if (this.#unflushed.get(unit) === version) this.#unflushed.delete(unit)
      // Where acknowledged writes may be lost, a flush is where the client hears of it, for all of them.
      if (error !== 0) this.#unflushed.clear()
      if (error !== 0 && this.#checker.losses > this.#lossesBefore) return
      if (error !== 0) return this.#failed('flush', error)
      if (flushedLosses === this.#checker.flushedLosses) {
        for (const [unit, version] of own) this.#checker.flushedBySession(unit, version)
      }
      this.#checker.flushed(snapshot)
      if (snapshot.losses === this.#checker.losses) this.#cluster.invariants.flushed(this.volume, committedLsn)
    })
    this.#send((session) => session.flush(token))
  }

  #failed(what: string, error: number): void {
    this.errors++
    this.#cluster.clientError(`volume ${this.volume}: a ${what} failed with errno ${error}`)
  }

  #expect(done: (error: number) => void): number {
    const token = ++this.#token
    this.#pending.set(token, done)
    return token
  }
}

/** `floor` as it was when the read began; undefined when power was lost since. */
function checkUnit(
  checker: RegisterChecker,
  bytes: Uint8Array,
  at: number,
  unit: number,
  floor: number | undefined,
): string | undefined {
  const version = versionOf(bytes, at, unit)
  if (version === undefined) return `block ${unit}: contents of no version`
  if (floor === undefined) return checker.readBeforeLoss(unit, version)
  return version === 0 ? checker.readZeroes(unit, floor) : checker.read(unit, version, floor)
}
