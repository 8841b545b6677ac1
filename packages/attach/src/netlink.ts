/** Generic netlink messages (linux/netlink.h, linux/genetlink.h), over a socket of the addon. */
import { close, read, write } from 'node:fs'
import { promisify } from 'node:util'
import { getSystemErrorName } from 'node:util'
import { native } from '@holdfast/addon'
import { HoldfastError } from '@holdfast/base'

const readFd = promisify(read)
const writeFd = promisify(write)
const closeFd = promisify(close)

const NLMSG_ERROR = 2
const NLM_F_REQUEST = 1
const NLM_F_ACK = 4
const NLA_F_NESTED = 0x8000
const NLA_TYPE_MASK = 0x3fff
const HEADER_BYTES = 16
const GENERIC_BYTES = 4
const RECEIVE_BYTES = 64 * 1024

export interface NetlinkMessage {
  readonly command: number
  /** Payload by attribute type. */
  readonly attributes: ReadonlyMap<number, Buffer>
}

export function attribute(type: number, payload: Buffer): Buffer {
  const bytes = Buffer.alloc(4 + Math.ceil(payload.length / 4) * 4)
  bytes.writeUInt16LE(4 + payload.length, 0)
  bytes.writeUInt16LE(type, 2)
  payload.copy(bytes, 4)
  return bytes
}
export function nested(type: number, attributes: readonly Buffer[]): Buffer {
  return attribute(type | NLA_F_NESTED, Buffer.concat(attributes))
}
export function attributeU32(type: number, value: number): Buffer {
  const payload = Buffer.alloc(4)
  payload.writeUInt32LE(value)
  return attribute(type, payload)
}
export function attributeU64(type: number, value: number): Buffer {
  const payload = Buffer.alloc(8)
  payload.writeBigUInt64LE(BigInt(value))
  return attribute(type, payload)
}
export function attributeText(type: number, text: string): Buffer {
  return attribute(type, Buffer.from(`${text}\0`))
}

/** Splits a sequence of attributes; one of a nested attribute's payload, too. */
export function parseAttributes(bytes: Buffer): Map<number, Buffer> {
  const found = new Map<number, Buffer>()
  for (let offset = 0; offset + 4 <= bytes.length;) {
    const length = bytes.readUInt16LE(offset)
    if (length < 4 || offset + length > bytes.length) break
    found.set(bytes.readUInt16LE(offset + 2) & NLA_TYPE_MASK, bytes.subarray(offset + 4, offset + length))
    offset += Math.ceil(length / 4) * 4
  }
  return found
}

/** One socket; requests one at a time. */
export class Netlink {
  readonly #fd: number
  #sequence = 1

  /** `timeoutMs` is how long `receive` waits for anything. @throws HoldfastError HF_UNAVAILABLE */
  constructor(timeoutMs: number) {
    try {
      this.#fd = native.netlinkSocket(timeoutMs)
    } catch (error) {
      throw new HoldfastError('HF_UNAVAILABLE', `no netlink here: ${String(error)}`)
    }
  }

  join(group: number): void {
    native.joinNetlinkGroup(this.#fd, group)
  }

  /** Sends a command and returns the kernel's answer, if there is one besides its acknowledgement. */
  async request(
    family: number,
    command: number,
    attributes: readonly Buffer[],
  ): Promise<NetlinkMessage | undefined> {
    const sequence = this.#sequence++
    const body = Buffer.concat(attributes)
    const header = Buffer.alloc(HEADER_BYTES + GENERIC_BYTES)
    header.writeUInt32LE(header.length + body.length, 0)
    header.writeUInt16LE(family, 4)
    header.writeUInt16LE(NLM_F_REQUEST | NLM_F_ACK, 6)
    header.writeUInt32LE(sequence, 8)
    header.writeUInt8(command, HEADER_BYTES)
    header.writeUInt8(1, HEADER_BYTES + 1)
    const message = Buffer.concat([header, body])
    await writeFd(this.#fd, message, 0, message.length, null)
    let answer: NetlinkMessage | undefined
    for (;;) {
      const datagram = await this.#receive()
      if (datagram === undefined)
        throw new HoldfastError('HF_TIMEOUT', 'the kernel did not answer over netlink')
      for (const { type, sequence: its, payload } of split(datagram)) {
        if (its !== sequence) continue
        if (type !== NLMSG_ERROR) {
          answer = parseMessage(payload)
          continue
        }
        const error = payload.readInt32LE(0)
        if (error === 0) return answer
        const name = getSystemErrorName(error)
        throw Object.assign(new HoldfastError('HF_IO', `the kernel refused over netlink: ${name}`), {
          systemCode: name,
        })
      }
    }
  }

  /** Messages of groups that were joined; none if nothing comes in time. */
  async receive(): Promise<NetlinkMessage[]> {
    const datagram = await this.#receive()
    return datagram === undefined ? [] : split(datagram).map(({ payload }) => parseMessage(payload))
  }

  async #receive(): Promise<Buffer | undefined> {
    const buffer = Buffer.alloc(RECEIVE_BYTES)
    try {
      const { bytesRead } = await readFd(this.#fd, buffer, 0, buffer.length, null)
      return buffer.subarray(0, bytesRead)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return undefined
      throw error
    }
  }

  async close(): Promise<void> {
    await closeFd(this.#fd)
  }
}

function split(datagram: Buffer): { type: number; sequence: number; payload: Buffer }[] {
  const messages = []
  for (let offset = 0; offset + HEADER_BYTES <= datagram.length;) {
    const length = datagram.readUInt32LE(offset)
    if (length < HEADER_BYTES || offset + length > datagram.length) break
    messages.push({
      type: datagram.readUInt16LE(offset + 4),
      sequence: datagram.readUInt32LE(offset + 8),
      payload: datagram.subarray(offset + HEADER_BYTES, offset + length),
    })
    offset += Math.ceil(length / 4) * 4
  }
  return messages
}

function parseMessage(payload: Buffer): NetlinkMessage {
  return { command: payload[0] ?? 0, attributes: parseAttributes(payload.subarray(GENERIC_BYTES)) }
}
