/** The model of the page: what bounds a node, from the CPU time that a request was measured to cost. */
import { figure, type Table } from '../system/report.ts'
import { type Results, series } from '../system/results.ts'
import { median } from '../system/statistics.ts'

export interface Hardware {
  readonly cores: number
  /** Bytes per second in each direction. */
  readonly network: number
  /** Bytes per second that the disks of a node take for good, and give. */
  readonly diskWrites: number
  readonly diskReads: number
}

/** Of requests of one kind and size. */
export interface RequestCost {
  readonly bytes: number
  /** On all nodes together. */
  readonly cpuSeconds: number
  readonly copies: number
  readonly kind: 'read' | 'write'
}

/** A batch of 16 blocks has one block of header. */
const HEADER_SHARE = 17 / 16
/** Bytes written for a byte of payload while the log is compacted at half full. */
const COMPACTION = 2
/** TCP, IP, Ethernet and WebSocket around a payload. */
const NETWORK_SHARE = 1.06

export interface Bounds {
  readonly cpu: number
  readonly network: number
  readonly disk: number
}

/**
 * Requests per second of a node in a cluster of equals, where each is the primary of as many volumes as it
 * keeps copies for others. Clients are local to their primary.
 */
export function bounds(hardware: Hardware, cost: RequestCost): Bounds {
  const cpu = hardware.cores / cost.cpuSeconds
  if (cost.kind === 'read') return { cpu, network: Infinity, disk: hardware.diskReads / cost.bytes }
  const sent = cost.bytes * HEADER_SHARE * NETWORK_SHARE * (cost.copies - 1)
  const stored = cost.bytes * HEADER_SHARE * COMPACTION * cost.copies
  return { cpu, network: hardware.network / sent, disk: hardware.diskWrites / stored }
}

const GIGABIT = 1e9 / 8
const NODES: readonly { readonly name: string; readonly hardware: Hardware }[] = [
  { name: '16 cores, 25 GbE', hardware: { cores: 16, network: 25 * GIGABIT, diskWrites: 4e9, diskReads: 12e9 } },
  { name: '32 cores, 100 GbE', hardware: { cores: 32, network: 100 * GIGABIT, diskWrites: 8e9, diskReads: 24e9 } },
]

interface Measured {
  readonly title: string
  readonly row: string
  readonly bytes: number
  readonly kind: 'read' | 'write'
}
const MEASURED: readonly Measured[] = [
  { title: '4 KiB reads', row: 'read-32', bytes: 4096, kind: 'read' },
  { title: '4 KiB writes', row: 'write-32', bytes: 4096, kind: 'write' },
  { title: '1 MiB writes', row: 'sequential-write', bytes: 2 ** 20, kind: 'write' },
]

const NAMES: Readonly<Record<keyof Bounds, string>> = { cpu: 'CPU', network: 'network', disk: 'disk' }

function cellOf(limits: Bounds): string {
  const all = (Object.keys(NAMES) as (keyof Bounds)[]).map((key) => ({ key, value: limits[key] }))
  const least = all.reduce((a, b) => (b.value < a.value ? b : a))
  return `${figure(least.value)}/s (${NAMES[least.key]})`
}

/** Empty without figures of Holdfast. */
export function modelTable(results: Results): Table {
  const lines = [1, 2, 3].flatMap((copies) =>
    MEASURED.flatMap(({ title, row, bytes, kind }) => {
      const perMillion = median(series(results, row, `holdfast-${copies}`, 'cpuSecondsPerMillion'))
      if (!Number.isFinite(perMillion)) return []
      const cost = { bytes, kind, copies, cpuSeconds: perMillion / 1e6 }
      const cells = NODES.map(({ hardware }) => cellOf(bounds(hardware, cost)))
      return [[`${title}, ${copies === 1 ? 'one copy' : `${copies} copies`}`, `${figure(perMillion)} µs`, ...cells]]
    }),
  )
  return [['requests', 'CPU per request', ...NODES.map(({ name }) => name)], ...lines]
}
