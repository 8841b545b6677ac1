/** A device of the kernel's nbd driver; the keeper only replaces connections that died. */
import { close, existsSync, read, write } from 'node:fs'
import { open, readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { native } from '@holdfast/addon'
import { HoldfastError } from '@holdfast/base'
import { type KeptDevice, requireUnused } from './kept-device.ts'
import { type Gate, sleep } from './gate.ts'
import type { KeeperSpec } from './keeper-protocol.ts'
import { type ByteChannel, type ExportShape, requestExport } from './nbd-handshake.ts'
import { isLinkDead, NbdControl } from './nbd-netlink.ts'
import { NBD_FLAG_CAN_MULTI_CONN } from './nbd-wire.ts'
import type { Netlink } from './netlink.ts'

const readFd = promisify(read)
const writeFd = promisify(write)
const closeFd = promisify(close)

const HANDSHAKE_MS_MAX = 10_000
const WATCH_MS = 500
const READY_MS_MAX = 10_000
const RELEASE_MS_MAX = 2_000
const RETRY_MS_MIN = 50
const RETRY_MS_MAX = 1000

export class KernelDevice implements KeptDevice {
  readonly #spec: KeeperSpec
  readonly #gate: Gate
  readonly #log: (text: string) => void
  #control: NbdControl | undefined
  #index: number | undefined
  #shape: ExportShape | undefined
  #ended = false
  #stopping = false
  #said = ''
  #repairing = false
  #repairAgain = false
  #tellGone: () => void = () => undefined
  readonly gone: Promise<void>

  constructor(spec: KeeperSpec, gate: Gate, log: (text: string) => void) {
    this.#spec = spec
    this.#gate = gate
    this.#log = log
    this.gone = new Promise((resolve) => (this.#tellGone = resolve))
  }

  get #exportName(): string {
    return `${this.#spec.namespace}/${this.#spec.name}`
  }

  async start(): Promise<string> {
    const control = await NbdControl.open()
    this.#control = control
    const events = control.listen(WATCH_MS)
    const adopted = /^\/dev\/nbd(\d+)$/.exec(this.#spec.adoptDevice ?? '')?.[1]
    this.#index = adopted === undefined ? await this.#connect(control) : Number(adopted)
    void this.#watch(events, this.#index)
    if (adopted !== undefined) this.#repair()
    const path = `/dev/nbd${this.#index}`
    for (const end = Date.now() + READY_MS_MAX; !(await this.#isReady()); await sleep(10)) {
      if (Date.now() > end) throw new HoldfastError('HF_TIMEOUT', `${path} did not get its size`)
    }
    return path
  }

  fail(): void {
    this.#ended = true
    if (this.#index !== undefined)
      void this.#control?.disconnect(this.#index).catch((error: Error) => this.#say(error))
  }

  async stop(force: boolean): Promise<void> {
    if (this.#index === undefined || this.#control === undefined) return
    const path = `/dev/nbd${this.#index}`
    if (!force) {
      await requireUnused(path)
      const device = await open(path, 'r')
      await device.sync().finally(() => device.close())
    }
    this.#stopping = true
    this.#ended = true
    const pidFile = this.#pidFile(this.#index)
    if (existsSync(pidFile)) await this.#control.disconnect(this.#index)
    for (const end = Date.now() + RELEASE_MS_MAX; existsSync(pidFile); await sleep(10)) {
      // Somebody still has it open: the kernel frees it with the last one.
      if (Date.now() > end) return
    }
  }

  async #connect(control: NbdControl): Promise<number> {
    await this.#gate.pass()
    const sockets: number[] = []
    try {
      const first = await this.#dial()
      sockets.push(first.fd)
      this.#shape = first.shape
      const isSafe = (first.shape.flags & NBD_FLAG_CAN_MULTI_CONN) !== 0
      while (isSafe && sockets.length < this.#spec.connections) sockets.push((await this.#dial()).fd)
      return await control.connect({ ...this.#connection(sockets), ...first.shape })
    } finally {
      for (const fd of sockets) await closeFd(fd)
    }
  }

  #connection(sockets: readonly number[]) {
    const { requestTimeoutSeconds, deadTimeoutSeconds } = this.#spec
    return { sockets, requestTimeoutSeconds, deadTimeoutSeconds, identifier: `holdfast ${this.#exportName}` }
  }

  async #isReady(): Promise<boolean> {
    const size = await readFile(`/sys/block/nbd${this.#index}/size`, 'utf8').catch(() => '0')
    return Number(size) > 0
  }
  #pidFile(index: number): string {
    return `/sys/block/nbd${index}/pid`
  }

  /** Until the device goes. */
  async #watch(events: Netlink, index: number): Promise<void> {
    let wasOpen = this.#gate.isOpen
    while (existsSync(this.#pidFile(index))) {
      try {
        if ((await events.receive()).some((message) => isLinkDead(message, index))) this.#repair()
      } catch (error) {
        // ENOBUFS: something was lost, perhaps the message that counts.
        this.#say(error)
        this.#repair()
        await sleep(RETRY_MS_MIN)
      }
      // Another node process: no connection of the one before is alive.
      if (this.#gate.isOpen && !wasOpen) this.#repair()
      wasOpen = this.#gate.isOpen
    }
    this.#log(`/dev/nbd${index} has gone`)
    if (!this.#stopping) this.#tellGone()
  }

  #repair(): void {
    this.#repairAgain = true
    if (!this.#repairing) void this.#repairLoop()
  }

  async #repairLoop(): Promise<void> {
    this.#repairing = true
    let wait = RETRY_MS_MIN
    while (this.#repairAgain && !this.#ended) {
      this.#repairAgain = false
      try {
        await this.#gate.pass()
        await this.#replaceSockets()
        wait = RETRY_MS_MIN
      } catch (error) {
        this.#say(error)
        this.#repairAgain = true
        await sleep(wait)
        wait = Math.min(wait * 2, RETRY_MS_MAX)
      }
    }
    this.#repairing = false
  }

  /** Hands the kernel as many fresh sockets as it could lack. */
  async #replaceSockets(): Promise<void> {
    const sockets: number[] = []
    try {
      for (let i = 0; i < this.#spec.connections; i++) {
        const { fd, shape } = await this.#dial()
        sockets.push(fd)
        const known = (this.#shape ??= shape)
        if (shape.size < known.size || shape.flags !== known.flags) {
          throw new HoldfastError('HF_CONFLICT', `${this.#exportName} came back smaller or with other flags`)
        }
      }
      if (this.#ended || !this.#gate.isOpen || this.#index === undefined) return
      await this.#control?.reconnect(this.#index, this.#connection(sockets))
      this.#log('connections replaced')
      this.#said = ''
    } finally {
      for (const fd of sockets) await closeFd(fd)
    }
  }

  /** A socket in the transmission phase, fit for the kernel. */
  async #dial(): Promise<{ readonly fd: number; readonly shape: ExportShape }> {
    const fd = native.unixSocket(this.#spec.nbdSocket, HANDSHAKE_MS_MAX)
    try {
      const shape = await requestExport(descriptorChannel(fd), this.#exportName)
      // A limit of its own would make the kernel take a quiet connection for dead.
      native.socketTimeout(fd, 0)
      return { fd, shape }
    } catch (error) {
      await closeFd(fd)
      throw error
    }
  }

  /** Once, however often it happens in a row. */
  #say(error: unknown): void {
    const text = error instanceof Error ? error.message : String(error)
    if (text !== this.#said) this.#log(text)
    this.#said = text
  }
}

function descriptorChannel(fd: number): ByteChannel {
  return {
    async read(length) {
      const bytes = Buffer.alloc(length)
      for (let filled = 0; filled < length;) {
        const { bytesRead } = await readFd(fd, bytes, filled, length - filled, null)
        if (bytesRead === 0) throw new Error('the connection ended during the handshake')
        filled += bytesRead
      }
      return bytes
    },
    async write(bytes) {
      for (let written = 0; written < bytes.length;) {
        written += (await writeFd(fd, bytes, written, bytes.length - written, null)).bytesWritten
      }
    },
  }
}
