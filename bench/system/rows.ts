/** The workloads, each one run of fio. */

export interface Row {
  /** For `--rows` and file names. */
  readonly key: string
  readonly title: string
  readonly unit: 'IOPS' | 'MB/s'
  readonly fio: readonly string[]
}

function random(kind: 'write' | 'read', depth: number): Row {
  return {
    key: `${kind}-${depth}`,
    title: `4 KiB random ${kind}, depth ${depth}`,
    unit: 'IOPS',
    fio: [`--rw=rand${kind}`, '--bs=4k', `--iodepth=${depth}`],
  }
}

function sequential(kind: 'write' | 'read'): Row {
  return {
    key: `sequential-${kind}`,
    title: `1 MiB ${kind}, depth 8`,
    unit: 'MB/s',
    fio: [`--rw=${kind}`, '--bs=1M', '--iodepth=8'],
  }
}

export const ROWS: readonly Row[] = [
  random('write', 1),
  random('write', 32),
  random('write', 128),
  random('read', 1),
  random('read', 32),
  random('read', 128),
  {
    key: 'flush',
    title: '4 KiB random write + flush each',
    unit: 'IOPS',
    fio: ['--rw=randwrite', '--bs=4k', '--iodepth=1', '--fsync=1'],
  },
  {
    key: 'mixed',
    title: '8 KiB mixed 70/30, depth 16',
    unit: 'IOPS',
    fio: ['--rw=randrw', '--rwmixread=70', '--bs=8k', '--iodepth=16'],
  },
  sequential('write'),
  sequential('read'),
]

/** The rows of these keys, or all. Throws for a key that there isn't. */
export function chooseRows(keys: readonly string[]): readonly Row[] {
  if (keys.length === 0) return ROWS
  return keys.map((key) => {
    const row = ROWS.find((one) => one.key === key)
    if (row !== undefined) return row
    throw new Error(`no row ${key}: there are ${ROWS.map((one) => one.key).join(', ')}`)
  })
}
