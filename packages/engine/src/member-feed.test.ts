import { epoch, type Lsn, lsn, nodeId } from '@holdfast/base'
import type { PeerMessage, SubscribeMessage } from '@holdfast/wire'
import { describe, expect, it } from 'vitest'
import { BLOCK, Harness } from '../../volume-log/src/testing/harness.ts'
import { InFlight } from './in-flight.ts'
import { type FeedOwner, MemberFeed } from './member-feed.ts'
import type { Link } from './peer-table.ts'
import type { Mended } from './repair-desk.ts'

const MEMBER = nodeId('b')

/** A primary's log of twelve batches of one block each (batch i lies at 2i, its block at 2i + 1), and one member to feed. */
class Bench implements FeedOwner {
  readonly h = new Harness({ segmentBlocks: 16 }).open()
  readonly scope = { volume: this.h.volume, epoch: epoch(1) }
  readonly log = this.h.log
  readonly inFlight = new InFlight()
  readonly windowBytes = 1 << 30
  readonly segmentBlocks = 16
  readonly sent: PeerMessage[] = []
  readonly ended: string[] = []
  /** What the other members have of a block. */
  mends: (position: Lsn) => Mended = () => 'nowhere'
  readonly asked: Lsn[] = []
  waiting: (() => void) | undefined
  holesAllowed = false
  readonly feed: MemberFeed

  constructor(commitBelow = 12) {
    for (let i = 0; i < 12; i++) {
      this.h.write([i, i + 1])
      if (i < commitBelow) this.h.commit()
    }
    const link = { node: MEMBER, send: (message: PeerMessage) => this.sent.push(message), bufferedBytes: () => 0 }
    this.feed = new MemberFeed(this, link as unknown as Link, lsn(0))
  }

  committedLsn(): Lsn {
    return this.log.committedLsn
  }
  repair(position: Lsn, _blockCount: number, done: (mended: Mended) => void): void {
    this.asked.push(position)
    done(this.mends(position))
  }
  feedLive(): void {}
  feedLagging(): void {}
  feedFailed(): void {
    this.ended.push('failed')
    this.feed.end()
  }
  feedUnreadable(): void {
    this.ended.push('unreadable')
    this.feed.end()
  }
  mayRebuild(): boolean {
    return true
  }
  mayLeaveHoles(_node: unknown, _positions: readonly Lsn[], again: () => void): boolean {
    if (!this.holesAllowed) this.waiting = again
    return this.holesAllowed
  }

  start(rebuilding: boolean): this {
    const positions = { appendedLsn: lsn(0), committedLsn: lsn(0), durableLsn: lsn(0) }
    const empty = { epochTable: [], segments: [], lastHeaderCrc: 0 }
    const message: SubscribeMessage = { type: 'subscribe', ...this.scope, seq: 7, ...positions, ...empty, rebuilding }
    this.feed.start(message, false)
    this.h.scheduler.run()
    return this
  }

  get kinds(): string[] {
    return this.sent.map(({ type }) => type)
  }

  /** The byte that fills a block, as it was sent in a rebuild. */
  sentFill(position: number): number | undefined {
    for (const message of this.sent) {
      if (message.type === 'segment-data' && message.segment === position >> 4) return message.payload[0]?.[(position % 16) * BLOCK]
    }
    return undefined
  }
}

describe('a member', () => {
  it('is fed from the log where that reaches back far enough', () => {
    expect(new Bench().start(false).kinds.slice(0, 2)).toEqual(['accepted', 'append'])
  })

  it('whose copy is half made is rebuilt further all the same: it can take no batch', () => {
    expect(new Bench().start(true).kinds.slice(0, 2)).toEqual(['rebuild', 'segment-data'])
  })

  it('is not asked to be made anew for what is not committed', () => {
    const uncommitted = new Bench(6)
    uncommitted.h.spoil(15)
    uncommitted.start(false)
    expect([uncommitted.asked, uncommitted.ended]).toEqual([[15], ['failed']])
    const committed = new Bench(12)
    committed.h.spoil(15)
    committed.start(false)
    expect([committed.asked, committed.ended]).toEqual([[15], ['unreadable']])
  })
})

describe('a rebuild past a sector that can not be read', () => {
  it('takes what another member has', () => {
    const bench = new Bench()
    const heal = bench.h.spoil(5)
    bench.mends = () => {
      heal()
      return 'mended'
    }
    bench.start(true)
    expect(bench.asked).toEqual([5])
    expect([bench.sentFill(5), bench.sentFill(7), bench.sentFill(23)]).toEqual([3, 4, 12])
  })

  it('waits where nobody has it, in case that the disk gives it after all', () => {
    const bench = new Bench()
    const heal = bench.h.spoil(5)
    bench.start(true)
    expect([bench.kinds, bench.ended]).toEqual([['rebuild'], []])
    heal()
    bench.waiting?.()
    bench.h.scheduler.run()
    expect([bench.sentFill(5), bench.sentFill(7)]).toEqual([3, 4])
  })

  it('leaves it out in the end, with all that is whole around it', () => {
    const bench = new Bench()
    bench.h.spoil(5)
    bench.start(true)
    bench.holesAllowed = true
    bench.waiting?.()
    bench.h.scheduler.run()
    expect(bench.asked).toEqual([5])
    expect([bench.sentFill(3), bench.sentFill(5), bench.sentFill(7)]).toEqual([2, 0, 4])
  })

  it('ends where a member that may have it is silent, and asks once for what the disk does not keep', () => {
    const silent = new Bench()
    silent.h.spoil(5)
    silent.mends = () => 'silent'
    silent.start(true)
    expect([silent.kinds, silent.ended]).toEqual([['rebuild'], ['failed']])
    const lying = new Bench()
    lying.h.spoil(5)
    lying.mends = () => 'mended'
    lying.start(true)
    expect([lying.asked, lying.waiting === undefined]).toEqual([[5], false])
  })
})
