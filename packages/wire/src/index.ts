export {
  decodeHello,
  decodeMessage,
  type EncodedMessage,
  encodeHello,
  encodeMessage,
  PROTOCOL_VERSION,
} from './codec.ts'
export { decodeHotMessage, encodeHotHeader, HOT_HEADER_BYTES_MAX } from './hot-header.ts'
export type * from './messages.ts'
export { WireError } from './wire-error.ts'
