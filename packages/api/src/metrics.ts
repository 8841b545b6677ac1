/** What `/metrics` says about the engine and the volumes that have a copy on this node. */
import type {
  ClusterAdmin,
  EngineStatistics,
  LocalReplicaView,
  OperationStatistics,
  VolumeView,
} from '@holdfast/base'
import { BLOCK_BYTES } from '@holdfast/base'
import type { MetricFamily, MetricSample } from './metrics-text.ts'
import { version } from './version.ts'

const OPERATIONS = ['read', 'write', 'zero', 'flush'] as const
const FIRST_BUCKET_SECONDS = 16e-6

export function engineMetrics(
  admin: ClusterAdmin,
  statistics: EngineStatistics,
): readonly MetricFamily[] {
  return [
    ...requestMetrics(statistics.operations),
    ...eventMetrics(statistics),
    ...volumeMetrics(admin.volumes()),
    ...nodeMetrics(admin),
  ]
}

function family(
  type: MetricFamily['type'],
  name: string,
  help: string,
  samples: readonly MetricSample[],
): MetricFamily {
  return { name: `holdfast_${name}`, help, type, samples }
}

const plain = (value: number): MetricSample[] => [{ labels: {}, value }]

function requestMetrics(operations: readonly OperationStatistics[]): MetricFamily[] {
  const each = (pick: (counted: OperationStatistics) => number): MetricSample[] =>
    operations.map((counted) => ({
      labels: { volume: counted.volume, operation: counted.operation },
      value: pick(counted),
    }))
  return [
    family(
      'counter',
      'requests_total',
      'Requests answered, by volume and operation',
      each((o) => o.count),
    ),
    family(
      'counter',
      'request_bytes_total',
      'Bytes of the requests answered',
      each((o) => o.bytes),
    ),
    family(
      'counter',
      'request_errors_total',
      'Requests answered with an error',
      each((o) => o.errors),
    ),
    latencyHistogram(operations),
  ]
}

/** By operation only: volumes times operations times buckets would be too many series. */
function latencyHistogram(operations: readonly OperationStatistics[]): MetricFamily {
  const samples: MetricSample[] = []
  for (const operation of OPERATIONS) {
    const counted = operations.filter((candidate) => candidate.operation === operation)
    const bucketCount = Math.max(0, ...counted.map(({ latencyBuckets }) => latencyBuckets.length))
    let total = 0
    for (let bucket = 0; bucket < bucketCount; bucket++) {
      for (const { latencyBuckets } of counted) total += latencyBuckets[bucket] ?? 0
      const last = bucket === bucketCount - 1
      const end = last
        ? '+Inf'
        : String(Number((FIRST_BUCKET_SECONDS * 2 ** bucket).toPrecision(9)))
      samples.push({ labels: { operation, le: end }, value: total, suffix: '_bucket' })
    }
    if (bucketCount === 0) continue
    const sum = counted.reduce((seconds, { latencySumSeconds }) => seconds + latencySumSeconds, 0)
    samples.push({ labels: { operation }, value: sum, suffix: '_sum' })
    samples.push({ labels: { operation }, value: total, suffix: '_count' })
  }
  const help = 'Time from request to answer, by operation'
  return family('histogram', 'request_duration_seconds', help, samples)
}

function eventMetrics(statistics: EngineStatistics): MetricFamily[] {
  const { epochChanges, relayedRequests, damagedBlocks, membersDropped, membersAdded } = statistics
  return [
    family(
      'counter',
      'epoch_changes_total',
      'Epochs begun by a primary on this node',
      plain(epochChanges),
    ),
    family(
      'counter',
      'relayed_requests_total',
      'Requests passed on to a primary elsewhere',
      plain(relayedRequests),
    ),
    family(
      'counter',
      'damaged_blocks_total',
      'Blocks whose checksum was wrong',
      plain(damagedBlocks),
    ),
    family(
      'counter',
      'members_dropped_total',
      'Copies that left an in-sync set',
      plain(membersDropped),
    ),
    family(
      'counter',
      'members_added_total',
      'Copies that joined an in-sync set',
      plain(membersAdded),
    ),
  ]
}

