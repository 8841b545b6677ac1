/**
 * What a server's threads and the disk did while a client waited: looked at every two milliseconds, and kept for the
 * pauses that turn out later to have been long.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { threadCpuSeconds } from '../bed/threads.ts'

const EVERY_MS = 2
/** Threads that are watched: the event loops. The pool's sleep for the disk by design. */
const THREADS_MAX = 2
/** In what the kernel counts processors' time in /proc/stat. */
const STOLEN_STEP_MS = 10

interface Look {
  /** Milliseconds since the epoch. */
  readonly atMs: number
  /** Where each watched thread slept for the disk or a lock of the kernel, '' where it did not. */
  readonly blockedAt: readonly string[]
  /** True where a thread ran or could have. */
  readonly running: boolean
  /** Milliseconds so far that each watched thread ran, and that it waited for a processor; what the host took is in neither. */
  readonly ran: readonly number[]
  readonly waited: readonly number[]
  /** Milliseconds so far that the host took from the processors when they had something to do. */
  readonly stolen: number
  /** Requests to the disk under way, and how many had ended by then. */
  readonly inFlight: number
  readonly ended: number
}

export interface Testimony {
  /** Parts of the pause, 0 to 1: an event loop of the server was held up in the kernel, and where mostly. */
  readonly blocked: number
  readonly blockedAt: string
  /** The disk had something to do and ended nothing for 5 ms and longer. */
  readonly diskStood: number
  /** An event loop had work. */
  readonly running: number
  /** The event loop that had most to do ran, or waited for a processor behind others. */
  readonly ran: number
  readonly waited: number
  /** The host had taken a processor, as it says itself: in steps of 10 ms, and so up to 10 ms wrong. */
  readonly stolen: number
  /** Nobody looked: this process, so the machine itself, did not get to it. */
  readonly unseen: number
}

export class PauseWitness {
  readonly #tasks: readonly string[]
  readonly #disk: string
  readonly #looks: Look[] = []
  readonly #timer: NodeJS.Timeout

