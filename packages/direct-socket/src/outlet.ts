/**
 * What leaves a socket, past its stream while that holds nothing back: one system call. A stream makes half a dozen
 * objects for each write and is called again at the end of the turn, which costs more than the call.
 *
 * Invariants:
 * - Bytes leave in the order in which they were given, here and, while none are kept here, to the stream.
 * - Each `done` is called once, and only where `send` said false.
 */
import type { Socket } from 'node:net'
import { native } from '@holdfast/addon'
import { descriptorOf } from './descriptor.ts'

const NEVER_APART = 2 ** 32 - 1

/** What the kernel did not take. */
interface Rest {
  readonly parts: readonly Uint8Array[]
  readonly bounds: Uint32Array
  readonly count: number
  readonly done: () => void
  /** The first part that the kernel does not have whole. */
  readonly next: number
}

export class Outlet {
  readonly #socket: Socket
  /** Undefined where it has none: everything goes by the stream then. */
  readonly #fd: number | undefined
  readonly #apart: number
  /** The stream has its first part only: the others leave past it once that has left. */
  #rest: Rest | undefined
  #next = 0
  #taken = 0

  /**
   * Parts of `apartBytes` and more are messages of their own. A unix socket has such a message at the beginning of a page, as
   * it lies here, where behind a small part every load would cross a line of the cache. Lists of parts and bounds have to
   * stay as they are until `done` then.
   */
  constructor(socket: Socket, apartBytes = NEVER_APART) {
    this.#socket = socket
    this.#fd = descriptorOf(socket)
    this.#apart = apartBytes
  }

  /**
   * Sends `parts[i][bounds[2 * i], bounds[2 * i + 1])` for i below `count`. True: the kernel has them all. False: it will
   * get the rest, and the bytes have to stay as they are until `done` is called: all is sent then, or can't be.
   */
  send(parts: readonly Uint8Array[], bounds: Uint32Array, count: number, done: () => void): boolean {
    const earlier = this.#rest
    if (earlier !== undefined) {
      this.#rest = undefined
      this.#queue(earlier, earlier.next + 1, earlier.count, 0, earlier.done)
    }
    if (this.#pass(parts, bounds, count, 0)) return true
    this.#keep({ parts, bounds, count, done, next: this.#next })
    return false
  }

  /** To the kernel, from part `from` on, as much as it takes: all, or up to `#taken` bytes of part `#next`. */
  #pass(parts: readonly Uint8Array[], bounds: Uint32Array, count: number, from: number): boolean {
    let next = from
    let taken = 0
    if (this.#fd !== undefined && this.#socket.writable && this.#socket.writableLength === 0) {
      while (next < count && taken === 0) {
        taken = native.send(this.#fd, parts, bounds, next, count - next, this.#apart)
        if (taken === 0) break
        while (next < count && taken >= lengthOf(bounds, next)) taken -= lengthOf(bounds, next++)
      }
    }
    this.#next = next
    this.#taken = taken
    return next === count
  }

  #keep(rest: Rest): void {
    const { bounds, count, next, done } = rest
    let large = next + 1
    while (large < count && lengthOf(bounds, large) < this.#apart) large++
    if (large >= count) {
      this.#queue(rest, next, count, this.#taken, done)
    } else {
      this.#rest = rest
      this.#queue(rest, next, next + 1, this.#taken, (error) => this.#goOn(rest, error ?? undefined))
    }
  }

  /** The part that the stream had of it has left, or can't. */
  #goOn(rest: Rest, error: Error | undefined): void {
    if (this.#rest !== rest) return
    this.#rest = undefined
    if (error !== undefined || this.#pass(rest.parts, rest.bounds, rest.count, rest.next + 1)) rest.done()
    else this.#keep({ ...rest, next: this.#next })
  }

  /** Parts `first` to `end` - 1 to the stream; of the first the kernel has `taken` bytes. */
  #queue({ parts, bounds }: Rest, first: number, end: number, taken: number, done: (error?: Error | null) => void): void {
    const socket = this.#socket
    if (end - first > 1) socket.cork()
    for (let i = first; i < end; i++) {
      const start = (bounds[2 * i] as number) + (i === first ? taken : 0)
      const bytes = (parts[i] as Uint8Array).subarray(start, bounds[2 * i + 1])
      if (i === end - 1) socket.write(bytes, done)
      else socket.write(bytes)
    }
    if (end - first > 1) socket.uncork()
  }
}

function lengthOf(bounds: Uint32Array, part: number): number {
  return (bounds[2 * part + 1] as number) - (bounds[2 * part] as number)
}
