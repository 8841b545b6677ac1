/** One function for each adapter: from the configuration to what the assembly wants. */
import { join } from 'node:path'
import type { MetricFamily } from '@holdfast/api'
import type { Coordinator, EventLog, ExportCatalog, Scheduler, Shard } from '@holdfast/base'
import { defaultLimits, type NbdCounters, type NbdLimits, startNbdServer } from '@holdfast/nbd-server'
import type { ListenAddress } from './address.ts'
import { type NodeConfig, SOCKET_PATH_MAX } from './config.ts'
import { KeepAwake } from './keep-awake.ts'
import { idleStatesAreChosen, LATENCY_DEVICE, openLatencyOfHost } from './processor-latency.ts'
import { systemClock } from './production-ports.ts'
import type { Shards } from './shards.ts'

export interface NbdHandle {
  readonly address: ListenAddress
  metrics(): readonly MetricFamily[]
  /** That came to this thread, ever. */
  requests(): number
  /** A connection that another shard went on with has ended. */
  returned(): void
  close(): Promise<void>
}

/** Loads only the one that is used: etcd's brings gRPC with it. */
export async function openCoordinator(config: NodeConfig, events: EventLog): Promise<Coordinator> {
  const { coordinator, dataDir } = config
  if (coordinator.kind === 'embedded') {
    const { openEmbeddedCoordinator } = await import('@holdfast/coordinator/embedded')
    return openEmbeddedCoordinator({ file: join(dataDir, 'coordinator', 'journal'), events })
  }
  const { openEtcdCoordinator } = await import('@holdfast/coordinator/etcd')
  const leaseFile = join(dataDir, 'etcd-lease')
  return openEtcdCoordinator({ endpoints: coordinator.endpoints, leaseFile, events, clock: systemClock })
}

/** What the process may keep for replies of the future is shared by its threads. */
export function nbdLimits({ count }: Shard): Partial<NbdLimits> {
  return { poolBytesMax: Math.floor(defaultLimits.poolBytesMax / count) }
}

/**
 * For one thread. Undefined where the machine, or the user that the node runs as, has no way to keep processors awake: requests
 * are only slower then, and the first thread tells so.
 *
 * @param work See `KeepAwakeOptions`.
 */
export function openKeepAwake({ index }: Shard, work: () => number, scheduler: Scheduler, events: EventLog): KeepAwake | undefined {
  const tell = (why: string, code?: string): void => {
    events.event('info', `processors may sleep between requests, which are slower for it: ${why}`, code === undefined ? {} : { code })
  }
  if (!idleStatesAreChosen()) {
    if (index === 0) tell('the kernel has no cpuidle driver')
    return undefined
  }
  try {
    const failed = (error: unknown): void => tell(`${LATENCY_DEVICE} can't be written`, (error as NodeJS.ErrnoException).code)
    return new KeepAwake({ latency: openLatencyOfHost(), work, scheduler, failed })
  } catch (error) {
    if (index === 0) tell(`${LATENCY_DEVICE} can't be opened`, (error as NodeJS.ErrnoException).code)
    return undefined
  }
}

/** @param threads How many of the node's threads keep them awake. */
export function keepAwakeMetric(threads: number): MetricFamily {
  const help = 'Threads of the node that keep processors from sleeping now; 0 also where the node may not'
  return { name: 'holdfast_keep_awake_threads', help, type: 'gauge', samples: [{ labels: {}, value: threads }] }
}

export async function startNbd(
  { nbd, deviceSocket, shardCount }: NodeConfig,
  catalog: ExportCatalog,
  shards: Shards | undefined,
  events: EventLog,
): Promise<NbdHandle> {
  // A path too long for a socket keeps only devices of this host from working, and they say so.
  const listeners = [nbd, ...(deviceSocket.length > SOCKET_PATH_MAX ? [] : [{ path: deviceSocket }])]
  const server = await startNbdServer({
    catalog,
    listeners,
    limits: nbdLimits({ index: 0, count: shardCount }),
    events,
    handOver: (handed) => shards?.handConnection(handed),
  })
  const tcp = server.addresses.find((address) => 'port' in address)
  return {
    address: { host: nbd.host, port: tcp?.port ?? nbd.port },
    metrics: () => nbdMetrics(shards?.nbdCounters(server.counters) ?? server.counters),
    requests: () => server.counters.requests,
    returned: () => server.returned(),
    close: async () => {
      await Promise.all([server.close(), shards?.closeNbd()])
    },
  }
}

function nbdMetrics(counters: NbdCounters): MetricFamily[] {
  const metric = (
    type: 'counter' | 'gauge',
    name: string,
    help: string,
    value: number,
  ): MetricFamily => ({
    name: `holdfast_nbd_${name}`,
    help,
    type,
    samples: [{ labels: {}, value }],
  })
  return [
    metric('gauge', 'connections', 'NBD connections open now', counters.connections),
    metric(
      'counter',
      'connections_total',
      'NBD connections accepted',
      counters.connectionsAccepted,
    ),
    metric(
      'counter',
      'connections_refused_total',
      'NBD connections over the limit',
      counters.connectionsRefused,
    ),
    metric(
      'counter',
      'handshake_timeouts_total',
      'NBD clients that did not finish the handshake',
      counters.handshakeTimeouts,
    ),
    metric('counter', 'requests_total', 'NBD requests answered', counters.requests),
    metric(
      'counter',
      'request_errors_total',
      'NBD requests answered with an error',
      counters.failedRequests,
    ),
    metric('counter', 'read_bytes_total', 'Bytes sent to NBD clients', counters.readBytes),
    metric(
      'counter',
      'written_bytes_total',
      'Bytes received from NBD clients',
      counters.writtenBytes,
    ),
    metric(
      'counter',
      'stalls_total',
      'Times a connection was held back by its limits',
      counters.stalls,
    ),
  ]
}
