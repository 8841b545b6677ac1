export { LeaseMemory } from './lease-memory.ts'
export { remoteCoordinator } from './remote-coordinator.ts'
export { SharedCoordinator } from './shared-coordinator.ts'
