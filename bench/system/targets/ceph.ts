/** Ceph: a monitor, a manager and an OSD (BlueStore) per copy, and an RBD image served by qemu-nbd. */
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { overNbd } from '../../bed/fio.ts'
import { type Host, until, versionOf } from '../../bed/host.ts'
import type { StartedTarget, Target } from './target.ts'

const START_MS = 180_000

function configOf(folder: string, fsid: string, copies: number, bytes: number): string {
  return `[global]
fsid = ${fsid}
mon_host = 127.0.0.1:6789
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
osd_pool_default_size = ${copies}
osd_pool_default_min_size = ${copies}
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
run_dir = ${folder}
admin_socket = ${folder}/$name.asok
log_file = ${folder}/$name.log
crash_dir = ${folder}/crash
mon_data = ${folder}/mon
mgr_data = ${folder}/mgr
osd_data = ${folder}/osd-$id
osd_objectstore = bluestore
bluestore_block_create = true
bluestore_block_size = ${bytes * 4 + 2 ** 32}
osd_memory_target = 1073741824
# The client's cache would acknowledge what no OSD has seen.
rbd_cache = false
`
}

async function startCeph(host: Host, name: string, copies: number, bytes: number): Promise<StartedTarget> {
  const folder = host.path(name)
  const fsid = randomUUID()
  const config = `${folder}/ceph.conf`
  for (const part of ['', '/mon', '/mgr', '/crash']) mkdirSync(folder + part, { recursive: true })
  writeFileSync(config, configOf(folder, fsid, copies, bytes))
  const socket = host.path(`${name}.sock`)
  const osds = Array.from({ length: copies }, (_, i) => {
    const uuid = randomUUID()
    return [
      `mkdir ${folder}/osd-${i}`,
      `ceph osd new ${uuid} ${i}`,
      `ceph-osd -i ${i} --mkfs --osd-uuid ${uuid}`,
      `ceph osd crush add osd.${i} 1.0 root=default host=node`,
      `start_osd ${i}`,
    ]
  })
  const script = [
    `export CEPH_CONF=${config}`,
    'ip link set lo up',
    'mount -t tmpfs tmpfs /run',
    `monmaptool --create --add a 127.0.0.1:6789 --fsid ${fsid} ${folder}/monmap`,
    `ceph-mon --mkfs -i a --monmap ${folder}/monmap`,
    'ceph-mon -i a',
    'ceph-mgr -i x',
    // On a busy machine an OSD may ask its monitor before it knows the cluster's ID, and gives up.
    'start_osd() { for try in 1 2 3 4 5; do if ceph-osd -i $1; then return; fi; sleep 1; done; return 1; }',
    ...osds.flat(),
    'ceph osd pool create rbd 32 32',
    'rbd pool init rbd',
    `rbd create v --size ${bytes}B`,
    `qemu-nbd --persistent --shared=8 --format=raw --cache=none --socket=${socket} --fork rbd:rbd/v:conf=${config}`,
  ].join('\n')
  const running = host.contain(script, ['--mount', '--net'])
  await until(name, () => existsSync(socket), running, START_MS)
  const uri = `nbd+unix:///?socket=${socket}`
  return { fio: overNbd(uri), uri, pids: [running.pid], version: await versionOf('ceph-osd') }
}

export function ceph(copies: 2 | 3): Target {
  const name = `ceph-${copies}`
  return {
    name,
    copies,
    what:
      `Ceph RBD, pool size ${copies}, BlueStore on files, on loopback, served by qemu-nbd without a client ` +
      'cache; acknowledged from the disks of all copies',
    needs: ['ceph-mon', 'ceph-mgr', 'ceph-osd', 'ceph', 'rbd', 'qemu-nbd', 'ip'],
    packages: 'ceph-mon ceph-mgr ceph-osd ceph-common qemu-utils qemu-block-extra iproute2',
    start: (host, bytes) => startCeph(host, name, copies, bytes),
  }
}
