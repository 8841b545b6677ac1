/** Full disks: small loop-mounted filesystems under one node's data. Needs root; that is checked, not assumed. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { TestCluster } from './harness.ts'
import { waitUntil } from '../support/waiting.ts'

const NODES = ['a', 'b']
const sh = (command: string, ...args: string[]): void => {
  execFileSync(command, args, { stdio: 'pipe' })
}

let cluster: TestCluster | undefined
let small: SmallDisk | undefined
afterEach(async () => {
  await cluster?.close()
  cluster = undefined
  small?.remove()
  small = undefined
})

class SmallDisk {
  readonly #folder = mkdtempSync(join(tmpdir(), 'holdfast-small-'))
  readonly path = join(this.#folder, 'mnt')

  constructor(mebibytes: number) {
    const image = join(this.#folder, 'image')
    sh('truncate', '-s', `${mebibytes}M`, image)
    sh('mkfs.ext4', '-q', '-m', '0', image)
    mkdirSync(this.path)
    sh('mount', '-o', 'loop', image, this.path)
  }

  /** Takes what is free but for `keepMebibytes`. */
  fill(keepMebibytes: number): void {
    const free = Number(
      execFileSync('stat', ['-f', '-c', '%a %S', this.path], { encoding: 'utf8' })
        .split(' ')
        .reduce((product, part) => product * Number(part), 1),
    )
    const bytes = free - keepMebibytes * 1024 * 1024
    if (bytes > 0) sh('fallocate', '-l', String(bytes), join(this.path, 'filler'))
  }

  free(): void {
    rmSync(join(this.path, 'filler'), { force: true })
  }

  remove(): void {
    sh('umount', this.path)
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

async function start(smallNode: string): Promise<TestCluster> {
  small = new SmallDisk(1024)
  const path = small.path
  return await TestCluster.start({
    nodes: NODES,
    leaseTtlSeconds: 2,
    dataDir: (name) => (name === smallNode ? join(path, 'data') : undefined),
  })
}

const write = (uri: string, size: string): readonly string[] => [
  `--uri=${uri}`,
  `--size=${size}`,
  ...['--rw=write', '--bs=256k', '--iodepth=4', '--verify=crc32c', '--do_verify=1', '--verify_fatal=1'],
]

describe('[I9] a full disk', () => {
  it('of a secondary drops that copy, and the volume goes on', { timeout: 120_000 }, async () => {
    cluster = await start('b')
    await cluster.cli(['volume', 'create', 'v', '--size', '1GiB', '--replicas', '2'])
    await cluster.cli(['volume', 'move-primary', 'v', '--to', 'a']).catch(() => {})
    await waitUntil('a to be primary', 10_000, async () => (await cluster?.volume('v'))?.primary === 'a')
    small?.fill(40)
    const result = await cluster.fio(write(cluster.node('a').uri('v'), '200M'))
    expect(result).toMatchObject({ code: 0, error: 0 })
    const dropped = await cluster.volume('v', 'a')
    expect(dropped).toMatchObject({ state: 'degraded', inSync: ['a'] })
    expect(cluster.node('a').log).toContain('a member gave up: no-space')
    small?.free()
    await cluster.healthy('v', 'a', 40_000)
  })

  it('of the primary is ENOSPC to the client, and works again with space', { timeout: 120_000 }, async () => {
    cluster = await start('a')
    await cluster.cli(['volume', 'create', 'v', '--size', '1GiB', '--replicas', '2'])
    await cluster.cli(['volume', 'move-primary', 'v', '--to', 'a']).catch(() => {})
    await waitUntil('a to be primary', 10_000, async () => (await cluster?.volume('v'))?.primary === 'a')
    const uri = cluster.node('b').uri('v')
    expect(await cluster.fio(write(uri, '32M'))).toMatchObject({ code: 0, error: 0 })
    small?.fill(40)
    const full = await cluster.fio(['--offset=64M', ...write(uri, '300M')])
    expect(full.error).toBe(28)
    expect(cluster.node('a').running).toBe(true)
    const kept = await cluster.fio([...write(uri, '32M'), '--verify_only'])
    expect(kept).toMatchObject({ code: 0, error: 0 })
    small?.free()
    await waitUntil('writes to work again', 20_000, async () => {
      return (await cluster?.fio(['--offset=64M', ...write(uri, '64M')]))?.error === 0
    })
    await cluster.healthy('v')
  })
})
