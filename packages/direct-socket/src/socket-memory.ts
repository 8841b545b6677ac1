/** Memory of sockets in the kernel. */
import type { Socket } from 'node:net'
import { native } from '@holdfast/addon'
import { descriptorOf } from './descriptor.ts'

/**
 * What a unix socket holds for its client. The system's 208 KiB would have the event loop woken five times for a reply
 * of 1 MiB, each time only when three quarters are taken, with the client waiting meanwhile.
 */
const SEND_BUFFER_BYTES = 1024 * 1024

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
