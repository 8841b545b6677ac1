/**
 * Both ends of the fixed newstyle handshake (NBD protocol, "Newstyle negotiation"), over any byte channel.
 */
import { HoldfastError } from '@holdfast/base'
import * as nbd from './nbd-wire.ts'

export interface ByteChannel {
  /** Exactly `length` bytes; rejects when the other end has gone. */
  read(length: number): Promise<Buffer>
  write(bytes: Buffer): Promise<void>
}

export interface ExportShape {
  readonly size: number
  /** Transmission flags. */
  readonly flags: number
}

const OPTION_BYTES_MAX = 64 * 1024

/**
 * Asks for an export as a client; the channel is in the transmission phase then, with simple replies.
 * @throws HoldfastError HF_UNAVAILABLE if the server refuses, with what it said.
 */
export async function requestExport(channel: ByteChannel, exportName: string): Promise<ExportShape> {
  const greeting = await channel.read(18)
  if (greeting.readBigUInt64BE(0) !== nbd.NBDMAGIC || greeting.readBigUInt64BE(8) !== nbd.IHAVEOPT) {
    throw new HoldfastError('HF_UNAVAILABLE', 'the socket of the node does not speak newstyle NBD')
  }
  const name = Buffer.from(exportName)
  const request = Buffer.alloc(4 + 16 + 4 + name.length + 2)
  request.writeUInt32BE(greeting.readUInt16BE(16) & nbd.HANDSHAKE_FLAGS, 0)
  request.writeBigUInt64BE(nbd.IHAVEOPT, 4)
  request.writeUInt32BE(nbd.NBD_OPT_GO, 12)
  request.writeUInt32BE(4 + name.length + 2, 16)
  request.writeUInt32BE(name.length, 20)
  name.copy(request, 24)
  await channel.write(request)
  let shape: ExportShape | undefined
  for (;;) {
    const header = await channel.read(20)
    const length = header.readUInt32BE(16)
    if (header.readBigUInt64BE(0) !== nbd.NBD_REP_MAGIC || length > OPTION_BYTES_MAX) {
      throw new HoldfastError('HF_UNAVAILABLE', 'the node answered the NBD handshake with nonsense')
    }
    const type = header.readUInt32BE(12)
    const data = await channel.read(length)
    if (type === nbd.NBD_REP_INFO && length >= 12 && data.readUInt16BE(0) === nbd.NBD_INFO_EXPORT) {
      shape = { size: Number(data.readBigUInt64BE(2)), flags: data.readUInt16BE(10) }
    } else if (type >= 2 ** 31) {
      const said = data.toString() || `error ${type - 2 ** 31}`
      throw new HoldfastError('HF_UNAVAILABLE', `the node does not serve ${exportName}: ${said}`)
    } else if (type === nbd.NBD_REP_ACK) {
      if (shape !== undefined) return shape
      throw new HoldfastError('HF_UNAVAILABLE', `the node did not say how large ${exportName} is`)
    }
  }
}

/** Offers the one export under any name, as a server. False: the client left without asking for it. */
export async function offerExport(channel: ByteChannel, shape: ExportShape): Promise<boolean> {
  const greeting = Buffer.alloc(18)
  greeting.writeBigUInt64BE(nbd.NBDMAGIC, 0)
  greeting.writeBigUInt64BE(nbd.IHAVEOPT, 8)
  greeting.writeUInt16BE(nbd.HANDSHAKE_FLAGS, 16)
  await channel.write(greeting)
  const clientFlags = (await channel.read(4)).readUInt32BE(0)
  for (;;) {
    const header = await channel.read(16)
    const length = header.readUInt32BE(12)
    if (header.readBigUInt64BE(0) !== nbd.IHAVEOPT || length > OPTION_BYTES_MAX) return false
    const option = header.readUInt32BE(8)
    await channel.read(length)
    if (option === nbd.NBD_OPT_EXPORT_NAME) {
      const zeroes = (clientFlags & nbd.NBD_FLAG_NO_ZEROES) === 0 ? 124 : 0
      await channel.write(Buffer.concat([shapeBytes(shape), Buffer.alloc(zeroes)]))
      return true
    }
    if (option === nbd.NBD_OPT_GO || option === nbd.NBD_OPT_INFO) {
      const info = Buffer.concat([Buffer.from([0, nbd.NBD_INFO_EXPORT]), shapeBytes(shape)])
      await channel.write(reply(option, nbd.NBD_REP_INFO, info))
      await channel.write(reply(option, nbd.NBD_REP_ACK))
      if (option === nbd.NBD_OPT_GO) return true
    } else if (option === nbd.NBD_OPT_ABORT) {
      await channel.write(reply(option, nbd.NBD_REP_ACK))
      return false
    } else {
      // Structured replies and extended headers among them: what is sent again has to stay simple.
      await channel.write(reply(option, nbd.NBD_REP_ERR_UNSUP))
    }
  }
}

function shapeBytes(shape: ExportShape): Buffer {
  const bytes = Buffer.alloc(10)
  bytes.writeBigUInt64BE(BigInt(shape.size), 0)
  bytes.writeUInt16BE(shape.flags, 8)
  return bytes
}

function reply(option: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(20)
  header.writeBigUInt64BE(nbd.NBD_REP_MAGIC, 0)
  header.writeUInt32BE(option, 8)
  header.writeUInt32BE(type, 12)
  header.writeUInt32BE(data.length, 16)
  return Buffer.concat([header, data])
}
