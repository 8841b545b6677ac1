export {
  type EmbeddedCoordinatorOptions,
  type FileCoordinator,
  openEmbeddedCoordinator,
} from './file-coordinator.ts'
