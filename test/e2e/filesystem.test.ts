/** A mounted ext4 over nbdfuse and a loop device, through a failover; and recovery of a filled volume. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createHash, randomBytes } from 'node:crypto'
import { afterEach, describe, expect, it } from 'vitest'
import { TestCluster } from './harness.ts'
import { waitUntil } from '../support/waiting.ts'

const sh = (command: string, ...args: string[]): string =>
  execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim()

let cluster: TestCluster | undefined
let mounted: MountedVolume | undefined
afterEach(async () => {
  await mounted?.close()
  mounted = undefined
  await cluster?.close()
  cluster = undefined
})

class MountedVolume {
  readonly path: string
  readonly #folder
  readonly #fuse: ChildProcess
  readonly device: string

  private constructor(fuse: ChildProcess, folder: string, device: string) {
    this.#fuse = fuse
    this.#folder = folder
    this.device = device
    this.path = join(folder, 'mnt')
  }

  static async open(uri: string): Promise<MountedVolume> {
    const folder = mkdtempSync(join(tmpdir(), 'holdfast-fuse-'))
    const point = join(folder, 'nbd')
    mkdirSync(point)
    mkdirSync(join(folder, 'mnt'))
    const fuse = spawn('nbdfuse', [point, uri], { stdio: 'ignore' })
    await waitUntil('nbdfuse', 10_000, () => existsSync(join(point, 'nbd')))
    const device = sh('losetup', '-f', '--show', join(point, 'nbd'))
    return new MountedVolume(fuse, folder, device)
  }

  mount(): void {
    sh('mount', this.device, this.path)
  }
  unmount(): void {
    sh('umount', this.path)
  }

  async close(): Promise<void> {
    // A failed test may have got to any of these; the loop device goes by itself with its last user.
    const attempt = (command: string, ...args: string[]): void => {
      try {
        sh(command, ...args)
      } catch {}
    }
    attempt('umount', this.path)
    attempt('losetup', '-d', this.device)
    const ended = new Promise((resolve) => this.#fuse.once('exit', resolve))
    attempt('umount', join(this.#folder, 'nbd'))
    await ended
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

describe('ext4 on a volume', () => {
  it('survives the loss of the primary: files are right and fsck is clean', { timeout: 120_000 }, async () => {
    cluster = await TestCluster.start({ nodes: ['a', 'b', 'c'], leaseTtlSeconds: 2 })
    await cluster.cli(['volume', 'create', 'v', '--size', '1GiB', '--replicas', '3'])
    const { primary } = await cluster.healthy('v')
    const other = ['a', 'b', 'c'].find((name) => name !== primary) as string
    mounted = await MountedVolume.open(cluster.node(other).uri('v'))
    sh('mkfs.ext4', '-q', mounted.device)
    mounted.mount()
    const files = new Map<string, string>()
    const write = (name: string): void => {
      const bytes = randomBytes(512 * 1024)
      writeFileSync(join((mounted as MountedVolume).path, name), bytes)
      files.set(name, digest(bytes))
    }
    for (let i = 0; i < 20; i++) write(`before-${i}`)
    sh('sync', '-f', mounted.path)
    await cluster.node(primary as string).stop()
    for (let i = 0; i < 20; i++) write(`after-${i}`)
    sh('sync', '-f', mounted.path)
    mounted.unmount()
    sh('e2fsck', '-f', '-n', mounted.device)
    mounted.mount()
    for (const [name, expected] of files) {
      expect(digest(readFileSync(join(mounted.path, name))), name).toBe(expected)
    }
    await cluster.node(primary as string).start()
    await cluster.healthy('v')
  })
})

describe('recovery', () => {
  it('of a filled volume after kill -9 takes seconds at most', { timeout: 240_000 }, async () => {
    const size = process.env['HOLDFAST_E2E_RECOVERY_SIZE'] ?? '1G'
    cluster = await TestCluster.start({ nodes: ['a'], etcd: false })
    await cluster.cli(['volume', 'create', 'v', '--size', '10GiB', '--replicas', '1'])
    const node = cluster.node('a')
    const fill = ['--rw=write', '--bs=1M', '--iodepth=8', `--size=${size}`]
    expect(await cluster.fio([`--uri=${node.uri('v')}`, ...fill])).toMatchObject({ code: 0, error: 0 })
    await node.stop('SIGKILL')
    const started = performance.now()
    await node.start()
    await waitUntil('the volume to serve', 30_000, async () => (await cluster?.volume('v'))?.state === 'healthy')
    const seconds = (performance.now() - started) / 1000
    console.log(`recovery of ${size}: ${seconds.toFixed(2)} s from the start of the process`)
    expect(seconds).toBeLessThan(15)
  })
})
