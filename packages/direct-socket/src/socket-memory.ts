/** Memory that sockets send from, in this process and in the kernel. */
import type { Socket } from 'node:net'
import { native } from '@holdfast/addon'
import { descriptorOf } from './descriptor.ts'

/** A line of the processor's cache. */
const LINE_BYTES = 64

/**
 * What a unix socket holds for its client. The system's 208 KiB would have the event loop woken five times for a reply
 * of 1 MiB, each time only when three quarters are taken, with the client waiting meanwhile.
 */
const SEND_BUFFER_BYTES = 1024 * 1024

/** `bytes` of memory, not cleared, that begin with a cache line: the kernel copies to and from there faster. */
export function allocateAligned(bytes: number): Uint8Array {
  const whole = Buffer.allocUnsafeSlow(bytes + LINE_BYTES)
  const start = (LINE_BYTES - native.addressRest(whole, LINE_BYTES)) % LINE_BYTES
  return whole.subarray(start, start + bytes)
}

/** For a unix socket that was just accepted; TCP finds its size by itself. */
export function widenSendBuffer(socket: Socket): void {
  const fd = descriptorOf(socket)
  if (fd === undefined) return
  try {
    native.sendBuffer(fd, SEND_BUFFER_BYTES)
  } catch {
    // The client has gone already: reading it says so. Slower is all that a socket without it would be.
  }
}
