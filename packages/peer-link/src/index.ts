export {
  createPeerNetwork,
  createShardNetwork,
  type HandedLink,
  type ListeningPeerNetwork,
  type PeerNetworkOptions,
  type ShardNetwork,
} from './peer-network.ts'
