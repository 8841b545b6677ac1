/** Bounds of an NBD server; every one has a default. */
import type { TransmissionLimits } from '@holdfast/nbd-protocol'

export interface NbdLimits extends TransmissionLimits {
  /** Open connections of all listeners together. */
  readonly connectionsMax: number
  /** From the connection's opening to the transmission phase. */
  readonly handshakeTimeoutMs: number
  /** How long `close` waits for requests to be answered and replies to be taken. */
  readonly drainTimeoutMs: number
  /** Silence after which TCP asks whether the client is still there. */
  readonly keepAliveMs: number
  /** Memory kept for reply buffers of the future. */
  readonly poolBytesMax: number
}

const MIB = 1024 * 1024

export const defaultLimits: NbdLimits = {
  connectionsMax: 1024,
  handshakeTimeoutMs: 10_000,
  outstandingBytesMax: 64 * MIB,
  outstandingRequestsMax: 1024,
  drainTimeoutMs: 2000,
  keepAliveMs: 30_000,
  poolBytesMax: 64 * MIB,
}
