/**
 * Keeps the machine's processors from falling asleep between the requests of a node that is busy (decision 24).
 *
 * A request that nobody waits behind wakes client, primary and every secondary in turn. Waking a processor takes longer
 * than most of what it then does: microseconds from a deep sleep, tens of them where sleeping is an exit to a hypervisor.
 *
 * Invariant: an idle node asks nothing of the machine, nor does one that has ended, however it ended.
 */
import type { Scheduler } from '@holdfast/base'

/** What the kernel is asked for, by one thread of this process. */
export interface ProcessorLatency {
  /** True: as short as this process likes; false: whatever suits the machine. @throws what the system says. */
  limit(wanted: boolean): void
  close(): void
}

/** Requests and messages per second from which the wait for a processor is worth its power. */
const BUSY_PER_SECOND = 200
const LOOK_AWAKE_MS = 50
/** How soon a load is noticed. */
const LOOK_ASLEEP_MS = 100
/** How soon on a node where nothing has happened for so many looks: it pays for each. */
const LOOK_IDLE_MS = 200
const IDLE_AFTER_LOOKS = 50

export interface KeepAwakeOptions {
  readonly latency: ProcessorLatency
  /** Requests and messages that came to this thread, ever. */
  readonly work: () => number
  readonly scheduler: Pick<Scheduler, 'after'>
  /** The kernel takes no wish any more; it is asked no further. */
  readonly failed: (error: unknown) => void
}

export class KeepAwake {
  readonly #options: KeepAwakeOptions
  #awake = false
  #seen: number
  #looksWithoutWork = 0
  #cancel: () => void

  constructor(options: KeepAwakeOptions) {
    this.#options = options
    this.#seen = options.work()
    this.#cancel = this.#later()
  }

  get awake(): boolean {
    return this.#awake
  }

  /** Idempotent. */
  close(): void {
    this.#cancel()
    this.#awake = false
    this.#options.latency.close()
  }

  get #intervalMs(): number {
    if (this.#awake) return LOOK_AWAKE_MS
    return this.#looksWithoutWork < IDLE_AFTER_LOOKS ? LOOK_ASLEEP_MS : LOOK_IDLE_MS
  }

  #later(): () => void {
    return this.#options.scheduler.after(this.#intervalMs, () => this.#look())
  }

  #look(): void {
    const came = this.#options.work() - this.#seen
    const busy = came * 1000 >= BUSY_PER_SECOND * this.#intervalMs
    this.#seen += came
    this.#looksWithoutWork = came === 0 ? this.#looksWithoutWork + 1 : 0
    if (busy !== this.#awake) {
      try {
        this.#options.latency.limit(busy)
      } catch (error) {
        this.close()
        this.#options.failed(error)
        return
      }
      this.#awake = busy
    }
    this.#cancel = this.#later()
  }
}
