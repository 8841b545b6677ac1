export { type ListenAddress, parseAddress } from './address.ts'
export {
  type ConfigDefaults,
  defaultDataDir,
  type LogLevel,
  type NodeConfig,
  readConfig,
} from './config.ts'
export { createLog, type NodeLog } from './logger.ts'
export { type NodeAddresses, type StorageNode, startStorageNode } from './node.ts'
export { EXIT_BUG, runStorageNode } from './process.ts'
export { openLatencyOfHost } from './processor-latency.ts'
