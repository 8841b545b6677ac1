import { epoch, type Lsn, nodeId } from '@holdfast/base'
import type { PeerMessage } from '@holdfast/wire'
import { describe, expect, it, vi } from 'vitest'
import { BLOCK, Harness } from '../../volume-log/src/testing/harness.ts'
import type { NodeContext } from './context.ts'
import type { Link } from './peer-table.ts'
import { RepairDesk } from './repair-desk.ts'

type Answer = (position: Lsn) => Uint8Array | 'no' | 'silence'

/** A log of twelve batches of one block each (batch i lies at 2i, its block at 2i + 1), and members that answer for it. */
class Bench {
  readonly h = new Harness({ segmentBlocks: 16, crcBytes: 16 * 4 }).open()
  readonly asked: string[] = []
  readonly failures: string[] = []
  readonly #links: Link[] = []
  readonly #whole: Uint8Array[] = []
  readonly #context: NodeContext
  desk: RepairDesk

  constructor() {
    for (let i = 0; i < 12; i++) this.h.write([i, i + 1])
    this.h.commit()
    this.h.flush()
    for (const segment of [0, 1]) this.#whole.push(this.h.disk.bytesOf(this.h.segmentFile(segment))?.slice() ?? new Uint8Array())
    let question = 0
    this.#context = {
      scheduler: this.h.scheduler,
      events: { event: () => {} },
      statistics: { damagedBlocks: 0 },
      peers: { nextNumber: () => ++question },
    } as unknown as NodeContext
    this.desk = this.newDesk()
  }

  newDesk(): RepairDesk {
    const scope = { volume: this.h.volume, epoch: epoch(1) }
    return new RepairDesk(this.#context, scope, this.h.log, () => this.#links, (reason) => this.failures.push(reason))
  }

  /** What every whole copy has there. */
  readonly right = (position: number): Uint8Array => {
    const at = (position % 16) * BLOCK
    return this.#whole[position >> 4]?.slice(at, at + BLOCK) ?? new Uint8Array()
  }

  flip(position: number): void {
    this.h.disk.flipBit(this.h.segmentFile(position >> 4), (position % 16) * BLOCK + 40, 1)
  }

  spoil(position: number): void {
    this.h.spoil(position)
  }

  member(name: string, answer: Answer): void {
    const node = nodeId(name)
    const send = (message: PeerMessage): void => {
      if (message.type !== 'block-fetch') throw new Error(`a ${message.type} was sent`)
      this.asked.push(`${name}:${message.lsn}`)
      const given = answer(message.lsn)
      if (given !== 'silence') this.h.scheduler.after(1, () => this.reply(node, message.seq, given))
    }
    this.#links.push({ node, send } as unknown as Link)
  }

  reply(name: string, seq: number, given: Uint8Array | 'no'): void {
    const link = this.#links.find(({ node }) => node === name)
    if (link === undefined) throw new Error('no such member')
    const [ok, payload] = given === 'no' ? [false, []] : [true, [given]]
    this.desk.answered(link, { type: 'block-data', volume: this.h.volume, seq, ok, payload })
  }

  /** How a read of one block ended, and its first byte. */
  read(block: number): [unknown, number | undefined] {
    const target = new Uint8Array(BLOCK)
    const [outcome] = this.h.wait<[unknown]>((done) => this.desk.read(block * BLOCK, BLOCK, target, 0, done))
    return [outcome, target[0]]
  }
}

describe('a block that does not check', () => {
  it('is asked of the next member when the first has none that is right, or none', () => {
    const bench = new Bench()
    bench.member('n2', () => 'no')
    bench.member('n3', () => new Uint8Array(BLOCK))
    bench.member('n4', bench.right)
    bench.flip(3)
    expect(bench.read(1)).toEqual(['read', 2])
    expect(bench.asked).toEqual(['n2:3', 'n3:3', 'n4:3'])
    expect(bench.h.fill(1)).toBe(2)
  })

  it('is lost when no member has it right', () => {
    const bench = new Bench()
    bench.member('n2', () => new Uint8Array(BLOCK))
    bench.member('n3', () => 'no')
    bench.flip(3)
    expect(bench.read(1)[0]).toBe('lost')
    expect(bench.failures).toEqual([])
  })

  it('may still be had when a member gave no answer', () => {
    const bench = new Bench()
    bench.member('n2', () => 'silence')
    bench.member('n3', () => 'no')
    bench.flip(3)
    expect(bench.read(1)[0]).toBe('elsewhere')
    expect(bench.asked).toEqual(['n2:3', 'n3:3'])
    expect(bench.failures).toEqual([])
  })

  it('is not taken from the answer to a question of an earlier reign', () => {
    const bench = new Bench()
    bench.member('n2', (position) => {
      if (bench.asked.length === 1) return 'silence'
      bench.h.scheduler.after(0.5, () => bench.reply('n2', 1, 'no'))
      return bench.right(position)
    })
    bench.flip(3)
    bench.desk.read(BLOCK, BLOCK, new Uint8Array(BLOCK), 0, () => {})
    bench.h.scheduler.run(() => bench.asked.length === 1)
    bench.desk.close()
    bench.desk = bench.newDesk()
    expect(bench.read(1)).toEqual(['read', 2])
    expect(bench.asked).toHaveLength(2)
  })
})

