/**
 * Reads that heal: a block whose checksum is wrong, or that the disk does not give, is fetched from the same position
 * on an in-sync member, written back, and read again. Only when no member has it does the client get an error (I9).
 *
 * Invariant: after `close` every read ends as `elsewhere`, once its I/O has ended; nothing more is asked or written.
 */
import { BLOCK_BYTES, type Lsn, lsnAfter } from '@holdfast/base'
import type { ReplicaLog } from '@holdfast/volume-log'
import type { BlockDataMessage, VolumeEpoch } from '@holdfast/wire'
import type { NodeContext } from './context.ts'
import type { Link } from './peer-table.ts'

/** Blocks that one read may have repaired. */
const REPAIRS_PER_READ_MAX = 64
const FETCH_TIMEOUT_MS = 5_000

/**
 * How a read ended. `lost`: no copy in sync has it. `elsewhere`: the reign or the log has ended, the disk keeps nothing
 * any more, or a member gave no answer; whoever is primary then is to be asked again.
 */
export type ReadOutcome = 'read' | 'lost' | 'elsewhere'

/** `silent`: some member may have it, but has not answered. */
export type Mended = 'mended' | 'nowhere' | 'silent'

interface Fetch {
  readonly link: Link
  readonly done: (answer: Uint8Array | 'nothing' | 'silent') => void
  readonly cancel: () => void
}

export class RepairDesk {
  readonly #context: NodeContext
  readonly #scope: VolumeEpoch
  readonly #log: ReplicaLog
  readonly #links: () => Iterable<Link | undefined>
  readonly #diskFailed: (reason: string) => void
  readonly #fetches = new Map<number, Fetch>()
  #closed = false

  constructor(
    context: NodeContext,
    scope: VolumeEpoch,
    log: ReplicaLog,
    /** Of the members in sync; undefined for one that can't be reached. */
    links: () => Iterable<Link | undefined>,
    /** Another copy has what can't be read or mended here: this one should go. */
    diskFailed: (reason: string) => void,
  ) {
    this.#context = context
    this.#scope = scope
    this.#log = log
    this.#links = links
    this.#diskFailed = diskFailed
  }

  /** Reads from the committed map, off the event loop if need be, repairing on the way. */
  read(
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
    done: (outcome: ReadOutcome) => void,
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
    done: (outcome: ReadOutcome) => void,
  ): void {
    this.#readHealing(
      (finished) => this.#log.readLatestAsync(logicalBlock, target, targetOffset, finished),
      REPAIRS_PER_READ_MAX,
      done,
    )
  }

  /** Puts blocks of the log right again, from whichever in-sync member has them whole. */
  repair(position: Lsn, blockCount: number, done: (mended: Mended) => void): void {
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
    this.#finish(message.seq, message.ok && block?.length === BLOCK_BYTES ? block : 'nothing')
  }

  linkClosed(link: Link): void {
    for (const [seq, fetch] of this.#fetches) if (fetch.link === link) this.#finish(seq, 'silent')
  }

  close(): void {
    this.#closed = true
    for (const seq of [...this.#fetches.keys()]) this.#finish(seq, 'silent')
  }

  #finish(seq: number, answer: Uint8Array | 'nothing' | 'silent'): void {
    const fetch = this.#fetches.get(seq)
    this.#fetches.delete(seq)
    fetch?.cancel()
    fetch?.done(answer)
  }

  #readHealing(
    attempt: (finished: Parameters<ReplicaLog['read']>[4]) => void,
    repairsLeft: number,
    done: (outcome: ReadOutcome) => void,
    mended?: Lsn | undefined,
  ): void {
    attempt((error) => {
      if (error === undefined || this.#over) {
        done(this.#over ? 'elsewhere' : 'read')
        return
      }
      if (error.kind !== 'damaged' || repairsLeft === 0) {
        const fields = { volume: this.#scope.volume, problem: error.kind }
        this.#context.events.event('error', 'a read failed', fields)
        done('lost')
        return
      }
      if (error.lsn === mended) {
        this.#giveUp(`the disk does not keep log position ${error.lsn}`)
        done('elsewhere')
        return
      }
      this.repair(error.lsn, error.blockCount, (result) => {
        if (result === 'mended') this.#readHealing(attempt, repairsLeft - 1, done, error.lsn)
        else done(this.#over || result === 'silent' ? 'elsewhere' : 'lost')
      })
    })
  }

  /** Nothing that is read or mended here counts any more. */
  get #over(): boolean {
    return this.#closed || !this.#log.usable
  }

  #giveUp(reason: string): void {
    this.#closed = true
    this.#diskFailed(reason)
  }

  #repair(position: Lsn, blockCount: number, done: (mended: Mended) => void): void {
    if (blockCount === 0) {
      done('mended')
      return
    }
    this.#mend(position, (mended) => {
      if (mended === 'mended') this.#repair(lsnAfter(position, 1), blockCount - 1, done)
      else done(mended)
    })
  }

  /** One block, from the first of the members whose block is right. */
  #mend(position: Lsn, done: (mended: Mended) => void): void {
    const links = [...this.#links()]
    let otherwise: Mended = 'nowhere'
    const next = (): void => {
      if (links.length === 0 || this.#over) {
        done(otherwise)
        return
      }
      this.#fetch(links.shift(), position, (answer) => {
        if (typeof answer === 'string') {
          if (answer === 'silent') otherwise = 'silent'
          next()
          return
        }
        this.#put(position, answer, -1, (put) => {
          if (put === 'silent') otherwise = 'silent'
          if (put === 'mended') done(put)
          else next()
        })
      })
    }
    next()
  }

  /** `nowhere`: it is not the right one. `mendedHeader`: the last one that was mended on the way. */
  #put(position: Lsn, block: Uint8Array, mendedHeader: number, done: (mended: Mended) => void): void {
    if (this.#over) {
      done('nowhere')
      return
    }
    this.#log.repairBlocks(position, block, (error) => {
      if (error === undefined || this.#over) {
        done(error === undefined ? 'mended' : 'nowhere')
        return
      }
      if (error.kind !== 'wrong') {
        if (error.kind !== 'no-space') this.#giveUp(`log position ${position} can't be mended: ${error.message}`)
        done('nowhere')
        return
      }
      this.#log.damagedHeaderBefore(position, (header) => {
        if (header === undefined || header <= mendedHeader) {
          done('nowhere')
          return
        }
        // The checksums stand in the header: it comes first.
        this.#mend(header, (mended) => {
          if (mended === 'mended') this.#put(position, block, header, done)
          else done(mended)
        })
      })
    })
  }

  #fetch(link: Link | undefined, position: Lsn, done: Fetch['done']): void {
    if (link === undefined) {
      done('silent')
      return
    }
    // An answer to an earlier reign's question may come over the same link: its number must not be one of ours.
    const seq = this.#context.peers.nextNumber()
    const cancel = this.#context.scheduler.after(FETCH_TIMEOUT_MS, () => this.#finish(seq, 'silent'))
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
