/**
 * A namespace per storage host and etcd member, joined to a bridge in the harness's own namespace. Links are cut by
 * taking the bridge's end down; single directions by nftables rules inside the namespace of a host.
 */
import { spawn } from 'node:child_process'
import { sh } from './shell.ts'

const PREFIX = '10.77.0'
const TABLE = 'chaos'

export interface Place {
  readonly name: string
  readonly address: string
  /** Undefined: no namespaces, everything is on loopback. */
  readonly namespace: string | undefined
}

export class Network {
  readonly #places: Place[] = []

  /** Must run in fresh network and mount namespaces: see the launcher. */
  static async create(): Promise<Network> {
    // Names of namespaces are files under /run: they stay this run's own.
    await sh('mount', ['-t', 'tmpfs', 'none', '/run'])
    await sh('ip', ['link', 'set', 'lo', 'up'])
    await sh('ip', ['link', 'add', 'bridge0', 'type', 'bridge'])
    await sh('ip', ['addr', 'add', `${PREFIX}.254/24`, 'dev', 'bridge0'])
    await sh('ip', ['link', 'set', 'bridge0', 'up'])
    return new Network()
  }

  async add(name: string): Promise<Place> {
    const address = `${PREFIX}.${this.#places.length + 1}`
    const inside = ['-n', name]
    await sh('ip', ['netns', 'add', name])
    await sh('ip', ['link', 'add', name, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name])
    await sh('ip', ['link', 'set', name, 'master', 'bridge0', 'up'])
    await sh('ip', [...inside, 'link', 'set', 'lo', 'up'])
    await sh('ip', [...inside, 'addr', 'add', `${address}/24`, 'dev', 'eth0'])
    await sh('ip', [...inside, 'link', 'set', 'eth0', 'up'])
    const place = { name, address, namespace: name }
    this.#places.push(place)
    return place
  }

  /** Like a cable that is pulled: nothing gets in or out, and nobody is told. */
  async unplug(place: Place): Promise<void> {
    await sh('ip', ['link', 'set', place.name, 'down'])
  }

  async plug(place: Place): Promise<void> {
    await sh('ip', ['link', 'set', place.name, 'up'])
  }

  /** Drops in `place` what it sends to `to`; what comes from there passes. */
  async dropOutgoing(place: Place, to: readonly Place[]): Promise<void> {
    await this.#rules(place, `chain out {
      type filter hook output priority 0
      ip daddr { ${to.map(({ address }) => address).join(', ')} } drop
    }`)
  }

  async dropBothWays(place: Place, other: readonly Place[]): Promise<void> {
    const set = `{ ${other.map(({ address }) => address).join(', ')} }`
    await this.#rules(place, `chain out {
      type filter hook output priority 0
      ip daddr ${set} drop
    }
    chain in {
      type filter hook input priority 0
      ip saddr ${set} drop
    }`)
  }

  async allowAll(place: Place): Promise<void> {
    await sh('nsenter', [...enter(place), 'nft', 'delete', 'table', 'ip', TABLE])
  }

  /** In both directions this rate, with a queue of that length: a slow, congested link. */
  async slow(place: Place, rate: string, queueMs: number): Promise<void> {
    const shape = ['root', 'tbf', 'rate', rate, 'burst', '16kb', 'latency', `${queueMs}ms`]
    await sh('nsenter', [...enter(place), 'tc', 'qdisc', 'add', 'dev', 'eth0', ...shape])
    await sh('tc', ['qdisc', 'add', 'dev', place.name, ...shape])
  }

  async fast(place: Place): Promise<void> {
    await sh('tc', ['qdisc', 'del', 'dev', place.name, 'root'])
    await sh('nsenter', [...enter(place), 'tc', 'qdisc', 'del', 'dev', 'eth0', 'root'])
  }

  async #rules(place: Place, chains: string): Promise<void> {
    const text = `table ip ${TABLE} {\n${chains}\n}\n`
    await new Promise<void>((resolve, reject) => {
      const nft = spawn('nsenter', [...enter(place), 'nft', '-f', '-'], { stdio: ['pipe', 'inherit', 'inherit'] })
      nft.once('error', reject)
      nft.once('exit', (code) => (code === 0 ? resolve() : reject(new Error(`nft refuses: ${text}`))))
      nft.stdin.end(text)
    })
  }
}

/** Arguments of nsenter for what runs in a place. */
export function enter(place: Place): string[] {
  if (place.namespace === undefined) throw new Error(`${place.name} has no namespace`)
  return [`--net=/run/netns/${place.namespace}`]
}
