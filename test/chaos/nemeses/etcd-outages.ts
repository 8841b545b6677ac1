/** The coordinator loses members; the volumes must not care. */
import type { EtcdMember } from '../etcd.ts'
import { waitUntil } from '../../support/waiting.ts'
import type { Fault, Nemesis } from './nemesis.ts'

export const killEtcdMember: Nemesis = {
  name: 'kill-etcd-member',
  needs: 'nothing',
  async plan({ cluster, dice }) {
    const victim = dice.pick(cluster.etcd)
    return outage([victim], `kill -9 of ${victim.name}`, 8000)
  },
}

export const killEtcd: Nemesis = {
  name: 'kill-etcd',
  needs: 'nothing',
  async plan({ cluster }) {
    return outage(cluster.etcd, 'kill -9 of all etcd members', 15_000)
  },
}

function outage(victims: readonly EtcdMember[], detail: string, holdMs: number): Fault {
  return {
    hit: [],
    detail,
    holdMs,
    async start() {
      await Promise.all(victims.map(({ program }) => program.stop('SIGKILL')))
    },
    async stop() {
      for (const { program } of victims) if (!program.running) await program.start()
      for (const member of victims) await waitUntil(`etcd member ${member.name}`, 30_000, () => member.serves())
    },
  }
}
