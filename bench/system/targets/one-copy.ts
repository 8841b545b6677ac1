/** Peers that keep one copy in one file: nbdkit, qemu-nbd, nbd-server; and the file without a server. */
import { existsSync, writeFileSync } from 'node:fs'
import { overNbd } from '../../bed/fio.ts'
import { type Host, type Running, until, versionOf } from '../../bed/host.ts'
import type { StartedTarget, Target } from './target.ts'

const CACHED = 'acknowledged from the page cache of one process'

/** A sparse file for an image; the benchmark fills it over NBD. */
export async function makeImage(host: Host, name: string, bytes: number): Promise<string> {
  const image = host.path(`${name}.img`)
  await host.do('truncate', ['--size', String(bytes), image])
  return image
}

interface ServedByNbdkit {
  readonly socket: string
  readonly running: Running
}

/** One of nbdkit's plugins, with its arguments. */
async function startPlugin(host: Host, name: string, plugin: readonly string[]): Promise<ServedByNbdkit> {
  const socket = host.path(`${name}.sock`)
  const running = host.run('nbdkit', ['--foreground', '--unix', socket, ...plugin])
  await until(name, () => existsSync(socket), running)
  return { socket, running }
}

export async function startNbdkit(host: Host, name: string, bytes: number): Promise<ServedByNbdkit> {
  return startPlugin(host, name, ['file', await makeImage(host, name, bytes)])
}

async function served({ socket, running }: ServedByNbdkit): Promise<StartedTarget> {
  const uri = `nbd+unix:///?socket=${socket}`
  return { fio: overNbd(uri), uri, pids: [running.pid], version: await versionOf('nbdkit') }
}

export const nbdkit: Target = {
  name: 'nbdkit',
  copies: 1,
  what: `nbdkit's file plugin; ${CACHED}`,
  needs: ['nbdkit'],
  packages: 'nbdkit',
  async start(host, bytes) {
    return served(await startNbdkit(host, 'nbdkit', bytes))
  },
}

/** For `bench:databases`: what the way to a store leaves of the machine when the store itself costs next to nothing. */
export const nbdkitMemory: Target = {
  name: 'nbdkit-memory',
  copies: 1,
  what: "nbdkit's memory plugin; nothing is ever on a disk, a flush does nothing",
  needs: ['nbdkit'],
  packages: 'nbdkit',
  optional: true,
  async start(host, bytes) {
    return served(await startPlugin(host, 'nbdkit-memory', ['memory', String(bytes)]))
  },
}

export const qemuNbd: Target = {
  name: 'qemu-nbd',
  copies: 1,
  what: `qemu-nbd over a raw file, cache=writeback; ${CACHED}`,
  needs: ['qemu-nbd'],
  packages: 'qemu-utils',
  async start(host, bytes) {
    const image = await makeImage(host, 'qemu-nbd', bytes)
    const socket = host.path('qemu-nbd.sock')
    const options = ['--persistent', '--shared=8', '--format=raw', '--cache=writeback', '--discard=unmap']
    const running = host.run('qemu-nbd', [...options, `--socket=${socket}`, image])
    await until('qemu-nbd', () => existsSync(socket), running)
    const uri = `nbd+unix:///?socket=${socket}`
    return { fio: overNbd(uri), uri, pids: [running.pid], version: await versionOf('qemu-nbd') }
  },
}

export const nbdServer: Target = {
  name: 'nbd-server',
  copies: 1,
  what: `nbd-server over a raw file; ${CACHED}`,
  needs: ['nbd-server'],
  packages: 'nbd-server',
  async start(host, bytes) {
    const image = await makeImage(host, 'nbd-server', bytes)
    const socket = host.path('nbd-server.sock')
    const config = host.path('nbd-server.conf')
    const generic = `[generic]\nunixsock = ${socket}\n`
    writeFileSync(config, `${generic}[v]\nexportname = ${image}\nflush = true\nfua = true\n`)
    // It always becomes a daemon, and forks for each client.
    const running = host.contain(`nbd-server -C ${config} -p ${host.path('nbd-server.pid')}`)
    await until('nbd-server', () => existsSync(socket), running)
    const uri = `nbd+unix:///v?socket=${socket}`
    return { fio: overNbd(uri), uri, pids: [running.pid], version: await versionOf('nbd-server', ['-V']) }
  },
}

export const rawDisk: Target = {
  name: 'raw-disk',
  copies: 0,
  what: 'fio alone: io_uring with direct I/O on a file of the same disk; the floor, acknowledged from the disk',
  needs: [],
  packages: '',
  async start(host, bytes) {
    const image = await makeImage(host, 'raw-disk', bytes)
    const fio = ['--ioengine=io_uring', '--direct=1', `--filename=${image}`]
    return { fio, pids: [], version: await versionOf('fio') }
  },
}
