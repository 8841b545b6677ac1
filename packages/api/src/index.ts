export * from './objects.ts'
export { startApi, type ApiHandle, type ApiOptions } from './server.ts'
export type { MetricFamily, MetricSample } from './metrics-text.ts'
export { version } from './version.ts'
