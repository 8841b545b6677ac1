/** QEMU's quorum driver over several nbdkit processes: the plainest synchronous replication there is. */
import { existsSync } from 'node:fs'
import { overNbd } from '../../bed/fio.ts'
import { type Host, until, versionOf } from '../../bed/host.ts'
import { startNbdkit } from './one-copy.ts'
import type { StartedTarget, Target } from './target.ts'

/**
 * The children are nbdkit on unix sockets: qemu-nbd leaves Nagle's algorithm on for TCP connections, and
 * stalls 40 ms at a time.
 */
async function startQuorum(host: Host, name: string, copies: number, bytes: number): Promise<StartedTarget> {
  const indexes = Array.from({ length: copies }, (_, i) => i)
  const children = await Promise.all(indexes.map((i) => startNbdkit(host, `${name}-${i}`, bytes)))
  const nodes = children.flatMap(({ socket }, i) => [
    '--blockdev',
    `driver=nbd,node-name=child${i},server.type=unix,server.path=${socket}`,
  ])
  const members = indexes.map((i) => `children.${i}=child${i}`).join(',')
  const socket = host.path(`${name}.sock`)
  const daemon = host.run('qemu-storage-daemon', [
    ...nodes,
    ...['--blockdev', `driver=quorum,node-name=q,vote-threshold=2,${members}`],
    ...['--nbd-server', `addr.type=unix,addr.path=${socket}`],
    ...['--export', 'type=nbd,id=e,node-name=q,name=q,writable=on'],
  ])
  await until(name, () => existsSync(socket), daemon)
  const uri = `nbd+unix:///q?socket=${socket}`
  return {
    fio: overNbd(uri),
    uri,
    pids: [daemon.pid, ...children.map(({ running }) => running.pid)],
    version: await versionOf('qemu-storage-daemon'),
  }
}

export function quorum(copies: 2 | 3): Target {
  const name = `quorum-${copies}`
  return {
    name,
    copies,
    what:
      `qemu-storage-daemon, quorum of ${copies} nbdkit processes on unix sockets, two votes; ` +
      'acknowledged from the page caches of all; every read is made from all and compared',
    needs: ['qemu-storage-daemon', 'nbdkit'],
    packages: 'qemu-system-x86 nbdkit',
    start: (host, bytes) => startQuorum(host, name, copies, bytes),
  }
}
