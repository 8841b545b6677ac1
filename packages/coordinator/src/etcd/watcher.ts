/**
 * One watched prefix: a snapshot at revision R, then every change from R + 1 on, whatever happens to
 * streams and members.
 *
 * A lost stream goes on at another member from the next revision, without a snapshot: etcd keeps
 * history. Only where history is missing (compaction, a cluster restored from a backup) the
 * snapshot is taken anew.
 *
 * A stream can die without a word: its member hangs, or is cut off from the others and hears
 * nothing any more. So from time to time the current revision is read linearizably, and the stream has
 * to show, by a progress report, that its member has come that far.
 */
import type { EventLog, WatchHandler } from '@holdfast/base'
import type { IDuplexStream, IWatchRequest, IWatchResponse } from 'etcd3'
import { changeOf, entryOf, prefixRange } from './entries.ts'
import { grpcDeadline, type Member, type Members, NoAnswerError, reasonOf } from './members.ts'

const BACKOFF_MS_MIN = 50
const BACKOFF_MS_MAX = 2000
const PROGRESS_RETRY_MS = 100

type Stream = IDuplexStream<IWatchRequest, IWatchResponse>

export interface WatcherOptions {
  readonly members: Members
  readonly events: EventLog
  readonly prefix: string
  readonly handler: WatchHandler
  readonly callMs: number
  /** How often a stream must prove that it lives; it gets as long again to do so. */
  readonly checkMs: () => number
}

export class Watcher {
  readonly #options: WatcherOptions
  /** The last revision delivered; undefined when the next thing has to be a snapshot. */
  #revision: number | undefined
  #stream: Stream | undefined
  #member: Member | undefined
  /** The highest revision that any answer on this stream has shown its member to be at. */
  #memberRevision = 0
  #timer: NodeJS.Timeout | undefined
  #backoffMs = BACKOFF_MS_MIN
  #stopped = false

  constructor(options: WatcherOptions) {
    this.#options = options
    this.#later(0, () => this.#connect())
  }

  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
    this.#drop()
  }

  #later(ms: number, task: () => Promise<void>): void {
    clearTimeout(this.#timer)
    if (this.#stopped) return
    this.#timer = setTimeout(() => {
      task().catch((error: unknown) => this.#failed(reasonOf(error)))
    }, ms)
  }

  #drop(): void {
    const stream = this.#stream
    this.#stream = undefined
    this.#member = undefined
    // Ended first: etcd3 takes an error on a writable stream for a failure of the member.
    stream?.end()
    stream?.cancel()
  }

  #failed(reason: string): void {
    if (this.#stopped) return
    const member = this.#member
    this.#drop()
    if (member !== undefined) this.#options.members.avoid(member)
    const { events, prefix } = this.#options
    events.event('warn', 'a watch at etcd is interrupted', { prefix, reason })
    this.#later(this.#backoffMs, () => this.#connect())
    this.#backoffMs = Math.min(BACKOFF_MS_MAX, this.#backoffMs * 2)
  }

  async #connect(): Promise<void> {
    const { members, callMs } = this.#options
    if (this.#revision === undefined) await this.#snapshot()
    else await this.#checkHistory(this.#revision)
    if (this.#stopped || this.#revision === undefined) return
    const nextRevision = this.#revision + 1
    await members.ask(callMs, async (member) => this.#open(member, nextRevision))
    if (this.#stopped) {
      this.#drop()
      return
    }
    this.#backoffMs = BACKOFF_MS_MIN
    this.#later(this.#options.checkMs(), () => this.#check())
  }

  async #snapshot(): Promise<void> {
    const { members, prefix, handler, callMs } = this.#options
    const answer = await members.ask(callMs, ({ client }) =>
      client.kv.range(prefixRange(prefix), grpcDeadline(callMs)),
    )
    if (this.#stopped) return
    const revision = Number(answer.header.revision)
    this.#revision = revision
    const entries = answer.kvs.map(entryOf)
    queueMicrotask(() => {
      if (!this.#stopped) handler.snapshot(entries, revision)
    })
  }

  /** A cluster restored from a backup counts from an older revision: then what we know is not its history. */
  async #checkHistory(revision: number): Promise<void> {
    const now = await this.#readRevision()
    if (now >= revision || this.#stopped) return
    const { events, prefix } = this.#options
    events.event('warn', 'etcd has gone back in time; reading everything anew', {
      prefix,
      revision,
      now,
    })
    await this.#snapshot()
  }

  async #readRevision(): Promise<number> {
    const { members, callMs } = this.#options
    const answer = await members.ask(callMs, ({ client }) =>
      client.kv.range(
        { key: Buffer.from([0]), limit: 1, keys_only: true },
        grpcDeadline(callMs),
      ),
    )
    return Number(answer.header.revision)
  }

  /** Resolves when the member has confirmed the watch. */
  async #open(member: Member, startRevision: number): Promise<void> {
    const stream = await member.client.watchClient.watch({})
    if (this.#stopped) {
      stream.on('error', () => undefined)
      stream.cancel()
      return
    }
    this.#drop()
    this.#stream = stream
    this.#member = member
    this.#memberRevision = 0
    const { prefix } = this.#options
    await new Promise<void>((resolve, reject) => {
      const ended = (reason: string): void => {
        reject(new NoAnswerError(reason))
        if (this.#stream === stream) this.#failed(reason)
      }
      stream.on('error', (error) => ended(reasonOf(error)))
      stream.on('end', () => ended('the watch stream ended'))
      stream.on('data', (response) => {
        if (this.#stream !== stream || this.#stopped) return
        if (response.created) resolve()
        this.#received(response)
      })
      stream.write({
        create_request: {
          ...prefixRange(prefix),
          start_revision: startRevision,
          progress_notify: true,
        },
      })
    })
  }

  #received({ header, canceled, compact_revision, cancel_reason, events }: IWatchResponse): void {
    this.#memberRevision = Math.max(this.#memberRevision, Number(header.revision))
    if (canceled) {
      if (Number(compact_revision) > 0) this.#revision = undefined
      this.#failed(cancel_reason === '' ? 'the watch was cancelled' : cancel_reason)
      return
    }
    const known = this.#revision ?? 0
    // Progress reports carry no events; what is delivered already is never delivered again.
    const changes = events
      .filter(({ kv }) => Number(kv.mod_revision) > known)
      .map(changeOf)
    const last = changes.at(-1)
    if (last === undefined) return
    const revision = last.change === 'put' ? last.entry.modRevision : last.modRevision
    this.#revision = revision
    queueMicrotask(() => {
      if (!this.#stopped) this.#options.handler.changes(changes, revision)
    })
  }

  /** Has the stream prove that it is alive and its member up to date. */
  async #check(): Promise<void> {
    const stream = this.#stream
    const checkMs = this.#options.checkMs()
    let now: number
    try {
      now = await this.#readRevision()
    } catch {
      // No member answers: nothing is known about the stream either, and there is no better one.
      if (this.#stream === stream) this.#later(checkMs, () => this.#check())
      return
    }
    const giveUpAt = performance.now() + checkMs
    while (this.#stream === stream && stream !== undefined && !this.#stopped) {
      if (this.#memberRevision >= now) {
        // Answers to an earlier read don't count the next time.
        this.#memberRevision = 0
        this.#later(checkMs, () => this.#check())
        return
      }
      if (performance.now() >= giveUpAt) {
        this.#failed(`${this.#member?.endpoint ?? 'a member'} sends nothing on the watch any more`)
        return
      }
      stream.write({ progress_request: {} })
      await new Promise((resolve) => setTimeout(resolve, PROGRESS_RETRY_MS))
    }
  }
}
