/** Connections whose other end has vanished without a word: its host lost power, or what lay between forgot them. */
import type { Socket } from 'node:net'
import { native } from '@holdfast/addon'
import { descriptorOf } from './descriptor.ts'

/**
 * Has the kernel end a TCP connection whose other end answers nothing for `ms` milliseconds, whether something is on its way
 * there or not: without it one that only listens stays open for ever, and one that sends for a quarter of an hour. A process
 * that stands still is silent only when it has taken nothing for so long that its kernel takes no more either.
 */
export function noticeSilence(socket: Socket, ms: number): void {
  socket.setKeepAlive(true, Math.max(1_000, ms / 3))
  const fd = descriptorOf(socket)
  if (fd === undefined) return
  try {
    native.tcpUserTimeout(fd, ms)
  } catch {
    // It has closed already, or is none of TCP.
  }
}
