/** Opens and closes the listening sockets; takes over a socket file that a dead process left. */
import { lstat, unlink } from 'node:fs/promises'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { HoldfastError } from '@holdfast/base'
import { widenSendBuffer } from '@holdfast/direct-socket'

export type NbdListener =
  | { readonly host: string; readonly port: number }
  | { readonly path: string }

/**
 * Listens, and hands out each connection paused. The address has the real port where 0 was asked
 * for.
 */
export async function listen(
  listener: NbdListener,
  accepted: (socket: Socket) => void,
): Promise<{ readonly server: Server; readonly address: NbdListener }> {
  if ('path' in listener) await removeStaleSocket(listener.path)
  const server = createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) => {
    if ('path' in listener) widenSendBuffer(socket)
    accepted(socket)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(refusal(listener, error)))
    server.listen({ ...listener, backlog: 511 }, resolve)
  })
  const bound = server.address()
  const address =
    'path' in listener || bound === null || typeof bound === 'string'
      ? listener
      : { host: listener.host, port: bound.port }
  return { server, address }
}

function refusal(listener: NbdListener, error: NodeJS.ErrnoException): HoldfastError {
  const where = 'path' in listener ? listener.path : `${listener.host}:${listener.port}`
  const advice =
    error.code === 'EADDRINUSE'
      ? 'another program listens there: stop it or choose another address'
      : error.message
  const code = error.code === 'EADDRINUSE' ? 'HF_CONFLICT' : 'HF_IO'
  return new HoldfastError(code, `cannot serve nbd at ${where}: ${advice}`, {}, { cause: error })
}

/**
 * Removes a socket file that nobody listens on; leaves everything else alone, so that `listen`
 * fails.
 */
async function removeStaleSocket(path: string): Promise<void> {
  const status = await lstat(path).catch(() => undefined)
  if (status === undefined || !status.isSocket()) return
  if (await isDead(path)) await unlink(path).catch(() => undefined)
}

function isDead(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect({ path })
    probe.once('connect', () => {
      probe.destroy()
      resolve(false)
    })
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'))
  })
}
