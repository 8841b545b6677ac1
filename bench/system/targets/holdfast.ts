/** Holdfast itself: a process per node, and etcd where there are several. */
import { createVolume, startCluster } from '../../bed/cluster.ts'
import { overNbd } from '../../bed/fio.ts'
import { versionOf } from '../../bed/host.ts'
import type { Target } from './target.ts'

const PROGRAM = new URL('../../../packages/cli/bin/holdfast.js', import.meta.url).pathname

export function holdfast(copies: 1 | 2 | 3): Target {
  const name = `holdfast-${copies}`
  return {
    name,
    copies,
    what:
      copies === 1
        ? 'one node, embedded coordinator; acknowledged from the page cache of the node'
        : `${copies} nodes linked over TCP on loopback, and etcd; acknowledged from the page caches of all; ` +
          'the client is on the unix socket of the primary',
    needs: copies === 1 ? [] : ['etcd'],
    packages: 'etcd-server',
    async start(host, bytes) {
      const cluster = await startCluster(host, name, copies)
      const { uri } = await createVolume(cluster, 'v', copies, bytes)
      return { fio: overNbd(uri), uri, pids: cluster.pids, version: await versionOf(PROGRAM) }
    },
  }
}
