/** Numbers of a server for graphs; the server only adds to them, whoever scrapes reads them. */
import { WIDE } from '@holdfast/base'
import type { TransmissionCounters } from '@holdfast/nbd-protocol'

export interface NbdCounters extends TransmissionCounters {
  /** Open now. */
  connections: number
  connectionsAccepted: number
  /** Turned away because of the bound on connections. */
  connectionsRefused: number
  handshakeTimeouts: number
  /** Times a connection was read no further because of its outstanding bytes or requests. */
  stalls: number
}

export function newNbdCounters(): NbdCounters {
  const counters = {
    requests: 0,
    failedRequests: 0,
    readBytes: WIDE,
    writtenBytes: WIDE,
    connections: 0,
    connectionsAccepted: 0,
    connectionsRefused: 0,
    handshakeTimeouts: 0,
    stalls: 0,
  }
  counters.readBytes = 0
  counters.writtenBytes = 0
  return counters
}
