/**
 * Reads that heal: a block whose checksum is wrong is fetched from the same position on an in-sync
 * member, written back, and read again. Only when no member has it does the client get an error (I9).
 */
import { BLOCK_BYTES, type Lsn, lsnAfter } from '@holdfast/base'
import type { ReplicaLog } from '@holdfast/volume-log'
import type { BlockDataMessage, VolumeEpoch } from '@holdfast/wire'
import type { NodeContext } from './context.ts'
import type { Link } from './peer-table.ts'

/** Blocks that one read may have repaired. */
const REPAIRS_PER_READ_MAX = 64
const FETCH_TIMEOUT_MS = 5_000

interface Fetch {
  readonly link: Link
  readonly done: (block: Uint8Array | undefined) => void
  readonly cancel: () => void
}

export class RepairDesk {
  readonly #context: NodeContext
  readonly #scope: VolumeEpoch
  readonly #log: ReplicaLog
  readonly #links: () => Iterable<Link>
  readonly #fetches = new Map<number, Fetch>()

  constructor(
    context: NodeContext,
    scope: VolumeEpoch,
    log: ReplicaLog,
    links: () => Iterable<Link>,
  ) {
    this.#context = context
    this.#scope = scope
    this.#log = log
    this.#links = links
  }

  /** Reads from the committed map, off the event loop if need be, repairing on the way. */
  read(
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
    done: (ok: boolean) => void,
  ): void {
    this.#readHealing(
      (finished) => this.#log.read(offset, length, target, targetOffset, finished),
      REPAIRS_PER_READ_MAX,
      done,
    )
  }

  /** The newest appended version of one block, for a read-modify-write. */
  readLatest(
    logicalBlock: number,
    target: Uint8Array,
    targetOffset: number,
    done: (ok: boolean) => void,
  ): void {
    this.#readHealing(
      (finished) => this.#log.readLatestAsync(logicalBlock, target, targetOffset, finished),
      REPAIRS_PER_READ_MAX,
      done,
    )
  }

  /** Puts blocks of the log right again, from whichever in-sync member has them whole. */
  repair(position: Lsn, blockCount: number, done: (ok: boolean) => void): void {
    const { volume } = this.#scope
    this.#context.statistics.damagedBlocks += blockCount
    const fields = { volume, lsn: position, blocks: blockCount }
    this.#context.events.event('error', 'damage found, asking a member for the block', fields)
    this.#repair(position, blockCount, done)
  }

  answered(link: Link, message: BlockDataMessage): void {
    const fetch = this.#fetches.get(message.seq)
    if (fetch === undefined || fetch.link !== link) return
    const block = message.payload[0]
    this.#finish(message.seq, message.ok && block?.length === BLOCK_BYTES ? block : undefined)
  }

  linkClosed(link: Link): void {
    for (const [seq, fetch] of this.#fetches) if (fetch.link === link) this.#finish(seq, undefined)
  }

  close(): void {
    for (const seq of [...this.#fetches.keys()]) this.#finish(seq, undefined)
  }

  #finish(seq: number, block: Uint8Array | undefined): void {
    const fetch = this.#fetches.get(seq)
    this.#fetches.delete(seq)
    fetch?.cancel()
    fetch?.done(block)
  }

  #readHealing(
    attempt: (finished: Parameters<ReplicaLog['read']>[4]) => void,
    repairsLeft: number,
    done: (ok: boolean) => void,
  ): void {
    attempt((error) => {
      if (error === undefined) {
        done(true)
        return
      }
      const fields = { volume: this.#scope.volume, problem: error.kind }
      if (error.kind !== 'damaged' || repairsLeft === 0) {
        this.#context.events.event('error', 'a read failed', fields)
        done(false)
        return
      }
      this.repair(error.lsn, error.blockCount, (ok) => {
        if (ok) this.#readHealing(attempt, repairsLeft - 1, done)
        else done(false)
      })
    })
  }

  #repair(position: Lsn, blockCount: number, done: (ok: boolean) => void): void {
    if (blockCount === 0) {
      done(true)
      return
    }
    this.#mend(position, [...this.#links()], (ok) => {
      if (ok) this.#repair(lsnAfter(position, 1), blockCount - 1, done)
      else done(false)
    })
  }

  /** One block, from the first of the members whose block is right. */
  #mend(position: Lsn, links: Link[], done: (ok: boolean) => void): void {
    const link = links.shift()
    if (link === undefined) {
      done(false)
      return
    }
    this.#fetch(link, position, (block) => {
      if (block === undefined) {
        this.#mend(position, links, done)
        return
      }
      this.#log.repairBlocks(position, block, (error) => {
        if (error === undefined) done(true)
        else this.#mend(position, links, done)
      })
    })
  }

  #fetch(link: Link, position: Lsn, done: (block: Uint8Array | undefined) => void): void {
    // An answer to an earlier reign's question may come over the same link: its number must not be one of ours.
    const seq = this.#context.peers.nextQuestion()
    const cancel = this.#context.scheduler.after(FETCH_TIMEOUT_MS, () => this.#finish(seq, undefined))
    this.#fetches.set(seq, { link, cancel, done })
    link.send({
      type: 'block-fetch',
      volume: this.#scope.volume,
      seq,
      lsn: position,
      blockCount: 1,
    })
  }
}
