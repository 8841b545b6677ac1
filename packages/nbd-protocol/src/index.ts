export { BufferPool } from './buffer-pool.ts'
export { type Agreement, Handshake, type HandshakeState } from './handshake.ts'
export type { ReplyQueue } from './reply-queue.ts'
export {
  LARGE_PAYLOAD_BYTES,
  Transmission,
  type TransmissionCounters,
  type TransmissionHost,
  type TransmissionLimits,
} from './transmission.ts'
