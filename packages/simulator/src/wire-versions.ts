/**
 * Messages through the production codec, as a node of this version or of a later one would send them. A later
 * version may add fields, which this one must skip; it may not add kinds before every node knows them.
 */
import { decodeMessage, encodeMessage, type PeerMessage } from '@holdfast/wire'

export const WIRE_VERSIONS = ['current', 'next'] as const
export type WireVersion = (typeof WIRE_VERSIONS)[number]

/** Fields 1000 (varint) and 1001 (bytes), which no version uses: what a later one may have added. */
const UNKNOWN_FIELDS = new Uint8Array([0xc0, 0x3e, 0x96, 0x01, 0xca, 0x3e, 0x03, 0x61, 0x62, 0x63])

/** What the receiver decodes; the payload is a copy. */
export function overTheWire(message: PeerMessage, version: WireVersion): PeerMessage {
  const { header, payload } = encodeMessage(message)
  const bytes = new Uint8Array(header.length + (version === 'next' ? UNKNOWN_FIELDS.length : 0))
  bytes.set(header)
  if (version === 'next') bytes.set(UNKNOWN_FIELDS, header.length)
  const whole = new Uint8Array(payload.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of payload) {
    whole.set(part, at)
    at += part.length
  }
  return decodeMessage(bytes, whole.length === 0 ? [] : [whole])
}
