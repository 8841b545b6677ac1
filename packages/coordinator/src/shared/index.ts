export { LeaseMemory } from './lease-memory.ts'
export { remoteCoordinator } from './remote-coordinator.ts'
export { SharedCoordinator, type Timing } from './shared-coordinator.ts'
