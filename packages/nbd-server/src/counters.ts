/** Numbers of a server for graphs; the server only adds to them, whoever scrapes reads them. */
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
  return {
    requests: 0,
    failedRequests: 0,
    readBytes: 0,
    writtenBytes: 0,
    connections: 0,
    connectionsAccepted: 0,
    connectionsRefused: 0,
    handshakeTimeouts: 0,
    stalls: 0,
  }
}