  /** `pids`: servers that have been busy already. `path`: something on their disk. */
  constructor(pids: readonly number[], path: string) {
    const busiest = [...threadCpuSeconds(pids)].sort(([, a], [, b]) => b - a).slice(0, THREADS_MAX)
    this.#tasks = busiest.map(([thread]) => `/proc/${thread}/task/${thread}`)
    this.#disk = diskOf(path)
    this.#timer = setInterval(() => this.#look(), EVERY_MS)
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** `endMs`: since the epoch. */
  about(endMs: number, pauseMs: number): Testimony {
    const beginMs = endMs - pauseMs
    const first = this.#looks.findIndex(({ atMs }) => atMs > beginMs)
    const during = first < 0 ? [] : this.#looks.slice(first).filter(({ atMs }) => atMs <= endMs)
    const part = (ms: number): number => Math.min(1, ms / pauseMs)
    let blocked = 0
    let running = 0
    let unseen = 0
    const places = new Map<string, number>()
    let before = beginMs
    for (const look of during) {
      const ms = look.atMs - before
      before = look.atMs
      if (ms > 4 * EVERY_MS) unseen += ms - EVERY_MS
      const place = look.blockedAt.find((at) => at !== '')
      if (place !== undefined) {
        blocked += ms
        places.set(place, (places.get(place) ?? 0) + ms)
      } else if (look.running) running += ms
    }
    const { ran, waited, stolen } = this.#spent(beginMs, endMs)
    const blockedAt = [...places].sort(([, a], [, b]) => b - a)[0]?.[0] ?? ''
    const stood = stands(this.#looks, beginMs, endMs)
    return {
      blocked: part(blocked),
      blockedAt,
      diskStood: part(stood),
      running: part(running),
      ran: part(ran),
      waited: part(waited),
      stolen: part(stolen),
      unseen: part(unseen),
    }
  }

  /** Milliseconds of the time between the two, by the looks around it. */
  #spent(beginMs: number, endMs: number): { readonly ran: number; readonly waited: number; readonly stolen: number } {
    const first = this.#looks.findLast(({ atMs }) => atMs <= beginMs)
    const last = this.#looks.find(({ atMs }) => atMs >= endMs)
    // What was stolen is booked with the next tick of the processor it was stolen from.
    const booked = this.#looks.find(({ atMs }) => atMs >= endMs + STOLEN_STEP_MS)
    if (first === undefined || last === undefined) return { ran: 0, waited: 0, stolen: 0 }
    const threads = first.ran.map((before, i) => ({
      ran: (last.ran[i] ?? before) - before,
      waited: (last.waited[i] ?? 0) - (first.waited[i] ?? 0),
    }))
    const busiest = threads.sort((a, b) => b.ran + b.waited - a.ran - a.waited)[0] ?? { ran: 0, waited: 0 }
    return { ...busiest, stolen: (booked ?? last).stolen - first.stolen }
  }

  #look(): void {
    const stat = readFileSync(this.#disk, 'latin1').trim().split(/\s+/).map(Number)
    const states = this.#tasks.map((task) => {
      const text = readFileSync(`${task}/stat`, 'latin1')
      return { task, state: text[text.lastIndexOf(')') + 2] }
    })
    const spent = this.#tasks.map((task) => readFileSync(`${task}/schedstat`, 'latin1').split(' ').map(Number))
    // The eighth of the numbers behind "cpu".
    const all = readFileSync('/proc/stat', 'latin1').split('\n', 1)[0]?.trim().split(/\s+/)
    this.#looks.push({
      ran: spent.map(([ns]) => (ns ?? 0) / 1e6),
      waited: spent.map(([, ns]) => (ns ?? 0) / 1e6),
      stolen: Number(all?.[8] ?? 0) * STOLEN_STEP_MS,
      atMs: performance.timeOrigin + performance.now(),
      blockedAt: states.map(({ task, state }) => (state === 'D' ? placeIn(task) : '')),
      running: states.some(({ state }) => state === 'R'),
      inFlight: stat[8] ?? 0,
      ended: (stat[0] ?? 0) + (stat[4] ?? 0) + (stat[15] ?? 0),
    })
  }
}

/** Milliseconds between the two in which the disk had requests and ended none for long. */
function stands(looks: readonly Look[], beginMs: number, endMs: number): number {
  const LONG_MS = 5
  let stood = 0
  let since: Look | undefined
  for (const look of looks) {
    if (since !== undefined && look.ended === since.ended && look.inFlight > 0) continue
    if (since !== undefined && look.atMs - since.atMs >= LONG_MS) {
      stood += Math.max(0, Math.min(look.atMs, endMs) - Math.max(since.atMs, beginMs))
    }
    since = look.inFlight > 0 ? look : undefined
    if (look.atMs > endMs && since === undefined) break
  }
  return stood
}

/** What the thread waits for: the innermost function of the kernel that is not the scheduler's. */
function placeIn(task: string): string {
  try {
    const stack = readFileSync(`${task}/stack`, 'latin1').split('\n')
    const names = stack.map((line) => /\] ([^+]+)\+/.exec(line)?.[1] ?? '').filter((name) => name !== '')
    return names.slice(0, 4).join(' < ') || 'unknown'
  } catch {
    return 'unknown'
  }
}

/** The file in which the kernel counts what the disk below `path` does. */
function diskOf(path: string): string {
  const { dev } = statSync(path)
  for (const name of readdirSync('/sys/block')) {
    const numbers = readFileSync(`/sys/block/${name}/dev`, 'latin1').trim().split(':').map(Number)
    const [major = 0, minor = 0] = numbers
    // glibc's makedev, for numbers that fit into its lower halves.
    if (dev === ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12))) return `/sys/block/${name}/stat`
  }
  throw new Error(`${path} is on no disk of its own in /sys/block`)
}
