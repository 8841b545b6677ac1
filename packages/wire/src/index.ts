export {
  decodeHello,
  decodeMessage,
  type EncodedMessage,
  encodeHello,
  encodeHotHeader,
  encodeMessage,
  PROTOCOL_VERSION,
  WireError,
} from './codec.ts'
export { HOT_HEADER_BYTES_MAX } from './hot-header.ts'
export type * from './messages.ts'
