/**
 * The Prometheus text format (version 0.0.4). Counters that the engine keeps are written out as they
 * are; prom-client would want to count them itself.
 */
export interface MetricSample {
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
  /** Histograms: `_bucket`, `_sum`, `_count`. */
  readonly suffix?: string | undefined
}

export interface MetricFamily {
  readonly name: string
  readonly help: string
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly samples: readonly MetricSample[]
}

/** Families without samples too: what there is to be watched is known before anything has happened. */
export function formatMetrics(families: readonly MetricFamily[]): string {
  return families
    .map(({ name, help, type, samples }) => {
      const lines = samples.map(({ labels, value, suffix = '' }) => {
        return `${name}${suffix}${formatLabels(labels)} ${formatValue(value)}\n`
      })
      return `# HELP ${name} ${escapeText(help)}\n# TYPE ${name} ${type}\n${lines.join('')}`
    })
    .join('')
}

function formatLabels(labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels).map(([key, value]) => {
    return `${key}="${escapeText(value).replaceAll('"', '\\"')}"`
  })
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`
}

function formatValue(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return '+Inf'
  return value === Number.NEGATIVE_INFINITY ? '-Inf' : String(value)
}

const escapeText = (text: string): string => text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')
