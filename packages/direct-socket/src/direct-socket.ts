/**
 * Sockets that read straight into buffers of ours.
 *
 * Node offers this (`onread`) only where a socket is constructed, and a server constructs its
 * sockets itself. So the server pauses each connection before a byte is read, and the handle is
 * moved into a socket made here. Without the handle (another Node, another stream) the socket is
 * used as it is, with 'data'.
 */
import { Socket } from 'node:net'
import { getSystemErrorName } from 'node:util'
import { native } from '@holdfast/addon'
import { descriptorOf } from './descriptor.ts'
import { beginTurn, breakTurn, endTurn } from './turn.ts'

/** Read past the event loop in one round of it, at all sockets together: whatever else there is to do waits meanwhile. */
const REST_BYTES_MAX = 2 * 1024 * 1024
/** As so many counts what is less: who sends byte by byte is not worth a call for each. */
const RECEIVE_BYTES_MIN = 64 * 1024

export interface ByteSink {
  /**
   * Where the next bytes shall be read to. The same buffer may serve many sockets: see
   * `bytesRead`.
   */
  readBuffer(): Uint8Array
  /**
   * `count` bytes are at the start of `buffer`, which was `readBuffer()`. False: read no more for
   * now; the socket is resumed in a later turn. What this asks to be done at the end of the turn is done
   * before the next read.
   */
  bytesRead(count: number, buffer: Uint8Array): boolean
  /**
   * Where the rest of a large piece goes, while there is one that has begun: what has come of it meanwhile is read at once,
   * without a round of the event loop, and told by `bytesRead`. Counts as `readBuffer`. The turn does not end in between:
   * it is for pieces that nothing is done with before they are whole.
   */
  restBuffer?(): Uint8Array | undefined
}

interface HandleOwner {
  _handle?: unknown
  _server?: unknown
}

interface ReadingHandle {
  /** What its socket believes; a new one starts to read where this is false. */
  reading?: boolean
  readStop(): number
}

/**
 * The socket to use instead of `accepted`, which must have been paused on connect and not
 * touched.
 */
export function openForReading(accepted: Socket, sink: ByteSink): Socket {
  const owner = accepted as unknown as HandleOwner
  const handle = owner._handle
  if (typeof handle !== 'object' || handle === null || owner._server === undefined) {
    return readByEvents(accepted, sink)
  }
  return moved(owner, handle, sink)
}

/** The handle in a socket that reads into the sink's buffers. */
function moved(owner: HandleOwner, handle: object, sink: ByteSink): Socket {
  const server = owner._server
  owner._handle = null
  owner._server = null
  const reading = new Reading(sink)
  const socket = new Socket({ handle, allowHalfOpen: true, onread: reading.options } as SocketOptions)
  reading.socket = socket
  // A server counts its connections by this field, and is closed when there are none left.
  if (server !== undefined) (socket as unknown as HandleOwner)._server = server
  return socket
}

type SocketOptions = ConstructorParameters<typeof Socket>[0]

/** Reads a socket into the buffers of its sink. */
class Reading {
  readonly options: { readonly buffer: () => Uint8Array; readonly callback: (count: number, buffer: Uint8Array) => boolean }
  /** Set before the first read. */
  socket: Socket | undefined

  constructor(sink: ByteSink) {
    this.options = {
      buffer: () => sink.readBuffer(),
      callback: (count, buffer) => {
        beginTurn()
        let more: boolean
        try {
          more = sink.bytesRead(count, buffer) && this.#readRest(sink)
        } catch (error) {
          breakTurn()
          throw error
        }
        endTurn()
        return more
      },
    }
  }

  /** A client's socket often holds less than one payload: it goes on sending while what came is being read. */
  #readRest(sink: ByteSink): boolean {
    while (restBytes < REST_BYTES_MAX) {
      const rest = sink.restBuffer?.()
      // A descriptor that is closed may be somebody else's already.
      if (rest === undefined || this.socket === undefined || this.socket.destroyed) return true
      const fd = descriptorOf(this.socket)
      const count = fd === undefined ? 0 : native.receive(fd, rest)
      if (count < 0) this.socket.destroy(receiveError(-count))
      if (count <= 0) return true
      if (restBytes === 0) setImmediate(newRound)
      restBytes += Math.max(count, RECEIVE_BYTES_MIN)
      if (!sink.bytesRead(count, rest)) return false
    }
    return true
  }
}

/** In this round of the event loop. */
let restBytes = 0
const newRound = (): void => void (restBytes = 0)

function receiveError(errno: number): Error {
  const code = getSystemErrorName(-errno)
  return Object.assign(new Error(`recv ${code}`), { code })
}

/**
 * A descriptor of the connection for another thread of this process, which makes a socket of it by `openDescriptor`. The
 * socket given ends, the connection goes on. Undefined, and nothing goes on: it has closed already, it has not sent all it
 * was to write, or the process may have no further descriptor.
 */
export function giveAway(socket: Socket): number | undefined {
  const fd = socket.destroyed || socket.writableLength > 0 ? undefined : descriptorOf(socket)
  let copy: number | undefined
  try {
    if (fd !== undefined) copy = native.duplicate(fd)
  } catch {
    // EMFILE: whoever is at the other end tries again when there are fewer.
  }
  socket.destroy()
  return copy
}

/** A socket over a descriptor that another thread gave away. Reads from the next turn on. */
export function openDescriptor(fd: number, sink: ByteSink): Socket {
  const reading = new Reading(sink)
  const given = { fd, readable: true, writable: true, allowHalfOpen: true, onread: reading.options }
  reading.socket = new Socket(given as SocketOptions)
  return reading.socket
}

/**
 * The same for a socket that has been read until now, by an HTTP handshake for instance: call it where no event can
 * come in between. What was read and not taken goes to the sink first, at the end of the turn. Whoever held `used` may
 * destroy it, which ends nothing any more.
 */
export function takeOver(used: Socket, sink: ByteSink): Socket {
  const owner = used as unknown as HandleOwner
  const handle = owner._handle
  used.removeAllListeners('data')
  const rest = used.read() as Buffer | null
  const give = (): void => {
    if (rest !== null) sink.bytesRead(rest.length, rest)
  }
  if (!isReadingHandle(handle)) {
    process.nextTick(() => {
      give()
      readByEvents(used, sink)
    })
    return used
  }
  handle.readStop()
  handle.reading = false
  process.nextTick(give)
  return moved(owner, handle, sink)
}

function isReadingHandle(handle: unknown): handle is ReadingHandle {
  return typeof handle === 'object' && handle !== null && 'readStop' in handle && typeof handle.readStop === 'function'
}

/** The ordinary way: the stream allocates its chunks, and large payloads are copied. */
export function readByEvents(socket: Socket, sink: ByteSink): Socket {
  socket.on('data', (chunk) => {
    if (!sink.bytesRead(chunk.length, chunk)) socket.pause()
  })
  socket.resume()
  return socket
}
