/** GlusterFS: glusterd, a brick process per copy, and an image on the replicated volume, served by qemu-nbd. */
import { existsSync } from 'node:fs'
import { overNbd } from '../../bed/fio.ts'
import { type Host, until, versionOf } from '../../bed/host.ts'
import type { StartedTarget, Target } from './target.ts'

const START_MS = 120_000
/** Gluster refuses loopback addresses for bricks; this one exists in its network namespace alone. */
const ADDRESS = '10.93.0.1'

/**
 * What upstream sets for images of virtual machines (`group virt`), as far as it matters for one client, and
 * write-behind off: with it the client would acknowledge what no brick has seen.
 */
const VOLUME_OPTIONS = [
  'performance.write-behind off',
  'performance.quick-read off',
  'performance.read-ahead off',
  'performance.io-cache off',
  'performance.client-io-threads on',
  'cluster.eager-lock enable',
  'client.event-threads 4',
  'server.event-threads 4',
]

async function startGluster(host: Host, name: string, copies: number, bytes: number): Promise<StartedTarget> {
  const bricks = Array.from({ length: copies }, (_, i) => host.path(`${name}-brick-${i}`))
  const socket = host.path(`${name}.sock`)
  const image = `gluster://${ADDRESS}/v/image`
  const script = [
    'ip link set lo up',
    `ip address add ${ADDRESS}/32 dev lo`,
    // Its folders are fixed: private ones over them, so that the machine's own Gluster is not touched.
    'for folder in /run /var/lib/glusterd /var/log/glusterfs; do mount -t tmpfs tmpfs $folder; done',
    'mkdir -p /run/gluster',
    `mkdir -p ${bricks.join(' ')}`,
    'glusterd',
    'tries=0; until gluster --mode=script volume list >/dev/null 2>&1; do',
    '  tries=$((tries + 1)); [ $tries -lt 100 ]; sleep 0.2',
    'done',
    `gluster --mode=script volume create v replica ${copies} \\`,
    `  ${bricks.map((brick) => `${ADDRESS}:${brick}`).join(' ')} force`,
    ...VOLUME_OPTIONS.map((option) => `gluster --mode=script volume set v ${option}`),
    'gluster --mode=script volume start v',
    `qemu-img create -f raw ${image} ${bytes}`,
    `qemu-nbd --persistent --shared=8 --format=raw --cache=writeback --socket=${socket} --fork ${image}`,
  ].join('\n')
  const running = host.contain(script, ['--mount', '--net'])
  await until(name, () => existsSync(socket), running, START_MS)
  const uri = `nbd+unix:///?socket=${socket}`
  return { fio: overNbd(uri), uri, pids: [running.pid], version: await versionOf('glusterd') }
}

export function gluster(copies: 2 | 3): Target {
  const name = `gluster-${copies}`
  return {
    name,
    copies,
    what:
      `GlusterFS replica ${copies} on loopback, an image on it served by qemu-nbd; write-behind off: ` +
      'acknowledged from the page caches of all bricks',
    needs: ['glusterd', 'gluster', 'qemu-nbd', 'ip'],
    packages: 'glusterfs-server qemu-utils qemu-block-extra iproute2',
    start: (host, bytes) => startGluster(host, name, copies, bytes),
  }
}
