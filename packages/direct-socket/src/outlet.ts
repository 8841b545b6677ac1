/**
 * What leaves a socket, past its stream while that holds nothing back: one system call. A stream makes half a dozen
 * objects for each write and is called again at the end of the turn, which costs more than the call.
 *
 * Invariant: bytes leave in the order in which they were given, here and to the stream.
 */
import type { Socket } from 'node:net'
import { native } from '@holdfast/addon'
import { descriptorOf } from './descriptor.ts'

export class Outlet {
  readonly #socket: Socket
  /** Undefined where it has none: everything goes by the stream then. */
  readonly #fd: number | undefined

  constructor(socket: Socket) {
    this.#socket = socket
    this.#fd = descriptorOf(socket)
  }

  /**
   * Sends `parts[i][bounds[2 * i], bounds[2 * i + 1])` for i below `count`. True: the kernel has them all. False: the
   * rest is with the stream, which needs the parts as they are until it calls `done`, sent or not.
   */
  send(parts: readonly Uint8Array[], bounds: Uint32Array, count: number, done: () => void): boolean {
    let next = 0
    // The part of `next` that the kernel has.
    let taken = 0
    if (this.#fd !== undefined && this.#socket.writable && this.#socket.writableLength === 0) {
      while (next < count && taken === 0) {
        taken = native.send(this.#fd, parts, bounds, next, count - next)
        if (taken === 0) break
        while (next < count && taken >= lengthOf(bounds, next)) taken -= lengthOf(bounds, next++)
      }
      if (next === count) return true
    }
    this.#queue(parts, bounds, count, next, taken, done)
    return false
  }

  #queue(
    parts: readonly Uint8Array[],
    bounds: Uint32Array,
    count: number,
    first: number,
    taken: number,
    done: () => void,
  ): void {
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