describe('a block whose batch has a damaged header', () => {
  it('is right again after that header', () => {
    const bench = new Bench()
    bench.member('n2', bench.right)
    bench.flip(2)
    expect(bench.read(1)).toEqual(['read', 2])
    expect(bench.asked).toEqual(['n2:3', 'n2:2'])
    expect(bench.h.disk.bytesOf(bench.h.segmentFile(0))?.slice(2 * BLOCK, 3 * BLOCK)).toEqual(bench.right(2))
  })

  it('is right again after all headers that hide it, from whoever has which', () => {
    const bench = new Bench()
    bench.member('n2', (position) => (position === 4 ? 'no' : bench.right(position)))
    bench.member('n3', (position) => (position === 4 ? bench.right(4) : 'no'))
    for (const position of [2, 4, 5]) bench.flip(position)
    expect(bench.read(2)).toEqual(['read', 3])
    expect(bench.asked).toEqual(['n2:5', 'n2:2', 'n2:4', 'n3:4'])
  })

  it('is lost when nobody has the header', () => {
    const bench = new Bench()
    bench.member('n2', (position) => (position === 2 ? 'no' : bench.right(position)))
    bench.flip(2)
    expect(bench.read(1)[0]).toBe('lost')
    expect(bench.failures).toEqual([])
  })
})

describe('a block that the disk does not give', () => {
  it('is fetched from a member as if it were damaged', () => {
    const bench = new Bench()
    bench.member('n2', bench.right)
    bench.spoil(3)
    expect(bench.read(1)).toEqual(['read', 2])
    expect(bench.asked).toEqual(['n2:3'])
  })

  it('is read after all where the disk fails only once', () => {
    const bench = new Bench()
    bench.member('n2', bench.right)
    bench.h.disk.failNext = 'read'
    expect(bench.read(1)).toEqual(['read', 2])
    expect(bench.asked).toEqual([])
  })

  it('is an error when nobody else has it', () => {
    const bench = new Bench()
    bench.spoil(3)
    expect(bench.read(1)[0]).toBe('lost')
    expect(bench.failures).toEqual([])
  })

  it('ends this copy when another has it and the disk does not take it', () => {
    const bench = new Bench()
    bench.member('n2', bench.right)
    bench.flip(3)
    vi.spyOn(bench.h.log, 'repairBlocks').mockImplementation((_position, _block, done) => done(undefined))
    expect(bench.read(1)[0]).toBe('elsewhere')
    expect(bench.failures).toHaveLength(1)
    expect(bench.asked).toHaveLength(1)
  })
})

describe('a read that is mended while the reign ends', () => {
  it('is to be asked elsewhere', () => {
    const bench = new Bench()
    bench.member('n2', () => 'silence')
    bench.flip(3)
    const outcomes: unknown[] = []
    bench.desk.read(BLOCK, BLOCK, new Uint8Array(BLOCK), 0, (outcome) => outcomes.push(outcome))
    bench.h.scheduler.run(() => bench.asked.length === 1)
    bench.desk.close()
    expect(outcomes).toEqual(['elsewhere'])
    bench.reply('n2', 1, bench.right(3))
    expect(bench.read(0)[0]).toBe('elsewhere')
    expect(bench.asked).toHaveLength(1)
    expect(outcomes).toHaveLength(1)
  })

  it('is to be asked elsewhere when the log has ended', () => {
    const bench = new Bench()
    const { log } = bench.h
    bench.h.wait<[unknown]>((done) => log.close(true, done))
    expect(bench.read(1)[0]).toBe('elsewhere')
  })
})
