/** The kernel's nbd driver over generic netlink (linux/nbd-netlink.h). */
import { HoldfastError } from '@holdfast/base'
import {
  attributeText,
  attributeU32,
  attributeU64,
  nested,
  Netlink,
  type NetlinkMessage,
  parseAttributes,
} from './netlink.ts'

const GENL_ID_CTRL = 16
const CTRL_CMD_GETFAMILY = 3
const CTRL_ATTR_FAMILY_ID = 1
const CTRL_ATTR_FAMILY_NAME = 2
const CTRL_ATTR_MCAST_GROUPS = 7
const CTRL_ATTR_MCAST_GRP_NAME = 1
const CTRL_ATTR_MCAST_GRP_ID = 2

const NBD_CMD_CONNECT = 1
const NBD_CMD_DISCONNECT = 2
const NBD_CMD_RECONFIGURE = 3
const NBD_CMD_LINK_DEAD = 4
const NBD_ATTR_INDEX = 1
const NBD_ATTR_SIZE_BYTES = 2
const NBD_ATTR_BLOCK_SIZE_BYTES = 3
const NBD_ATTR_TIMEOUT = 4
const NBD_ATTR_SERVER_FLAGS = 5
const NBD_ATTR_SOCKETS = 7
const NBD_ATTR_DEAD_CONN_TIMEOUT = 8
const NBD_ATTR_BACKEND_IDENTIFIER = 10
const NBD_SOCK_ITEM = 1
const NBD_SOCK_FD = 1

const ANSWER_MS_MAX = 10_000
/** As on the loop device of the other backend: a filesystem has to fit both. */
const BLOCK_BYTES = 512

export interface NbdConnection {
  readonly sockets: readonly number[]
  readonly size: number
  readonly flags: number
  readonly requestTimeoutSeconds: number
  readonly deadTimeoutSeconds: number
  /** Which volume that is, for the kernel to compare when sockets are replaced. */
  readonly identifier: string
}

export class NbdControl {
  readonly #netlink: Netlink
  readonly #family: number
  readonly #group: number

  private constructor(netlink: Netlink, family: number, group: number) {
    this.#netlink = netlink
    this.#family = family
    this.#group = group
  }

  /** @throws HoldfastError HF_UNAVAILABLE if this kernel, or this network namespace, has no nbd. */
  static async open(): Promise<NbdControl> {
    const netlink = new Netlink(ANSWER_MS_MAX)
    try {
      const name = attributeText(CTRL_ATTR_FAMILY_NAME, 'nbd')
      const answer = await netlink.request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, [name])
      const family = answer?.attributes.get(CTRL_ATTR_FAMILY_ID)?.readUInt16LE(0)
      const group = answer === undefined ? undefined : groupOf(answer, 'nbd_mc_group')
      if (family !== undefined && group !== undefined) return new NbdControl(netlink, family, group)
      throw new HoldfastError('HF_UNAVAILABLE', 'the nbd driver of this kernel has no netlink interface')
    } catch (error) {
      await netlink.close()
      throw error
    }
  }

  /**
   * Makes a device; its index: 3 for `/dev/nbd3`. The sockets are the kernel's then; the descriptors can be
   * closed.
   */
  async connect(connection: NbdConnection): Promise<number> {
    const answer = await this.#netlink.request(this.#family, NBD_CMD_CONNECT, [
      attributeU64(NBD_ATTR_SIZE_BYTES, connection.size),
      attributeU64(NBD_ATTR_BLOCK_SIZE_BYTES, BLOCK_BYTES),
      attributeU64(NBD_ATTR_SERVER_FLAGS, connection.flags),
      ...timeouts(connection),
      socketList(connection.sockets),
      attributeText(NBD_ATTR_BACKEND_IDENTIFIER, connection.identifier),
    ])
    const index = answer?.attributes.get(NBD_ATTR_INDEX)?.readUInt32LE(0)
    if (index === undefined)
      throw new HoldfastError('HF_IO', 'the kernel did not say which nbd device it made')
    return index
  }

  /** Puts the sockets in the place of dead ones; those too many are not taken. */
  async reconnect(index: number, connection: Omit<NbdConnection, 'size' | 'flags'>): Promise<void> {
    await this.#netlink.request(this.#family, NBD_CMD_RECONFIGURE, [
      attributeU32(NBD_ATTR_INDEX, index),
      ...timeouts(connection),
      socketList(connection.sockets),
      attributeText(NBD_ATTR_BACKEND_IDENTIFIER, connection.identifier),
    ])
  }

  async disconnect(index: number): Promise<void> {
    await this.#netlink.request(this.#family, NBD_CMD_DISCONNECT, [attributeU32(NBD_ATTR_INDEX, index)])
  }

  /** A socket that hears of dead connections; `receive` waits `timeoutMs`. */
  listen(timeoutMs: number): Netlink {
    const events = new Netlink(timeoutMs)
    events.join(this.#group)
    return events
  }

  async close(): Promise<void> {
    await this.#netlink.close()
  }
}

/** Whether that message says that a connection of the device died. */
export function isLinkDead(message: NetlinkMessage, index: number): boolean {
  return (
    message.command === NBD_CMD_LINK_DEAD && message.attributes.get(NBD_ATTR_INDEX)?.readUInt32LE(0) === index
  )
}

function timeouts(connection: Pick<NbdConnection, 'requestTimeoutSeconds' | 'deadTimeoutSeconds'>): Buffer[] {
  return [
    attributeU64(NBD_ATTR_TIMEOUT, connection.requestTimeoutSeconds),
    attributeU64(NBD_ATTR_DEAD_CONN_TIMEOUT, connection.deadTimeoutSeconds),
  ]
}

function socketList(sockets: readonly number[]): Buffer {
  const items = sockets.map((fd) => nested(NBD_SOCK_ITEM, [attributeU32(NBD_SOCK_FD, fd)]))
  return nested(NBD_ATTR_SOCKETS, items)
}

function groupOf(family: NetlinkMessage, name: string): number | undefined {
  const groups = family.attributes.get(CTRL_ATTR_MCAST_GROUPS)
  if (groups === undefined) return undefined
  for (const group of parseAttributes(groups).values()) {
    const fields = parseAttributes(group)
    if (fields.get(CTRL_ATTR_MCAST_GRP_NAME)?.toString().replace('\0', '') !== name) continue
    return fields.get(CTRL_ATTR_MCAST_GRP_ID)?.readUInt32LE(0)
  }
  return undefined
}
