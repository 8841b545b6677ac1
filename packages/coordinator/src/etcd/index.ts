export {
  EtcdCoordinator,
  type EtcdCoordinatorOptions,
  openEtcdCoordinator,
} from './etcd-coordinator.ts'
