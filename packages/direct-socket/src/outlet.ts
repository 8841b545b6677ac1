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

/**
 * A part of so many bytes may be a message of its own. A unix socket has it at the beginning of a page then, as it lies
 * here, where behind the header of its reply every load would cross a line of the cache (12 % of a read of 1 MiB).
 */
const APART_BYTES = 128 * 1024
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

  /** `largeApart`: of use on unix sockets only; parts and bounds that are given have to stay as they are until `done` then. */
  constructor(socket: Socket, largeApart = false) {
    this.#socket = socket
    this.#fd = descriptorOf(socket)
    this.#apart = largeApart ? APART_BYTES : NEVER_APART
  }

  /**
   * Sends `parts[i][bounds[2 * i], bounds[2 * i + 1])` for i below `count`. True: the kernel has them all. False: it will
   * get the rest, and the bytes have to stay as they are until `done` is called: all is sent then, or can't be.
   */
  send(parts: readonly Uint8Array[], bounds: Uint32Array, count: number, done: () => void): boolean {
    const earlier = this.#rest
    if (earlier !== undefined) {
      this.#rest = undefined
      this.#queue(earlier, earlier.next + 1, 0)
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
    const { parts, bounds, count, next } = rest
    let large = next + 1
    while (large < count && lengthOf(bounds, large) < this.#apart) large++
    if (large >= count) {
      this.#queue(rest, next, this.#taken)
      return
    }
    this.#rest = rest
    const bytes = (parts[next] as Uint8Array).subarray((bounds[2 * next] as number) + this.#taken, bounds[2 * next + 1])
    this.#socket.write(bytes, (error) => this.#goOn(rest, error ?? undefined))
  }

  /** The part that the stream had of it has left, or can't. */
  #goOn(rest: Rest, error: Error | undefined): void {
    if (this.#rest !== rest) return
    this.#rest = undefined
    if (error !== undefined || this.#pass(rest.parts, rest.bounds, rest.count, rest.next + 1)) rest.done()
    else this.#keep({ ...rest, next: this.#next })
  }

  /** To the stream, from part `first` on, of which the kernel has `taken` bytes. */
  #queue({ parts, bounds, count, done }: Rest, first: number, taken: number): void {
    const socket = this.#socket
    if (count - first > 1) socket.cork()
    for (let i = first; i < count; i++) {
      const start = (bounds[2 * i] as number) + (i === first ? taken : 0)
      const bytes = (parts[i] as Uint8Array).subarray(start, bounds[2 * i + 1])
      if (i === count - 1) socket.write(bytes, done)
      else socket.write(bytes)
    }
    if (count - first > 1) socket.uncork()
  }
}

function lengthOf(bounds: Uint32Array, part: number): number {
  return (bounds[2 * part + 1] as number) - (bounds[2 * part] as number)
}
