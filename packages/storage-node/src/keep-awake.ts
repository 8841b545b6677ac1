/**
 * Keeps the machine's processors from falling asleep between the requests of a node that is busy (decision 24).
 *
 * A request that nobody waits behind wakes client, primary and every secondary in turn. Waking a processor takes longer
 * than most of what it then does: microseconds from a deep sleep, tens of them where sleeping is an exit to a hypervisor.
 *
 * Invariants: while the node is idle nothing is asked of the machine; what was asked ends with the thread that asked, since
 * the kernel forgets it with the descriptor.
 */
import type { Scheduler } from '@holdfast/base'

/** What the kernel is asked for, by one thread of this process. */
export interface ProcessorLatency {
  /** May take longer to wake than anybody minds, or no longer than this process likes. */
  limit(wanted: boolean): void
  close(): void
}

/** Requests and messages per second from which the wait for a processor is worth its power. */
const BUSY_PER_SECOND = 200
/** How soon a load is noticed. Rarer than when awake: an idle node pays for each look. */
const LOOK_ASLEEP_MS = 100
/** How soon the processors may sleep after it. */
const LOOK_AWAKE_MS = 50

export class KeepAwake {
  readonly #latency: ProcessorLatency
  readonly #work: () => number
  readonly #scheduler: Pick<Scheduler, 'after'>
  #awake = false
  #seen: number
  #cancel: () => void

  /** @param work Requests and messages that came to this thread, ever. */
  constructor(latency: ProcessorLatency, work: () => number, scheduler: Pick<Scheduler, 'after'>) {
    this.#latency = latency
    this.#work = work
    this.#scheduler = scheduler
    this.#seen = work()
    this.#cancel = this.#later()
  }

  get awake(): boolean {
    return this.#awake
  }

  /** Idempotent. */
  close(): void {
    this.#cancel()
    this.#awake = false
    this.#latency.close()
  }

  get #intervalMs(): number {
    return this.#awake ? LOOK_AWAKE_MS : LOOK_ASLEEP_MS
  }

  #later(): () => void {
    return this.#scheduler.after(this.#intervalMs, () => this.#look())
  }

  #look(): void {
    const work = this.#work()
    const busy = (work - this.#seen) * 1000 >= BUSY_PER_SECOND * this.#intervalMs
    this.#seen = work
    if (busy !== this.#awake) {
      this.#awake = busy
      this.#latency.limit(busy)
    }
    this.#cancel = this.#later()
  }
}
