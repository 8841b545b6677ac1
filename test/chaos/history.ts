/**
 * Histories of several client processes, brought into one order by their times and checked on-line.
 *
 * A time is taken before a request is sent and after its answer came, all by the machine's one monotonic clock. So
 * whatever an answer acknowledged before the time of a request must be visible to it.
 */
import { RegisterChecker, type FlushSnapshot } from '@holdfast/simulator'

type Pending =
  | { readonly kind: 'write'; readonly block: number; readonly version: number; readonly fua: boolean }
  | { readonly kind: 'read'; readonly block: number; readonly floor: number }
  | { readonly kind: 'flush'; readonly snapshot: FlushSnapshot }

interface Line {
  readonly at: number
  readonly words: readonly string[]
}

interface ClientHistory {
  readonly lines: Line[]
  readonly pending: Map<string, Pending>
  /** Nothing older will come from it. */
  knownUntil: number
}

export interface HistoryEvents {
  violation(text: string): void
  /** A client got an error reply. `at` in microseconds of the monotonic clock. */
  errorReply(client: number, errno: number, what: string, at: number): void
}

export class History {
  readonly checker = new RegisterChecker()
  readonly #clients = new Map<number, ClientHistory>()
  readonly #events: HistoryEvents
  /** Requests that were never answered: they may have happened or not. */
  unknown = 0
  errors = 0

  constructor(events: HistoryEvents) {
    this.#events = events
  }

  add(client: number): void {
    this.#clients.set(client, { lines: [], pending: new Map(), knownUntil: 0 })
  }

  /** A line of a client's output, see blocks_client.py. */
  line(client: number, text: string): void {
    const history = this.#clients.get(client)
    if (history === undefined) throw new Error(`no client ${client} in this history`)
    const words = text.split(' ')
    const at = Number(words[1])
    if (!(at >= history.knownUntil)) throw new Error(`client ${client} went back in time: ${text}`)
    history.knownUntil = at
    if (words[0] !== 't') history.lines.push({ at, words })
  }

  /** The client's process has ended: the others need not wait for it. */
  ended(client: number): void {
    const history = this.#clients.get(client)
    if (history !== undefined) history.knownUntil = Number.POSITIVE_INFINITY
  }

  /** Checks everything up to the time that all clients have told about. */
  advance(): void {
    const until = Math.min(...[...this.#clients.values()].map((client) => client.knownUntil))
    const ready: { client: number; line: Line }[] = []
    for (const [client, { lines }] of this.#clients) {
      let count = 0
      while (count < lines.length && (lines[count] as Line).at <= until) count++
      for (const line of lines.splice(0, count)) ready.push({ client, line })
    }
    // Requests before answers of the same time: that permits more, never less.
    ready.sort((a, b) => a.line.at - b.line.at || rank(a.line) - rank(b.line))
    for (const { client, line } of ready) this.#apply(client, line)
  }

  /** A block whose newest version was acknowledged and is not being written. */
  settledVersion(block: number): number | undefined {
    for (const { pending } of this.#clients.values()) {
      for (const one of pending.values()) if (one.kind === 'write' && one.block === block) return undefined
    }
    const floor = this.checker.floor(block)
    return floor > 0 ? floor : undefined
  }

  #apply(client: number, { at, words }: Line): void {
    const { pending } = this.#clients.get(client) as ClientHistory
    const [kind, , id = '', what = ''] = words
    if (kind === 'u') {
      this.unknown += pending.size
      pending.clear()
    } else if (kind === 'W') {
      const [block, version, flags = ''] = [Number(what), Number(words[4]), words[5]]
      const issued = this.checker.issue(block, flags.includes('z'))
      if (issued !== version) throw new Error(`client ${client} wrote version ${version} of ${block}, not ${issued}`)
      pending.set(id, { kind: 'write', block, version, fua: flags.includes('f') })
    } else if (kind === 'R') {
      const block = Number(what)
      pending.set(id, { kind: 'read', block, floor: this.checker.floor(block) })
    } else if (kind === 'F') {
      pending.set(id, { kind: 'flush', snapshot: this.checker.beforeFlush() })
    } else if (kind === 'c' || kind === 'e' || kind === 'b') {
      const request = pending.get(id)
      if (request === undefined) throw new Error(`client ${client}: answer to an unknown request: ${words.join(' ')}`)
      pending.delete(id)
      if (kind === 'c') this.#answered(client, request, what, at)
      else this.#wrong(client, request, words, at)
    }
  }

  #answered(client: number, request: Pending, saw: string, at: number): void {
    if (request.kind === 'write') this.checker.acknowledged(request.block, request.version, request.fua)
    else if (request.kind === 'flush') this.checker.flushed(request.snapshot)
    else {
      const { block, floor } = request
      const problem =
        saw === 'z' ? this.checker.readZeroes(block, floor) : this.checker.read(block, Number(saw), floor)
      if (problem !== undefined) this.#events.violation(`blocks client ${client} at ${at} µs: ${problem}`)
    }
  }

  #wrong(client: number, request: Pending, words: readonly string[], at: number): void {
    const block = request.kind === 'flush' ? '' : ` of block ${request.block}`
    if (words[0] === 'b') {
      const text = words.slice(3).join(' ')
      this.#events.violation(`blocks client ${client} at ${at} µs: read${block} gave what nobody wrote: ${text}`)
      return
    }
    this.errors++
    this.#events.errorReply(client, Number(words[3]), `${request.kind}${block}`, at)
  }
}

function rank({ words }: Line): number {
  return words[0] === 'W' || words[0] === 'R' || words[0] === 'F' ? 0 : 1
}
