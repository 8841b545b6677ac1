/**
 * The node's side of a keeper's control socket. While it is open and confirmed, the keeper may talk to the
 * node.
 */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { type ErrorCode, errorTraits, HoldfastError } from '@holdfast/base'
import { CONTROL_SOCKET, type KeeperCommand, type KeeperReply } from './keeper-protocol.ts'
import { dialUnix } from './socket-channel.ts'

interface Waiting {
  readonly resolve: (reply: KeeperReply) => void
  readonly reject: (error: Error) => void
}

export class KeeperLink {
  readonly #socket: Socket
  readonly #waiting = new Map<number, Waiting>()
  #nextId = 1
  /** Resolves when the keeper has closed the link: it has ended, or is about to. */
  readonly closed: Promise<void>

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('error', () => undefined)
    const lines = createInterface({ input: socket })
    lines.on('line', (line) => this.#take(JSON.parse(line) as KeeperReply))
    lines.on('error', () => undefined)
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        const error = new HoldfastError('HF_IO', 'the keeper of the device has ended: see its log')
        for (const waiting of this.#waiting.values()) waiting.reject(error)
        this.#waiting.clear()
        resolve()
      })
    })
  }

  /** Rejects if no keeper listens there. */
  static async connect(folder: string): Promise<KeeperLink> {
    // Through /proc, since the path of a socket has at most 107 bytes and the folder may have more.
    const directory = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY)
    try {
      return new KeeperLink(await dialUnix(`/proc/self/fd/${directory.fd}/${CONTROL_SOCKET}`))
    } finally {
      await directory.close()
    }
  }

  /** @throws HoldfastError as the keeper answered. */
  async ask(command: KeeperCommand): Promise<KeeperReply> {
    const id = this.#nextId++
    const reply = await new Promise<KeeperReply>((resolve, reject) => {
      if (this.#socket.destroyed) {
        reject(new HoldfastError('HF_IO', 'the keeper of the device has ended: see its log'))
        return
      }
      this.#waiting.set(id, { resolve, reject })
      this.#socket.write(`${JSON.stringify({ id, ...command })}\n`)
    })
    if (reply.error === undefined) return reply
    const code = reply.error.code in errorTraits ? (reply.error.code as ErrorCode) : 'HF_IO'
    throw new HoldfastError(code, reply.error.message)
  }

  close(): void {
    this.#socket.destroy()
  }

  #take(reply: KeeperReply): void {
    this.#waiting.get(reply.id)?.resolve(reply)
    this.#waiting.delete(reply.id)
  }
}
