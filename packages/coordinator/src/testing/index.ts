export {
  type EtcdTestCluster,
  type EtcdTestMember,
  type EtcdTestOptions,
  startEtcdForTests,
} from './etcd-process.ts'
