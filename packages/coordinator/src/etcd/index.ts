export { type EtcdCoordinatorOptions, openEtcdCoordinator } from './etcd-coordinator.ts'
