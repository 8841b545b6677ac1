/**
 * What a server's threads and the disk did while a client waited: looked at every two milliseconds, and kept for the
 * pauses that turn out later to have been long. It takes as little of the processors as it can: files stay open, and
 * what was seen is kept as plain numbers, since the collection of garbage would be in the way of what it looks at.
 */
import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs'
import { TICKS_PER_SECOND } from '../bed/process-cost.ts'
import { threadCpuSeconds } from '../bed/threads.ts'

const EVERY_MS = 2
/** Threads that are watched: the event loops. The pool's sleep for the disk by design, and those for flushes do nothing else. */
const THREADS_MAX = 2
/** In what the kernel counts processors' time in /proc/stat. */
const STOLEN_STEP_MS = 1000 / TICKS_PER_SECOND
/** What is looked at before and after a pause to understand it. */
const AROUND_MS = 1000
const ROWS_PER_CHUNK = 4096
const OF_ALL = 4
const OF_THREAD = 4

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

/** A file of the kernel's that says something else each time. */
class Fresh {
  readonly path: string
  readonly #fd: number
  readonly #text = Buffer.alloc(4096)
  #length = 0

  constructor(path: string) {
    this.path = path
    this.#fd = openSync(path, 'r')
  }

  close(): void {
    closeSync(this.#fd)
  }

  read(): this {
    this.#length = readSync(this.#fd, this.#text, 0, this.#text.length, 0)
    return this
  }

  /** The number in a field, counted from 0: digits between anything else. */
  number(field: number): number {
    let value = 0
    let inside = false
    for (let i = 0, left = field; i < this.#length; i++) {
      const digit = (this.#text[i] ?? 0) - 48
      const isDigit = digit >= 0 && digit <= 9
      if (isDigit && left === 0) value = value * 10 + digit
      else if (inside && !isDigit && left-- === 0) break
      inside = isDigit
    }
    return value
  }

  /** The letter behind the name of a task, which is in brackets. */
  state(): string {
    return String.fromCharCode(this.#text[this.#text.lastIndexOf(')', this.#length) + 2] ?? 0)
  }
}

/** Numbers in rows, without an object for each. */
class Rows {
  readonly #columns: number
  readonly #chunks: Float64Array[] = []
  #count = 0

  constructor(columns: number) {
    this.#columns = columns
  }

  get count(): number {
    return this.#count
  }

  /** The row that is to be filled next. */
  add(): Float64Array {
    if (this.#count % ROWS_PER_CHUNK === 0) this.#chunks.push(new Float64Array(this.#columns * ROWS_PER_CHUNK))
    return this.at(this.#count++)
  }

  at(row: number): Float64Array {
    const chunk = this.#chunks[Math.floor(row / ROWS_PER_CHUNK)]
    if (chunk === undefined) throw new Error(`no row ${row}`)
    const from = (row % ROWS_PER_CHUNK) * this.#columns
    return chunk.subarray(from, from + this.#columns)
  }
}

/** By the name of a thread; one that has ended since it was listed is none. */
function waitsForFlushes(thread: string): boolean {
  try {
    return readFileSync(`/proc/${thread}/comm`, 'utf8').trim() === 'holdfast-flush'
  } catch {
    return false
  }
}

export class PauseWitness {
  readonly #tasks: readonly { readonly path: string; readonly stat: Fresh; readonly spent: Fresh }[]
  readonly #disk: Fresh
  readonly #processors = new Fresh('/proc/stat')
  /** atMs, inFlight, ended, stolen, and for each thread: its place, 1 where it runs, ran, waited. */
  readonly #rows: Rows
  /** Where threads have slept, by number; what is not blocked is at ''. */
  readonly #places: string[] = ['']
  readonly #timer: NodeJS.Timeout

  /** `pids`: servers that have been busy already. `path`: something on their disk. */
  constructor(pids: readonly number[], path: string) {
    const threads = [...threadCpuSeconds(pids)].filter(([thread]) => !waitsForFlushes(thread))
    const busiest = threads.sort(([, a], [, b]) => b - a).slice(0, THREADS_MAX)
    this.#tasks = busiest.map(([thread]) => {
      const task = `/proc/${thread}/task/${thread}`
      return { path: task, stat: new Fresh(`${task}/stat`), spent: new Fresh(`${task}/schedstat`) }
    })
    this.#rows = new Rows(OF_ALL + OF_THREAD * this.#tasks.length)
    this.#disk = new Fresh(diskOf(path))
    this.#timer = setInterval(() => this.#look(), EVERY_MS)
  }

  stop(): void {
    clearInterval(this.#timer)
    for (const { stat, spent } of this.#tasks) for (const file of [stat, spent]) file.close()
    for (const file of [this.#disk, this.#processors]) file.close()
  }

  /** `endMs`: since the epoch. */
  about(endMs: number, pauseMs: number): Testimony {
    const beginMs = endMs - pauseMs
    const looks = this.#around(beginMs, endMs)
    const during = looks.filter(({ atMs }) => atMs > beginMs && atMs <= endMs)
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
    const { ran, waited, stolen } = spent(looks, beginMs, endMs)
    const blockedAt = [...places].sort(([, a], [, b]) => b - a)[0]?.[0] ?? ''
    const stood = stands(looks, beginMs, endMs)
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

  /** What was seen between the two, and for a second before and after. */
  #around(beginMs: number, endMs: number): readonly Look[] {
    const looks: Look[] = []
    for (let i = this.#firstAfter(beginMs - AROUND_MS); i < this.#rows.count; i++) {
      const row = this.#rows.at(i)
      const [atMs = 0, inFlight = 0, ended = 0, stolen = 0] = row
      if (atMs > endMs + AROUND_MS) break
      const threads = this.#tasks.map((_, thread) => row.subarray(OF_ALL + thread * OF_THREAD))
      looks.push({
        atMs,
        inFlight,
        ended,
        stolen,
        blockedAt: threads.map(([place = 0]) => this.#places[place] ?? ''),
        running: threads.some(([, runs]) => runs === 1),
        ran: threads.map(([, , ran = 0]) => ran),
        waited: threads.map(([, , , waited = 0]) => waited),
      })
    }
    return looks
  }

  #firstAfter(atMs: number): number {
    let low = 0
    for (let high = this.#rows.count; low < high; ) {
      const middle = (low + high) >> 1
      if ((this.#rows.at(middle)[0] ?? 0) > atMs) high = middle
      else low = middle + 1
    }
    return low
  }

  #look(): void {
    const row = this.#rows.add()
    const disk = this.#disk.read()
    row[0] = performance.timeOrigin + performance.now()
    row[1] = disk.number(8)
    row[2] = disk.number(0) + disk.number(4) + disk.number(15)
    // The eighth of the numbers behind "cpu".
    row[3] = this.#processors.read().number(7) * STOLEN_STEP_MS
    let column = OF_ALL
    for (const { path, stat, spent } of this.#tasks) {
      const state = stat.read().state()
      spent.read()
      row[column++] = state === 'D' ? this.#placeNumber(placeIn(path)) : 0
      row[column++] = state === 'R' ? 1 : 0
      row[column++] = spent.number(0) / 1e6
      row[column++] = spent.number(1) / 1e6
    }
  }

  #placeNumber(place: string): number {
    const known = this.#places.indexOf(place)
    return known >= 0 ? known : this.#places.push(place) - 1
  }
}

/** Milliseconds of the time between the two, by the looks around it. */
function spent(looks: readonly Look[], beginMs: number, endMs: number): Pick<Testimony, 'ran' | 'waited' | 'stolen'> {
  const first = looks.findLast(({ atMs }) => atMs <= beginMs)
  const last = looks.find(({ atMs }) => atMs >= endMs)
  // What was stolen is booked with the next tick of the processor it was stolen from.
  const booked = looks.find(({ atMs }) => atMs >= endMs + STOLEN_STEP_MS)
  if (first === undefined || last === undefined) return { ran: 0, waited: 0, stolen: 0 }
  const threads = first.ran.map((before, i) => ({
    ran: (last.ran[i] ?? before) - before,
    waited: (last.waited[i] ?? 0) - (first.waited[i] ?? 0),
  }))
  const busiest = threads.sort((a, b) => b.ran + b.waited - a.ran - a.waited)[0] ?? { ran: 0, waited: 0 }
  return { ...busiest, stolen: (booked ?? last).stolen - first.stolen }
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
