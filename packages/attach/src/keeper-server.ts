/** The keeper's side of the control socket. */
import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { HoldfastError, isHoldfastError } from '@holdfast/base'
import { runOrFail } from './command.ts'
import type { Gate } from './gate.ts'
import type { KeeperCommand, KeeperReply, PrepareOutcome, Prepared } from './keeper-protocol.ts'
import type { KeptDevice } from './kept-device.ts'
import { programArguments } from './script.ts'

/** A keeper that nobody asks for a device is one whose node died in between. */
const UNWANTED_MS = 60_000

export class KeeperServer {
  readonly #device: KeptDevice
  readonly #gate: Gate
  readonly #log: (text: string) => void
  readonly #links = new Set<Socket>()
  /** Links over which the node has confirmed the right. */
  readonly #confirmed = new Set<Socket>()
  #server: Server | undefined
  #path: Promise<string> | undefined
  #madeDevice: string | undefined
  #serial: Promise<unknown> = Promise.resolve()
  #tellEnded: () => void = () => undefined
  readonly ended: Promise<void>

  constructor(device: KeptDevice, gate: Gate, log: (text: string) => void) {
    this.#device = device
    this.#gate = gate
    this.#log = log
    this.ended = new Promise((resolve) => (this.#tellEnded = resolve))
  }

  async listen(path: string): Promise<void> {
    this.#server = createServer((socket) => this.#serve(socket)).listen(path)
    await once(this.#server, 'listening')
    setTimeout(() => {
      if (this.#path === undefined) this.#tellEnded()
    }, UNWANTED_MS).unref()
  }

  /** Gives up the device; the process ends then. */
  async detach(force: boolean): Promise<void> {
    await this.#device.stop(force)
    this.#tellEnded()
  }

  /** Lets the last answers out. */
  async close(): Promise<void> {
    this.#server?.close()
    await Promise.all([...this.#links].map((socket) => new Promise<void>((done) => socket.end(done))))
  }

  #serve(socket: Socket): void {
    this.#links.add(socket)
    socket.on('error', () => undefined)
    socket.once('close', () => {
      this.#links.delete(socket)
      this.#confirmed.delete(socket)
      if (this.#confirmed.size > 0) return
      if (this.#gate.isOpen) this.#log('the node has let go of the control socket')
      this.#gate.shut()
    })
    const lines = createInterface({ input: socket })
    lines.on('line', (line) => {
      const { id, ...command } = JSON.parse(line) as KeeperCommand & { id: number }
      void this.#answer(socket, id, command)
    })
    lines.on('error', () => undefined)
  }

  async #answer(socket: Socket, id: number, command: KeeperCommand): Promise<void> {
    let reply: KeeperReply
    try {
      reply = { id, ...(await this.#obey(socket, command)) }
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      this.#log(`${command.do} failed: ${message}`)
      reply = { id, error: { code: isHoldfastError(error) ? error.code : 'HF_IO', message } }
    }
    if (!socket.destroyed)
      await new Promise<void>((done) => socket.write(`${JSON.stringify(reply)}\n`, () => done()))
    if (command.do === 'detach' && reply.error === undefined) this.#tellEnded()
  }

  async #obey(socket: Socket, command: KeeperCommand): Promise<Omit<KeeperReply, 'id'>> {
    switch (command.do) {
      case 'confirm':
        this.#confirmed.add(socket)
        this.#gate.open()
        return {}
      case 'lost':
        this.#log('the right to the volume is lost: errors from now on')
        this.#device.fail()
        return {}
      case 'device':
        return { device: await this.#devicePath() }
      case 'status':
        return { device: this.#madeDevice }
      case 'prepare':
        return this.#inTurn(async () => {
          const prepared = await prepare(await this.#devicePath(), command)
          return { prepared }
        })
      case 'detach':
        return this.#inTurn(async () => {
          await this.#device.stop(command.force)
          return {}
        })
    }
  }

  #devicePath(): Promise<string> {
    this.#path ??= this.#device.start().then(
      (path) => (this.#madeDevice = path),
      (error: unknown) => {
        this.#path = undefined
        throw error
      },
    )
    return this.#path
  }

  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const done = this.#serial.then(task)
    this.#serial = done.catch(() => undefined)
    return done
  }
}

async function prepare(
  device: string,
  command: KeeperCommand & { readonly do: 'prepare' },
): Promise<Prepared> {
  const options = [device, command.fileSystem, process.cwd(), ...command.mkfsOptions]
  const said = await runOrFail(process.execPath, [...programArguments('prepare-main', import.meta.url), ...options])
  const outcome = JSON.parse(said) as PrepareOutcome
  if (outcome.prepared !== undefined) return outcome.prepared
  throw new HoldfastError(outcome.error.code, outcome.error.message)
}
