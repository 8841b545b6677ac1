import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FRAME_BYTES_MAX, OPCODE, wholeFrame } from './frame.ts'
import { type FrameHandler, FrameReader } from './frame-reader.ts'

class Got implements FrameHandler {
  readonly events: string[] = []
  readonly #takes: boolean
  constructor(takes: boolean) {
    this.#takes = takes
  }
  /** Others are copied by the reader; that way or this, the same messages come. */
  begins(bytes: Uint8Array, start: number, end: number): Buffer[] | undefined {
    return this.#takes ? [Buffer.from(bytes.subarray(start, end))] : undefined
  }
  message(fragments: Buffer[]): void {
    this.events.push(`message ${fragments.map((one) => one.toString('latin1')).join('|')}`)
  }
  ping(payload: Uint8Array): void {
    this.events.push(`ping ${Buffer.from(payload).toString('latin1')}`)
  }
  closing(reason: string): void {
    this.events.push(`closing ${reason}`)
  }
  malformed(problem: string): void {
    this.events.push(`malformed ${problem}`)
  }
}

/** Gives the bytes to a reader as a socket would: to where it wants them, `cut` at a time at most. */
function read(bytes: Uint8Array, cut: (left: number) => number, takes = false): string[] {
  const got = new Got(takes)
  const reader = new FrameReader(got)
  for (let at = 0; at < bytes.length; ) {
    const into = reader.readBuffer()
    const count = Math.min(into.length, bytes.length - at, Math.max(1, cut(bytes.length - at)))
    into.set(bytes.subarray(at, at + count))
    reader.bytesRead(count, into)
    at += count
  }
  return got.events
}

const whole = (bytes: Uint8Array): string[] => read(bytes, (left) => left)
const head = (...bytes: number[]): Buffer => Buffer.from(bytes)
const filled = (length: number, seed: number): Buffer => Buffer.alloc(length, String.fromCharCode(97 + (seed % 26)))

/** A binary message in two fragments. */
function fragmented(first: Buffer, second: Buffer, isClient: boolean): Buffer {
  const frames = [wholeFrame(OPCODE.binary, first, isClient), wholeFrame(OPCODE.binary, second, isClient)]
  const [a, b] = frames as [Buffer, Buffer]
  a[0] = 0x02
  b[0] = 0x80
  return Buffer.concat(frames)
}

describe('a reader of frames', () => {
  it('gives the same messages however the bytes are cut', () => {
    const length = fc.oneof(fc.nat(300), fc.constantFrom(125, 126, 65_535, 65_536), fc.nat(100_000))
    const kind = fc.constantFrom('plain', 'fragmented', 'ping')
    const parts = fc.array(fc.record({ kind, length, isClient: fc.boolean() }), { minLength: 1, maxLength: 6 })
    const cuts = fc.array(fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 70_000 })), { minLength: 1 })
    fc.assert(
      fc.property(parts, cuts, (messages, pieces) => {
        const expected: string[] = []
        const bytes = messages.map(({ kind, length, isClient }, i) => {
          const payload = filled(kind === 'ping' ? length % 126 : length, i)
          const text = payload.toString('latin1')
          if (kind === 'ping') {
            expected.push(`ping ${text}`)
            return wholeFrame(OPCODE.ping, payload, isClient)
          }
          expected.push(kind === 'plain' ? `message ${text}` : `message ${['head', ...(length > 0 ? [text] : [])].join('|')}`)
          return kind === 'plain' ? wholeFrame(OPCODE.binary, payload, isClient) : fragmented(Buffer.from('head'), payload, isClient)
        })
        for (const takes of [false, true]) {
          let turn = 0
          expect(read(Buffer.concat(bytes), () => pieces[turn++ % pieces.length] as number, takes)).toEqual(expected)
        }
      }),
      { numRuns: 200 },
    )
  })

  it('takes a control frame between two fragments of a message', () => {
    const message = fragmented(Buffer.from('one'), Buffer.from('two'), false)
    const bytes = Buffer.concat([message.subarray(0, 5), wholeFrame(OPCODE.ping, Buffer.from('p'), false), message.subarray(5)])
    expect(whole(bytes)).toEqual(['ping p', 'message one|two'])
  })

  it('gives each message memory of its own', () => {
    const kept: Buffer[][] = []
    const got = new Got(false)
    got.message = (fragments) => void kept.push(fragments)
    const reader = new FrameReader(got)
    for (let i = 0; i < 5; i++) {
      const into = reader.readBuffer()
      const frame = wholeFrame(OPCODE.binary, filled(3000, i), false)
      into.set(frame)
      reader.bytesRead(frame.length, into)
    }
    kept.forEach((fragments, i) => expect(fragments[0]?.equals(filled(3000, i))).toBe(true))
  })

  it('says why the other end closes', () => {
    expect(whole(wholeFrame(OPCODE.close, Buffer.from('\u0003\u00f0not ready', 'latin1'), true))).toEqual(['closing not ready'])
  })

  it.each([
    ['a reserved bit', head(0xc2, 0), /reserved/],
    ['text', head(0x81, 1, 65), /opcode 1/],
    ['a mask that is not zero', head(0x82, 0x81, 1, 2, 3, 4, 65), /masked/],
    ['a continuation of nothing', head(0x80, 1, 65), /mixed up/],
    ['a message inside another', head(0x02, 1, 65, 0x82, 1, 65), /mixed up/],
    ['a long control frame', head(0x89, 126, 1, 0), /control/],
    ['a control frame in parts', head(0x09, 0), /control/],
    ['a message that is too long', head(0x82, 127, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff), /bytes/],
    ['an absurd length', head(0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0), /bytes/],
  ])('refuses %s, and takes nothing after it', (_what, bytes, words) => {
    const events = whole(Buffer.concat([bytes, wholeFrame(OPCODE.binary, Buffer.from('after'), false)]))
    expect(events).toHaveLength(1)
    expect(events[0]).toMatch(/^malformed/)
    expect(events[0]).toMatch(words)
    expect(FRAME_BYTES_MAX).toBeLessThan(2 ** 32 - 1)
  })

  it('lets an error of who takes the message pass', () => {
    const got = new Got(false)
    got.message = () => {
      throw new Error('a bug')
    }
    const reader = new FrameReader(got)
    const frame = wholeFrame(OPCODE.binary, Buffer.from('x'), false)
    reader.readBuffer().set(frame)
    expect(() => reader.bytesRead(frame.length, reader.readBuffer())).toThrow('a bug')
  })
})
