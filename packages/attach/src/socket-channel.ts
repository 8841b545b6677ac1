/**
 * A socket as a byte channel for the handshake; it stays paused, so that no byte after the handshake is lost.
 */
import { connect, type Socket } from 'node:net'
import type { ByteChannel } from './nbd-handshake.ts'

export function socketChannel(socket: Socket): ByteChannel {
  return {
    read: (length) => readExactly(socket, length),
    write: (bytes) =>
      new Promise((resolve, reject) => socket.write(bytes, (error) => (error ? reject(error) : resolve()))),
  }
}

/** Connects to a unix socket. */
export function dialUnix(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path })
    socket.once('error', reject)
    socket.once('connect', () => {
      socket.off('error', reject)
      resolve(socket)
    })
  })
}

function readExactly(socket: Socket, length: number): Promise<Buffer> {
  if (length === 0) return Promise.resolve(Buffer.alloc(0))
  return new Promise((resolve, reject) => {
    const settle = (act: () => void): void => {
      socket.off('readable', look)
      socket.off('close', closed)
      socket.off('error', failed)
      act()
    }
    const look = (): void => {
      const bytes = socket.read(length) as Buffer | null
      if (bytes === null) return
      if (bytes.length < length) settle(() => reject(new Error('the connection ended during the handshake')))
      else settle(() => resolve(bytes))
    }
    const closed = (): void => settle(() => reject(new Error('the connection ended during the handshake')))
    const failed = (error: Error): void => settle(() => reject(error))
    socket.on('readable', look)
    socket.on('close', closed)
    socket.on('error', failed)
    if (socket.destroyed) closed()
    else look()
  })
}
