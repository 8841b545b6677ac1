import type { Socket } from 'node:net'

interface DescriptorOwner {
  readonly _handle?: { readonly fd?: number } | null
}

/** What the kernel knows the socket by; undefined where it has none, or none any more. */
export function descriptorOf(socket: Socket): number | undefined {
  const { fd = -1 } = (socket as unknown as DescriptorOwner)._handle ?? {}
  return fd >= 0 ? fd : undefined
}
