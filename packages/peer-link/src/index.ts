export {
  createPeerNetwork,
  type ListeningPeerNetwork,
  type PeerNetworkOptions,
} from './peer-network.ts'
