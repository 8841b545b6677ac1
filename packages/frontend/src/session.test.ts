import { errno, type ExportInfo, nodeId, sessionId } from '@holdfast/base'
import { describe, expect, it } from 'vitest'
import { FrontendSession, OUTSTANDING_MAX, type PieceSink, type VolumeTarget } from './index.ts'

/** Takes everything and answers nothing by itself. */
class SilentTarget implements VolumeTarget {
  readonly sink: { current: PieceSink | undefined } = { current: undefined }
  readonly zeroes: (readonly [seq: number, offset: number, length: number])[] = []
  readonly flushes: number[] = []
  readonly reserved = new Set<Uint8Array>()
  read(): boolean {
    return false
  }
  write(sink: PieceSink, _seq: number, _offset: number, source: Uint8Array): void {
    this.sink.current = sink
    this.reserved.delete(source)
  }
  zero(sink: PieceSink, seq: number, offset: number, length: number): void {
    this.sink.current = sink
    this.zeroes.push([seq, offset, length])
  }
  flush(sink: PieceSink, seq: number): void {
    this.sink.current = sink
    this.flushes.push(seq)
  }
  position(): undefined {
    return undefined
  }
  blockStatus(): void {}
  reserve(length: number): Uint8Array {
    const buffer = new Uint8Array(length)
    this.reserved.add(buffer)
    return buffer
  }
  received(): void {}
  unreserve(reserved: Uint8Array): void {
    this.reserved.delete(reserved)
  }
  detach(): void {}
}

function opened() {
  const target = new SilentTarget()
  const done: (readonly [token: number, error: number])[] = []
  const session = new FrontendSession(
    {} as ExportInfo,
    sessionId(1),
    nodeId('a'),
    (token, error) => done.push([token, error]),
    () => {},
    (task) => queueMicrotask(task),
  )
  session.setTarget(target)
  return { session, target, done }
}

const TIB = 2 ** 40
const options = { fua: false, keepAllocated: false }

describe('a session', () => {
  it('cuts zeroes that are longer than a record can say, and answers once', () => {
    const { session, target, done } = opened()
    session.zero(7, 4096, 17 * TIB + 8192, options)
    expect(target.zeroes.length).toBe(18)
    expect(target.zeroes[0]?.slice(1)).toEqual([4096, TIB])
    expect(target.zeroes[17]?.slice(1)).toEqual([4096 + 17 * TIB, 8192])
    for (const [seq] of target.zeroes.slice(0, 17)) target.sink.current?.pieceDone(seq, errno.OK)
    expect(done).toEqual([])
    target.sink.current?.pieceDone(target.zeroes[17]?.[0] ?? 0, errno.OK)
    expect(done).toEqual([[7, errno.OK]])
  })

  it('sends a request without a length, too', () => {
    const { session, target, done } = opened()
    session.zero(3, 0, 0, options)
    expect(target.zeroes.length).toBe(1)
    target.sink.current?.pieceDone(target.zeroes[0]?.[0] ?? 0, errno.OK)
    expect(done).toEqual([[3, errno.OK]])
  })

  it('gives back what was reserved for requests that never got their turn', () => {
    const { session, target } = opened()
    for (let token = 0; token < OUTSTANDING_MAX; token++) session.flush(token)
    for (let token = 0; token < 3; token++) session.writeReserved(OUTSTANDING_MAX + token, 0, session.reserve(65_536), false)
    expect(target.reserved.size).toBe(3)
    // One gets its turn, two are left.
    target.sink.current?.pieceDone(target.flushes[0] ?? 0, errno.OK)
    expect(target.reserved.size).toBe(2)
    session.close()
    expect(target.reserved.size).toBe(0)
  })
})
