/** Kinds of messages and their numbers. */
import type { PeerMessage } from './messages.ts'

/** Position = number on the wire: append only. */
export const KINDS = [
  'grant-scope',
  'grant-request',
  'grant',
  'status-request',
  'status',
  'subscribe',
  'accepted',
  'refused',
  'rebuild',
  'segment-data',
  'checkpoint-data',
  'rebuild-progress',
  'append',
  'commit',
  'ack',
  'flush',
  'block-fetch',
  'block-data',
  'request',
  'replies',
  'read-reply',
  'session-close',
] as const satisfies readonly PeerMessage['type'][]

export const KIND_NUMBERS: ReadonlyMap<string, number> = new Map<string, number>(KINDS.map((kind, number) => [kind, number]))
