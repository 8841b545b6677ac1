/** One replica on a memory disk, driven synchronously: what tests of this package share. */
import { epoch as toEpoch, lsn, sessionId, volumeId } from '@holdfast/base'
import type { Epoch, Lsn } from '@holdfast/base'
import { BatchPool } from '../batch.ts'
import { CrcCache } from '../crc-cache.ts'
import { SummaryCache } from '../summary-cache.ts'
import { WordPool } from '../word-pool.ts'
import { openReplicaLog } from '../open.ts'
import type { OpenDone } from '../open.ts'
import type { ReplicaLog } from '../replica-log.ts'
import type { LogSettings, RecoveryReport } from '../types.ts'
import { tableChecksum } from './crc32c.ts'
import { ManualScheduler } from './manual-scheduler.ts'
import { MemoryDisk } from './memory-disk.ts'

export const BLOCK = 4096
const SEGMENT_BLOCKS = 64

export interface HarnessOptions {
  readonly seed?: number
  readonly segmentBlocks?: number
  readonly sizeBlocks?: number
  readonly settings?: Partial<LogSettings>
  readonly immediatePercent?: number
  readonly capacityBytes?: number
  readonly crcBytes?: number
  /** Memory for summaries of segments; 0: compaction reads headers. */
  readonly summaryBytes?: number
}

export class Harness {
  readonly scheduler = new ManualScheduler()
  readonly disk: MemoryDisk
  readonly events: string[] = []
  readonly summaryCache: SummaryCache
  readonly wordPool = new WordPool(1 << 20)
  readonly batchPool = new BatchPool((bytes) => this.disk.allocate(bytes))
  readonly #options: HarnessOptions
  bootId = 'boot-1'
  wall = 1_000_000
  /** What the next opening is told of those before. */
  unreadableBefore = 0
  epoch: Epoch = toEpoch(1)
  #log: ReplicaLog | undefined
  report: RecoveryReport | undefined
  readonly volume = volumeId('00112233445566aa')
  readonly path = 'volumes/00112233445566aa'

  constructor(options: HarnessOptions = {}) {
    this.#options = options
    this.summaryCache = new SummaryCache(options.summaryBytes ?? 1 << 20)
    this.disk = new MemoryDisk({
      scheduler: this.scheduler,
      seed: options.seed ?? 1,
      immediatePercent: options.immediatePercent ?? 50,
      ...(options.capacityBytes === undefined ? {} : { capacityBytes: options.capacityBytes }),
    })
  }

  get log(): ReplicaLog {
    if (this.#log === undefined) throw new Error('log is not open')
    return this.#log
  }

  segmentFile(segment: number): string {
    return `${this.path}/segment-${String(segment).padStart(12, '0')}`
  }

  /** The block at a log position can't be read any more until it is written, or the returned function is called. */
  spoil(position: number): () => void {
    const segmentBlocks = this.#options.segmentBlocks ?? SEGMENT_BLOCKS
    return this.disk.spoil(this.segmentFile(Math.floor(position / segmentBlocks)), (position % segmentBlocks) * BLOCK)
  }

  /** Runs until `done` was called and returns what it was called with. */
  wait<T extends unknown[]>(start: (done: (...values: T) => void) => void): T {
    let result: T | undefined
    start((...values) => {
      result = values
    })
    this.scheduler.run(() => result !== undefined)
    if (result === undefined) throw new Error('never called back')
    return result
  }

  open(): this {
    const [error, log, report] = this.wait<Parameters<OpenDone>>((done) => this.#beginOpen(done))
    if (error !== undefined) throw new Error(error.message)
    this.#log = log
    this.report = report
    return this
  }

  /** Begins to open, and is interrupted after so many steps: `crash` follows. */
  openHalfway(steps: number): void {
    let ended = false
    let left = steps
    this.#beginOpen(() => {
      ended = true
    })
    this.scheduler.run(() => ended || left-- === 0)
  }

