/** Members of a real etcd, each in its place. */
import { join } from 'node:path'
import type { Place } from './network.ts'
import { Program } from './program.ts'
import { waitUntil } from '../support/waiting.ts'

export class EtcdMember {
  readonly name: string
  readonly endpoint: string
  readonly place: Place
  readonly program: Program

  constructor(name: string, place: Place, ports: EtcdPorts, cluster: string, folder: string, logs: string) {
    this.name = name
    this.place = place
    this.endpoint = `${place.address}:${ports.client}`
    const peer = `http://${place.address}:${ports.peer}`
    const command = [
      ['etcd', '--name', name, '--data-dir', join(folder, name)],
      ['--listen-client-urls', `http://${this.endpoint}`, '--advertise-client-urls', `http://${this.endpoint}`],
      ['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
      ['--initial-cluster', cluster, '--initial-cluster-state', 'new', '--initial-cluster-token', folder],
      ['--heartbeat-interval', '100', '--election-timeout', '1000', '--logger', 'zap', '--log-level', 'warn'],
    ].flat()
    const logFile = join(logs, `${name}.log`)
    this.program = new Program({ name, place, command, logFile, onEnd: () => {} })
  }

  async serves(): Promise<boolean> {
    const answer = await fetch(`http://${this.endpoint}/health`, { signal: AbortSignal.timeout(1000) })
    return answer.ok && ((await answer.json()) as { health?: string }).health === 'true'
  }
}

export interface EtcdPorts {
  readonly client: number
  readonly peer: number
}

/** One member per place; resolves when all of them serve. */
export async function startEtcd(
  places: readonly { readonly place: Place; readonly ports: EtcdPorts }[],
  folder: string,
  logs: string,
): Promise<EtcdMember[]> {
  const cluster = places.map(({ place, ports }) => `${place.name}=http://${place.address}:${ports.peer}`).join(',')
  const members = places.map(({ place, ports }) => {
    return new EtcdMember(place.name, place, ports, cluster, folder, logs)
  })
  await Promise.all(members.map((member) => member.program.start()))
  for (const member of members) await waitUntil(`etcd member ${member.name}`, 30_000, () => member.serves())
  return members
}
