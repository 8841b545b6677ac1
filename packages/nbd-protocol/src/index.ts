export { BufferPool } from './buffer-pool.ts'
export { type Agreement, type AwayAgreement, Handshake, type HandshakeState, type Terms } from './handshake.ts'
export { DATA_APART_BYTES, type ReplyQueue } from './reply-queue.ts'
export {
  LARGE_PAYLOAD_BYTES,
  Transmission,
  type TransmissionCounters,
  type TransmissionHost,
  type TransmissionLimits,
} from './transmission.ts'
