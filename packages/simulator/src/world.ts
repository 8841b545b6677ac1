/**
 * Virtual time: one queue of events, ordered by time and then by the order in which they were asked for, what ends a turn
 * first. The seed decides everything else.
 */
import { type BootInstant, bootInstant, type Clock, type Instant, instant, type Random, type Scheduler } from '@holdfast/base'

/**
 * `timer`: counted by the clock of a machine, which stands still while that sleeps. `end-of-turn`: belongs to what has just
 * run, and comes before all else also where both had to wait for the process to go on.
 */
type EntryKind = 'event' | 'timer' | 'end-of-turn'

interface Entry {
  at: number
  readonly sequence: number
  readonly life: Life | undefined
  readonly kind: EntryKind
  /** Undefined once it is called off; the event stays in the queue and does nothing. */
  task: (() => void) | undefined
}

/** One life of a process: what was scheduled in it dies with it. */
export class Life {
  alive = true
  /** While set, its tasks wait until then (SIGSTOP). */
  pausedUntil = 0
}

/** xorshift128+ in 32-bit halves would be longer; this is mulberry32, plenty for schedules. */
export class SeededRandom implements Random {
  #state: number
  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** In [0, 1). */
  fraction(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  below(bound: number): number {
    if (bound <= 2 ** 32) return Math.floor(this.fraction() * bound)
    const high = Math.floor(this.fraction() * (bound / 2 ** 32))
    return high * 2 ** 32 + Math.floor(this.fraction() * 2 ** 32)
  }

  between(low: number, high: number): number {
    return low + this.fraction() * (high - low)
  }

  chance(probability: number): boolean {
    return this.fraction() < probability
  }

  hex(digits: number): string {
    let text = ''
    while (text.length < digits) text += this.below(16).toString(16)
    return text
  }

  /** A generator of its own for one purpose, so that one more draw here changes nothing there. */
  child(): SeededRandom {
    return new SeededRandom(this.below(2 ** 32))
  }
}

/** The clocks of one host: they may run fast or slow, the wall clock may jump, and one stands still while the machine sleeps. */
export class NodeClock implements Clock {
  readonly #world: World
  /** Local milliseconds per millisecond of the world. */
  readonly rate: number
  /** What somebody has added to the wall clock, milliseconds. */
  wallOffsetMs = 0
  /** The last sleep of the machine, and the sum of those before it; milliseconds of the world. */
  #asleepFrom = 0
  #asleepUntil = 0
  #asleepBefore = 0

  constructor(world: World, rate: number) {
    this.#world = world
    this.rate = rate
  }

  now(): Instant {
    return instant((this.#world.now - this.#asleepMs) * this.rate)
  }

  sinceBoot(): BootInstant {
    return bootInstant(this.#world.now * this.rate)
  }

  fallAsleep(ms: number): void {
    this.#asleepBefore = this.#asleepMs
    this.#asleepFrom = this.#world.now
    this.#asleepUntil = this.#world.now + ms
  }

  /** Before its time, to begin a new life. */
  wakeUp(): void {
    this.#asleepUntil = Math.min(this.#asleepUntil, this.#world.now)
  }

  /** So far. */
  get #asleepMs(): number {
    return this.#asleepBefore + Math.max(0, Math.min(this.#world.now, this.#asleepUntil) - this.#asleepFrom)
  }

  wallMs(): number {
    return 1_700_000_000_000 + this.#world.now * this.rate + this.wallOffsetMs
  }
}

export class World {
  readonly random: SeededRandom
  now = 0
  #sequence = 0
  readonly #heap: Entry[] = []
  /** Lines of the timeline, for a failing seed. */
  readonly timeline: string[] = []

  constructor(seed: number) {
    this.random = new SeededRandom(seed)
  }

  /** Runs `task` after `delayMs` of virtual time, if `life` still lasts by then. */
  schedule(delayMs: number, life: Life | undefined, task: () => void): () => void {
    return this.scheduleAt(this.now + Math.max(0, delayMs), life, task)
  }

  /** The same for what is counted by a clock of `life`'s machine. */
  timer(delayMs: number, life: Life, task: () => void): () => void {
    return this.scheduleAt(this.now + Math.max(0, delayMs), life, task, 'timer')
  }

  /** The same as `schedule` at an instant: what must keep its order is not put through a difference and a sum. */
  scheduleAt(at: number, life: Life | undefined, task: () => void, kind: EntryKind = 'event'): () => void {
    const entry: Entry = { at, sequence: this.#sequence++, life, kind, task }
    this.#push(entry)
    return () => {
      entry.task = undefined
    }
  }

  /** Runs all events up to `until`, or until `stop` says so. */
  run(until: number, stop: () => boolean = () => false): void {
    for (let next = this.#heap[0]; next !== undefined && next.at <= until; next = this.#heap[0]) {
      this.#pop()
      this.now = next.at
      const { life } = next
      if (life !== undefined && !life.alive) continue
      if (life !== undefined && life.pausedUntil > this.now) {
        next.at = life.pausedUntil
        this.#push(next)
        continue
      }
      next.task?.()
      if (stop()) return
    }
    if (this.now < until) this.now = until
  }

  /** The machine of these lives falls asleep: what comes until it wakes up waits, and timers keep what is left of them. */
  sleep(lives: readonly Life[], clock: NodeClock, ms: number): void {
    clock.fallAsleep(ms)
    const entries = this.#heap.splice(0)
    for (const entry of entries) {
      if (entry.kind === 'timer' && entry.life !== undefined && lives.includes(entry.life)) entry.at += ms
      this.#push(entry)
    }
    for (const life of lives) life.pausedUntil = Math.max(life.pausedUntil, this.now + ms)
  }

  note(text: string): void {
    this.timeline.push(`${this.now.toFixed(3).padStart(12)} ${text}`)
  }

  scheduler(life: Life, clock: NodeClock): Scheduler {
    return {
      after: (ms, task) => this.timer(ms / clock.rate, life, task),
      soon: (task) => {
        this.scheduleAt(this.now, life, task, 'end-of-turn')
      },
    }
  }

  #push(entry: Entry): void {
    const heap = this.#heap
    let at = heap.length
    heap.push(entry)
    while (at > 0) {
      const parent = (at - 1) >> 1
      const above = heap[parent] as Entry
      if (before(above, entry)) break
      heap[at] = above
      at = parent
    }
    heap[at] = entry
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop() as Entry
    if (heap.length === 0) return
    let at = 0
    for (;;) {
      let child = at * 2 + 1
      if (child >= heap.length) break
      const right = child + 1
      if (right < heap.length && before(heap[right] as Entry, heap[child] as Entry)) child = right
      if (before(last, heap[child] as Entry)) break
      heap[at] = heap[child] as Entry
      at = child
    }
    heap[at] = last
  }
}

function before(a: Entry, b: Entry): boolean {
  if (a.at !== b.at) return a.at < b.at
  if (a.kind !== b.kind && (a.kind === 'end-of-turn' || b.kind === 'end-of-turn')) return a.kind === 'end-of-turn'
  return a.sequence < b.sequence
}
