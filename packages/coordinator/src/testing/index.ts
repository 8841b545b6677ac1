export { type EtcdForTests, type EtcdMember, startEtcdForTests } from './etcd-process.ts'