  #beginOpen(done: OpenDone): void {
    openReplicaLog(
      {
        disk: this.disk,
        checksum: tableChecksum,
        scheduler: this.scheduler,
        events: { event: (_level, message) => void this.events.push(message) },
        path: this.path,
        volume: this.volume,
        segmentBlocks: this.#options.segmentBlocks ?? SEGMENT_BLOCKS,
        sizeBytes: (this.#options.sizeBlocks ?? 256) * BLOCK,
        bootId: this.bootId,
        crcCache: new CrcCache(this.#options.crcBytes ?? 1 << 20),
        summaryCache: this.summaryCache,
        wordPool: this.wordPool,
        batchPool: this.batchPool,
        settings: { reserveBytes: 0, ...this.#options.settings },
        wallMs: () => this.wall++,
        unreadableBefore: this.unreadableBefore,
      },
      done,
    )
  }

  close(clean = true): void {
    const [error] = this.wait<[unknown]>((done) => this.log.close(clean, done))
    if (error !== undefined) throw new Error(JSON.stringify(error))
    this.#log = undefined
  }

  /** The process (keep 100) or the host dies; the host comes back with another boot id. */
  crash(keepPercent: number): void {
    this.disk.crash(keepPercent)
    if (keepPercent < 100) this.bootId = `${this.bootId}+`
    this.#log = undefined
  }

  reopen(clean = true): this {
    this.close(clean)
    return this.open()
  }

  /** Waits until a batch of any size fits. */
  room(payloadBlocks = 32): void {
    for (let i = 0; i < 1000; i++) {
      const state = this.log.canAppend(payloadBlocks)
      if (state === 'yes') return
      if (state === 'no-space') throw new Error('no-space')
      this.wait<[]>((done) => this.log.onRoom(done))
    }
    throw new Error('never any room')
  }

  /** Appends one batch of writes [first block, fill bytes…]; returns its bytes and place. */
  write(...writes: readonly (readonly [number, ...number[]])[]): { lsn: Lsn; bytes: Uint8Array } {
    const blocks = writes.reduce((sum, [, ...fills]) => sum + fills.length, 0)
    this.room(blocks)
    const batch = this.log.newBatch(Math.max(32, blocks))
    for (const [block, ...fills] of writes) {
      const at = batch.addWrite(sessionId(7), 0, block, fills.length)
      fills.forEach((fill, i) => batch.buffer.fill(fill, at + i * BLOCK, at + (i + 1) * BLOCK))
    }
    const start = this.log.seal(batch, this.epoch)
    let written = false
    written = this.log.append(batch, (error) => {
      if (error !== undefined) throw new Error(error.message)
      written = true
    })
    this.scheduler.run(() => written)
    const bytes = batch.bytes.slice()
    batch.release()
    return { lsn: start, bytes }
  }

  /** Rounds of upkeep, each with all that follows from it. */
  upkeep(rounds: number): void {
    for (let i = 0; i < rounds; i++) {
      this.log.maintenance()
      this.scheduler.run()
    }
  }

  commit(): void {
    this.log.commitTo(this.log.appendedLsn)
  }

  flush(): Lsn {
    const [error, durable] = this.wait<[unknown, Lsn]>((done) => this.log.flush(done))
    if (error !== undefined) throw new Error('flush failed')
    return durable
  }

  read(offset: number, length: number): Uint8Array {
    const target = new Uint8Array(length + 2)
    if (!this.log.tryRead(offset, length, target, 1)) {
      const [error] = this.wait<[unknown]>((done) => this.log.read(offset, length, target, 1, done))
      if (error !== undefined) throw new Error(JSON.stringify(error))
    }
    if (target[0] !== 0 || target[length + 1] !== 0) throw new Error('read outside of its range')
    return target.slice(1, 1 + length)
  }

  /** First byte of a block, after checking that all its bytes are the same. */
  fill(block: number): number {
    const bytes = this.read(block * BLOCK, BLOCK)
    const first = bytes[0] ?? 0
    if (bytes.some((byte) => byte !== first)) throw new Error(`block ${block} is mixed`)
    return first
  }

  /** Feeds everything that the other log has and this one lacks. */
  catchUpFrom(other: Harness): void {
    while (this.log.appendedLsn < other.log.appendedLsn) {
      const from = this.log.appendedLsn
      const [error, payload] = other.wait<[unknown, Uint8Array, Lsn]>((done) =>
        other.log.readLog(from, 40 * BLOCK, done),
      )
      if (error !== undefined) throw new Error(JSON.stringify(error))
      const [refused] = this.wait<[unknown]>((done) => this.log.appendRaw([payload], from, done))
      if (refused !== undefined) throw new Error(JSON.stringify(refused))
    }
    this.log.commitTo(lsn(other.log.committedLsn))
  }
}
