/**
 * Which requests of which frontend session are in the log already, so that a request sent again after a
 * failover is not done twice. Per session a ring of the last 1,024 sequence numbers.
 *
 * Records keep 32 bits of a number. One beyond that is never found: it may be done twice then, but no request is taken for
 * another that was done.
 */
/** As many as a session has unanswered at most. */
export const RING = 1024
const SESSIONS_MAX = 64

class SessionRing {
  readonly seqs = new Uint32Array(RING)
  /** End of the batch that holds it. */
  readonly ends = new Float64Array(RING)
  usedAt = 0
  /** No end in it is above. */
  endMax = 0
  /** Of a snapshot that had all of it; undefined since something was noted. Most sessions of a log have long ended. */
  entry: SessionEntry | undefined
}

/**
 * One entry of a checkpoint: a session's numbers that were applied below it. A session that has asked for `last` has had
 * answers to all that lie `RING` and more before.
 */
export interface SessionEntry {
  readonly session: number
  readonly last: number
  /** Bit `i` of the whole: the number `i` before `last` was applied. */
  readonly applied: Uint32Array
}

/** An entry of the numbers in any order; undefined for none. */
export function sessionEntry(session: number, seqs: Iterable<number>): SessionEntry | undefined {
  let last = 0
  for (const seq of seqs) if (seq > last) last = seq
  if (last === 0) return undefined
  const applied = new Uint32Array(RING / 32)
  for (const seq of seqs) {
    const before = last - seq
    if (seq !== 0 && before < RING) applied[before >>> 5] = (applied[before >>> 5] as number) | (1 << (before & 31))
  }
  return { session, last, applied }
}

/** The numbers of an entry, by their place in the ring. */
export function seqsOf({ last, applied }: SessionEntry): number[] {
  const seqs: number[] = []
  for (let at = 0; at < RING; at++) {
    const before = (last - at) & (RING - 1)
    if ((((applied[before >>> 5] as number) >>> (before & 31)) & 1) === 1) seqs.push(last - before)
  }
  return seqs
}

export class Dedupe {
  readonly #sessions = new Map<number, SessionRing>()
  #lastSession = -1
  #lastRing: SessionRing | undefined
  #clock = 0

  /** Notes an appended record; `seq` 0 or `session` 0 is not noted. */
  note(session: number, seq: number, endLsn: number): void {
    if (session === 0 || seq === 0) return
    const ring = this.#ring(session)
    const at = seq & (RING - 1)
    // A stale repetition must not push out a newer number.
    if ((ring.seqs[at] as number) > seq) return
    ring.seqs[at] = seq
    ring.ends[at] = endLsn
    ring.usedAt = ++this.#clock
    ring.entry = undefined
    if (endLsn > ring.endMax) ring.endMax = endLsn
  }

  /** Undoes `note` for a record that was cut off the log. */
  forget(session: number, seq: number): void {
    const ring = this.#sessions.get(session)
    if (ring === undefined || ring.seqs[seq & (RING - 1)] !== seq) return
    ring.seqs[seq & (RING - 1)] = 0
    ring.entry = undefined
  }

  /** End LSN of the batch with the request, or -1. */
  find(session: number, seq: number): number {
    const ring = this.#sessions.get(session)
    if (ring === undefined || seq === 0) return -1
    const at = seq & (RING - 1)
    return ring.seqs[at] === seq ? (ring.ends[at] as number) : -1
  }

  /** What was noted with an end of at most `lsn`. */
  snapshot(lsn: number): SessionEntry[] {
    const entries: SessionEntry[] = []
    const rings = [...this.#sessions].sort((a, b) => a[1].usedAt - b[1].usedAt)
    for (const [session, ring] of rings) {
      const entry = ring.endMax <= lsn ? (ring.entry ??= sessionEntry(session, ring.seqs)) : entryBelow(session, ring, lsn)
      if (entry !== undefined) entries.push(entry)
    }
    return entries
  }

  load(entries: readonly SessionEntry[], lsn: number): void {
    this.clear()
    for (const entry of entries) for (const seq of seqsOf(entry)) this.note(entry.session, seq, lsn)
  }

  clear(): void {
    this.#sessions.clear()
    this.#lastSession = -1
    this.#lastRing = undefined
  }

  #ring(session: number): SessionRing {
    if (session === this.#lastSession && this.#lastRing !== undefined) return this.#lastRing
    let ring = this.#sessions.get(session)
    if (ring === undefined) {
      if (this.#sessions.size >= SESSIONS_MAX) this.#evict()
      ring = new SessionRing()
      this.#sessions.set(session, ring)
    }
    this.#lastSession = session
    this.#lastRing = ring
    return ring
  }

  #evict(): void {
    let oldest = -1
    let usedAt = Number.POSITIVE_INFINITY
    for (const [session, ring] of this.#sessions) {
      if (ring.usedAt >= usedAt) continue
      usedAt = ring.usedAt
      oldest = session
    }
    this.#sessions.delete(oldest)
  }
}

function entryBelow(session: number, { seqs, ends }: SessionRing, lsn: number): SessionEntry | undefined {
  return sessionEntry(session, seqs.filter((_, at) => (ends[at] as number) <= lsn))
}
