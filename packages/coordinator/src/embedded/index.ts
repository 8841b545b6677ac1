export { type EmbeddedCoordinatorOptions, openEmbeddedCoordinator } from './embedded-coordinator.ts'
