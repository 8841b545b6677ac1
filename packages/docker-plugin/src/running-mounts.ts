/**
 * Mounts under way. Docker may send the same Mount twice, and both are one; it gives a mount up after 120 s
 * and sends no Unmount for it then: what nobody waits for any more when it is ready is undone.
 */
import { type EventLog, HoldfastError } from '@holdfast/base'
import { inTime } from './calls.ts'

interface RunningMount {
  done: Promise<string>
  waiting: number
  /** Docker has sent Unmount meanwhile. */
  dropped: boolean
  undoing: boolean
}

export interface MountWork {
  /** Answers with the folder for the container. */
  mount(): Promise<string>
  unmount(): Promise<void>
}

export class RunningMounts {
  readonly #events: EventLog
  readonly #running = new Map<string, RunningMount>()

  constructor(events: EventLog) {
    this.#events = events
  }

  /**
   * What is mounted too late is unmounted, unless somebody asks again.
   * @throws HoldfastError HF_TIMEOUT after `ms`; or why it can't be mounted.
   */
  async mount(name: string, id: string, ms: number, work: MountWork): Promise<string> {
    const running = this.#running.get(keyOf(name, id)) ?? this.#start(name, id, work)
    if (running.undoing) {
      throw new HoldfastError('HF_UNAVAILABLE', `volume ${name} is just being unmounted: try again`)
    }
    running.dropped = false
    running.waiting++
    try {
      return await inTime(ms, running.done, `volume ${name} could not be mounted in time`)
    } finally {
      running.waiting--
    }
  }

  /**
   * Ends that mount, if it is under way, and waits until it is undone.
   * False: somebody asked for it again meanwhile.
   * @throws HoldfastError HF_TIMEOUT; it will be undone.
   */
  async drop(name: string, id: string, ms: number): Promise<boolean> {
    const running = this.#running.get(keyOf(name, id))
    if (running === undefined) return true
    running.dropped = true
    const ended = running.done.then(
      () => undefined,
      () => undefined,
    )
    await inTime(ms, ended, `volume ${name} is still being mounted, and will be unmounted`)
    return running.dropped
  }

  #start(name: string, id: string, work: MountWork): RunningMount {
    const running: RunningMount = { done: Promise.resolve(''), waiting: 0, dropped: false, undoing: false }
    running.done = this.#run(name, running, work).finally(() => this.#running.delete(keyOf(name, id)))
    // It may fail when nobody waits any more.
    running.done.catch(() => undefined)
    this.#running.set(keyOf(name, id), running)
    return running
  }

  async #run(name: string, running: RunningMount, work: MountWork): Promise<string> {
    let path: string
    try {
      path = await work.mount()
    } catch (error) {
      if (running.waiting === 0) {
        const fields = { volume: name, reason: String(error) }
        this.#events.event('warn', 'a mount that docker has given up failed', fields)
      }
      throw error
    }
    if (running.waiting > 0 && !running.dropped) return path
    running.undoing = true
    this.#events.event('info', 'a mount that docker has given up is undone', { volume: name })
    try {
      await work.unmount()
    } catch (error) {
      const fields = { volume: name, reason: String(error) }
      this.#events.event('error', 'a late mount could not be undone', fields)
    }
    throw new HoldfastError('HF_UNAVAILABLE', `volume ${name} was unmounted before it was ready: try again`)
  }
}

const keyOf = (name: string, id: string): string => `${name}/${id}`
