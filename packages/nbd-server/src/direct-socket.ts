/**
 * Sockets that read straight into buffers of ours.
 *
 * Node offers this (`onread`) only where a socket is constructed, and a server constructs its
 * sockets itself. So the server pauses each connection before a byte is read, and the handle is
 * moved into a socket made here. Without the handle (another Node, another stream) the socket is
 * used as it is, with 'data'.
 */
import { Socket } from 'node:net'

export interface ByteSink {
  /**
   * Where the next bytes shall be read to. The same buffer may serve many sockets: see
   * `bytesRead`.
   */
  readBuffer(): Uint8Array
  /**
   * `count` bytes are at the start of `buffer`, which was `readBuffer()`. False: read no more for
   * now.
   */
  bytesRead(count: number, buffer: Uint8Array): boolean
}

interface HandleOwner {
  _handle?: unknown
  _server?: unknown
}

/**
 * The socket to use instead of `accepted`, which must have been paused on connect and not
 * touched.
 */
export function openForReading(accepted: Socket, sink: ByteSink): Socket {
  const owner = accepted as unknown as HandleOwner
  const handle = owner._handle
  const server = owner._server
  if (typeof handle !== 'object' || handle === null || server === undefined) {
    return readByEvents(accepted, sink)
  }
  owner._handle = null
  owner._server = null
  const options = {
    handle,
    allowHalfOpen: true,
    onread: {
      buffer: () => sink.readBuffer(),
      callback: (count: number, buffer: Uint8Array) => sink.bytesRead(count, buffer),
    },
  }
  const socket = new Socket(options as ConstructorParameters<typeof Socket>[0])
  // The server counts its connections by this field, and is closed when there are none left.
  ;(socket as unknown as HandleOwner)._server = server
  return socket
}

/** The ordinary way: the stream allocates its chunks, and large payloads are copied. */
export function readByEvents(socket: Socket, sink: ByteSink): Socket {
  socket.on('data', (chunk) => {
    if (!sink.bytesRead(chunk.length, chunk)) socket.pause()
  })
  socket.resume()
  return socket
}
