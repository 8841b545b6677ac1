export {
  decodeHello,
  decodeMessage,
  type EncodedMessage,
  encodeHello,
  encodeMessage,
  PROTOCOL_VERSION,
  WireError,
} from './codec.ts'
export type * from './messages.ts'