/** Only volumes with a copy here: each series then comes from few nodes, whatever the cluster's size. */
function volumeMetrics(volumes: readonly VolumeView[]): MetricFamily[] {
  const here = volumes.flatMap((view) =>
    view.local === undefined ? [] : [{ view, local: view.local }],
  )
  const nameOf = ({ record }: VolumeView): string => `${record.namespace}/${record.name}`
  const each = (pick: (view: VolumeView, local: LocalReplicaView) => number): MetricSample[] =>
    here.map(({ view, local }) => ({ labels: { volume: nameOf(view) }, value: pick(view, local) }))
  const lag = here.flatMap(({ view, local }) =>
    local.members.map(({ node, lagBytes }) => ({
      labels: { volume: nameOf(view), member: node },
      value: lagBytes,
    })),
  )
  const gauge = (name: string, help: string, samples: MetricSample[]): MetricFamily =>
    family('gauge', `volume_${name}`, help, samples)
  return [
    gauge(
      'size_bytes',
      'Size of the volume',
      each(({ record }) => record.sizeBytes),
    ),
    gauge(
      'in_sync_replicas',
      'Copies in sync',
      each(({ record }) => record.inSync.length),
    ),
    gauge(
      'wanted_replicas',
      'Copies wanted',
      each(({ record }) => record.replicaCount),
    ),
    gauge(
      'epoch',
      'Epoch of the volume',
      each(({ record }) => record.epoch),
    ),
    gauge(
      'is_primary',
      '1 where this node is the primary',
      each((_, { role }) => Number(role === 'primary')),
    ),
    gauge(
      'available',
      '1 while a primary may serve',
      each(({ state }) => Number(state === 'healthy' || state === 'degraded')),
    ),
    gauge(
      'failed',
      '1 where the copy on this node does not work',
      each((_, { problem }) => Number(problem !== undefined)),
    ),
    gauge('replication_lag_bytes', 'How far a copy is behind its primary', lag),
    gauge(
      'log_bytes',
      'Bytes of log kept on this node',
      each((_, { logBytes }) => logBytes),
    ),
    gauge(
      'segments',
      'Segment files kept on this node',
      each((_, { segmentCount }) => segmentCount),
    ),
    gauge(
      'mapped_bytes',
      'Bytes that hold data',
      each((_, { mappedBlocks }) => mappedBlocks * BLOCK_BYTES),
    ),
    gauge(
      'uncommitted_bytes',
      'Log appended here and not known to be committed',
      each((_, l) => (l.appendedLsn - l.committedLsn) * BLOCK_BYTES),
    ),
  ]
}

function nodeMetrics(admin: ClusterAdmin): MetricFamily[] {
  const nodes = admin.nodes()
  const own = nodes.find(({ record }) => record.name === admin.node)?.alive
  const states = nodes.map(({ record, alive }) => ({
    labels: { node: record.name },
    value: Number(alive !== undefined),
  }))
  const space =
    own === undefined
      ? []
      : [
          family('gauge', 'disk_free_bytes', 'Free bytes where the data lie', plain(own.freeBytes)),
          family(
            'gauge',
            'disk_size_bytes',
            'Size of the filesystem where the data lie',
            plain(own.totalBytes),
          ),
        ]
  return [
    family('gauge', 'node_up', '1 for each node that this node sees alive', states),
    family(
      'gauge',
      'ready',
      '1 when this node takes requests',
      plain(Number(admin.readiness().ready)),
    ),
    family('gauge', 'build_info', 'The version that runs', [
      { labels: { version, node: admin.node }, value: 1 },
    ]),
    ...space,
  ]
}
