import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startApi } from '@holdfast/api'
import { FakeCluster, FakeMounts, fakeStatistics } from '@holdfast/api/testing'
import { HoldfastError } from '@holdfast/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { runCommandLine } from './program.ts'
import type { Terminal } from './terminal.ts'

class FakeTerminal implements Terminal {
  env: Record<string, string | undefined> = {}
  interactive = false
  progress = false
  stdout = ''
  stderr = ''
  answer = ''
  questions: string[] = []
  slept = 0
  onSleep = (): void => {}
  out(text: string): void {
    this.stdout += text
  }
  err(text: string): void {
    this.stderr += text
  }
  async ask(question: string): Promise<string> {
    this.questions.push(question)
    return this.answer
  }
  nowMs(): number {
    return this.slept
  }
  async sleep(ms: number): Promise<void> {
    this.slept += ms
    this.onSleep()
  }
}

let cluster: FakeCluster
let mounts: FakeMounts
let terminal: FakeTerminal
let url: string
let close: () => Promise<void>

beforeEach(async () => {
  cluster = new FakeCluster()
  mounts = new FakeMounts()
  terminal = new FakeTerminal()
  const options = { host: '127.0.0.1', port: 0, admin: cluster, mounts, statistics: () => fakeStatistics }
  const server = await startApi({ ...options, events: { event() {} }, token: 'secret' })
  url = `http://127.0.0.1:${server.port}`
  close = () => server.close()
  terminal.env = { HOLDFAST_API: url, HOLDFAST_TOKEN: 'secret' }
})
afterEach(() => close())

/** Runs a command; what it printed before is forgotten. */
async function run(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  terminal.stdout = ''
  terminal.stderr = ''
  const code = await runCommandLine(args, terminal)
  return { code, out: terminal.stdout, err: terminal.stderr }
}

async function json(...args: string[]): Promise<unknown> {
  const { code, out, err } = await run(...args, '-o', 'json')
  expect([code, err]).toEqual([0, ''])
  return JSON.parse(out)
}

const create = (name = 'data') => run('volume', 'create', name, '--size', '1GiB', '--replicas', '2')

describe('attach', () => {
  it('attaches, lists and detaches', async () => {
    await create()
    expect(await run('attach', 'data')).toEqual({ code: 0, out: '/dev/nbd0\n', err: '' })
    expect((await run('attach')).out).toContain('/dev/nbd0')
    expect(await run('detach', 'data')).toEqual({ code: 0, out: 'detached data\n', err: '' })
    expect(await run('attach')).toEqual({ code: 0, out: 'nothing is attached to this host\n', err: '' })
  })

  it('mounts with options and unmounts', async () => {
    await create()
    const mounted = await run('mount', 'data', '/mnt/data', '--fs', 'xfs', '-O', 'noatime', '--mkfs-option=-K')
    expect(mounted).toEqual({ code: 0, out: 'data is mounted on /mnt/data\n', err: '' })
    expect(mounts.calls).toEqual(['mount default/data api xfs -K noatime'])
    expect(await json('attach')).toEqual([
      { name: 'data', namespace: 'default', device: '/dev/nbd0', path: '/mnt/data', users: 1 },
    ])
    expect((await run('unmount', 'data')).out).toBe('unmounted data\n')
  })

  it('says who has the volume', async () => {
    await create()
    mounts.failure = new HoldfastError('HF_CONFLICT', 'volume data is attached to host b')
    expect(await run('attach', 'data')).toEqual({ code: 1, out: '', err: 'holdfast: volume data is attached to host b\n' })
    expect((await run('mount', 'data', 'here', '--fs', 'ntfs')).err).toContain('use ext4 or xfs')
    expect((await run('attach', 'nothing')).err).toContain('there is no volume nothing')
  })
})

describe('volume', () => {
  it('creates, lists, inspects, moves and removes', async () => {
    expect(await create()).toEqual({
      code: 0,
      out: 'created data: 1 GiB, primary on a, 2 copies on a, b\n',
      err: '',
    })
    expect((await run('volume', 'ls')).out).toBe(
      'NAMESPACE  NAME  SIZE   STATE    IN SYNC  PRIMARY  REPLICAS\n' +
        'default    data  1 GiB  healthy  2/2      a        a,b\n',
    )
    const inspected = await run('volume', 'inspect', 'data')
    expect(inspected.out).toContain('Size:          1 GiB (1073741824 bytes)\n')
    expect(inspected.out).toMatch(/\nb +secondary +in-sync +8 KiB behind\n$/)
    expect(await run('volume', 'move-primary', 'data', '--to', 'b')).toMatchObject({
      out: 'the primary of data is on b\n',
    })
    expect(await run('volume', 'rm', 'data')).toEqual({ code: 0, out: 'removed data\n', err: '' })
    expect(await run('volume', 'ls')).toEqual({ code: 0, out: 'no volumes\n', err: '' })
    expect(await run('volume', 'inspect', 'data')).toEqual({
      code: 1,
      out: '',
      err: 'holdfast: there is no volume data: see holdfast volume ls\n',
    })
  })

  it('speaks JSON', async () => {
    const labels = ['--label', 'tier=fast', '--label', 'note=a=b']
    const made = await json(
      'volume',
      'create',
      'shop/data',
      '--size',
      '64MiB',
      ...labels,
      '--failure-mode',
      'hard',
    )
    expect(made).toMatchObject({
      name: 'data',
      namespace: 'shop',
      size: 67_108_864,
      epoch: 1,
      primary: 'a',
      inSync: ['a', 'b'],
      replicas: ['a', 'b'],
      state: 'healthy',
      failureMode: 'hard',
      labels: { tier: 'fast', note: 'a=b' },
    })
    expect(await json('volume', 'ls')).toEqual([made])
    expect(await json('volume', 'ls', '--namespace', 'default')).toEqual([])
    expect(await json('volume', 'inspect', 'data', '--namespace', 'shop')).toEqual(made)
    expect(await json('volume', 'move-primary', 'shop/data')).toMatchObject({
      primary: 'b',
      epoch: 2,
    })
    expect(await json('volume', 'rm', 'shop/data')).toEqual({
      name: 'data',
      namespace: 'shop',
      removed: true,
    })
  })

  it('waits until a new volume serves', async () => {
    cluster.looksUntilServing = 3
    const { code, out, err } = await create()
    expect([code, out]).toEqual([0, 'created data: 1 GiB, primary on a, 2 copies on a, b\n'])
    expect(err).toBe('data is created; waiting until it serves\n')
    expect(terminal.slept).toBe(500)
  })

  it('gives up in time and says where to look', async () => {
    cluster.looksUntilServing = 1e9
    const { code, err } = await run('volume', 'create', 'data', '--size', '1GiB', '--timeout', '2')
    expect(code).toBe(1)
    expect(err).toContain('does not serve in time: see holdfast status')
    expect(terminal.slept).toBe(2000)
  })

  it('asks before it removes, where someone can answer', async () => {
    await create()
    terminal.interactive = true
    for (const [answer, code] of [
      ['', 1],
      ['no', 1],
      ['y', 0],
    ] as const) {
      terminal.answer = answer
      expect((await run('volume', 'rm', 'data')).code).toBe(code)
    }
    expect(terminal.questions).toHaveLength(3)
    expect(terminal.questions[0]).toBe('remove data (1 GiB) and all its data, for good? [y/N] ')
    await create()
    expect((await run('volume', 'rm', 'data', '--yes')).code).toBe(0)
    expect(terminal.questions).toHaveLength(3)
    expect(cluster.calls.filter((call) => call.startsWith('remove'))).toHaveLength(2)
  })
})

describe('node and status', () => {
  it('lists and inspects', async () => {
    await create()
    cluster.down.add('c')
    const { out } = await run('node', 'ls')
    expect(out).toContain(
      'a     up     10.0.0.1:5710  1        1          4.66 GiB of 9.31 GiB  zone=a\n',
    )
    expect(out).toContain(
      'c     down   10.0.0.1:5710  0        0          -                     zone=c\n',
    )
    expect(await json('node', 'inspect', 'b')).toMatchObject({
      name: 'b',
      volumes: [{ name: 'data', role: 'in-sync' }],
    })
    expect((await run('node', 'inspect', 'b')).out).toContain('default    data  in-sync  healthy\n')
    expect((await run('status')).out).toContain('! node c is down and holds nothing\n')
    expect(await json('status')).toMatchObject({ node: 'a', volumes: { total: 1, healthy: 1 } })
  })

  it('drains, and waits until the node is empty', async () => {
    await create()
    await create('more')
    let sleeps = 0
    terminal.onSleep = () => {
      const moved = sleeps++ === 0 ? 'data' : 'more'
      cluster.change('default', moved, { replicas: ['a', 'c'] as never })
    }
    expect(await run('node', 'drain', 'b')).toEqual({
      code: 0,
      out: 'node b is empty: it can be stopped\n',
      err: 'draining b: 2 copies are left (data, more)\ndraining b: 1 copy is left (more)\n',
    })
    expect(await json('node', 'drain', 'b', '--undo')).toMatchObject({
      draining: false,
      state: 'up',
    })
  })

  it('does not wait for what can not happen', async () => {
    await run('volume', 'create', 'wide', '--size', '1GiB', '--replicas', '3')
    const { code, err } = await run('node', 'drain', 'b')
    expect(code).toBe(1)
    expect(err).toContain(
      "can't be emptied now: volume wide wants 3 copies, and other nodes that are up",
    )
    expect(terminal.slept).toBe(0)
  })

  it('does not wait when told so, and not for ever', async () => {
    await create()
    expect(await run('node', 'drain', 'b', '--no-wait')).toEqual({
      code: 0,
      out: 'node b is draining: 1 copy is left on it\n',
      err: '',
    })
    expect(terminal.slept).toBe(0)
    const { code, err } = await run('node', 'drain', 'b', '--timeout', '1.5')
    expect(code).toBe(1)
    expect(err).toContain('node b is not empty in time')
    expect(terminal.slept).toBe(1500)
  })
})

describe('how it is called', () => {
  it('takes --api and -o before and after the command', async () => {
    terminal.env = { HOLDFAST_TOKEN: 'secret', HOLDFAST_API: 'http://127.0.0.1:1' }
    await expect(run('--api', url, '-o', 'json', 'volume', 'ls')).resolves.toMatchObject({
      code: 0,
      out: '[]\n',
    })
    await expect(run('volume', 'ls', '--api', url, '-o', 'json')).resolves.toMatchObject({
      code: 0,
      out: '[]\n',
    })
    await expect(run('node', 'ls', '--api', url)).resolves.toMatchObject({ code: 0 })
    const { code, err } = await run('node', 'ls')
    expect(code).toBe(1)
    expect(err).toMatch(
      /^holdfast: no node answers at http:\/\/127\.0\.0\.1:1 \(.*\): start one, or name another/,
    )
  })

  it('sends the token', async () => {
    terminal.env = { HOLDFAST_API: url }
    const { code, err } = await run('volume', 'ls')
    expect([code, err]).toEqual([
      1,
      'holdfast: no token was sent: set HOLDFAST_TOKEN to the token of the cluster\n',
    ])
  })

  it('fails with 1 what the cluster refuses', async () => {
    cluster.failure = new HoldfastError('HF_TOO_FEW_NODES', 'only one node is alive')
    expect(await create()).toEqual({ code: 1, out: '', err: 'holdfast: only one node is alive\n' })
  })

  const misused: [string[], string][] = [
    [[], 'Usage: holdfast'],
    [['volume'], 'Usage: holdfast volume'],
    [['volumes'], "unknown command 'volumes'"],
    [['volume', 'lss'], "unknown command 'lss'"],
    [['volume', 'ls', '--all'], "unknown option '--all'"],
    [['volume', 'ls', 'x'], 'too many arguments'],
    [['volume', 'ls', '-o', 'yaml'], 'Allowed choices are table, json'],
    [['volume', 'create', 'data'], "required option '--size <size>' not specified"],
    [['volume', 'create', '--size', '1GiB'], "missing required argument 'name'"],
    [['volume', 'create', 'DA TA', '--size', '1GiB'], '"DA TA" is no volume name'],
    [['volume', 'create', 'data', '--size', 'big'], '"big" is no size'],
    [
      ['volume', 'create', 'data', '--size', '1GiB', '--replicas', 'two'],
      'it must be a whole number',
    ],
    [
      ['volume', 'create', 'data', '--size', '1GiB', '--replicas', '0'],
      '0 is no number of replicas',
    ],
    [['volume', 'create', 'data', '--size', '1GiB', '--label', 'x'], 'write key=value'],
    [['volume', 'create', 'data', '--size', '1GiB', '--failure-mode', 'x'], 'is no failure mode'],
    [['volume', 'ls', '--api', 'ftp://x'], 'is no API address'],
    [['node', 'lss'], 'too many arguments'],
    [['node'], 'no data directory is given'],
    [['node', '--data-dir', '/none', '--nbd', 'x'], 'nbd: "x" is no address'],
    [['node', '--data-dir', '/none', '--coordinator', 'zk://x:1'], "use 'embedded' or 'etcd://"],
    [['node', '--data-dir', '/none', '--lease-ttl', 'x'], '--lease-ttl'],
    [['node', '--data-dir', '/none', '--log-level', 'loud'], '--log-level must be one of'],
    [['node', '--data-dir', '/none', '--label', 'x'], 'write key=value'],
    [['node', '--data-dir', '/none', '--config', '/none/x.yaml'], "can't be read"],
    [['up', '--coordinator', 'etcd://x:1'], "unknown option '--coordinator'"],
  ]
  it.each(misused)('exits 2: %j', async (args, message) => {
    const { code, out, err } = await run(...args)
    expect([code, out]).toEqual([2, ''])
    expect(err).toContain(message)
    expect(cluster.calls).toEqual([])
  })

  it('helps, and does not list what is not there', async () => {
    const { code, out } = await run('--help')
    expect(code).toBe(0)
    for (const command of ['up', 'node', 'volume', 'status'])
      expect(out).toMatch(new RegExp(`\n  ${command}`))
    const volume = await run('volume', '--help')
    expect(volume.code).toBe(0)
    expect(volume.out).toContain('move-primary')
    expect(volume.out).not.toMatch(/resize|snapshot|attach|mount/)
    expect((await run('help')).code).toBe(0)
    expect((await run('help', 'volume')).code).toBe(0)
    expect((await run('--version')).out).toBe('0.1.0\n')
  })

  it('names the file in which a setting is wrong', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'holdfast-cli-'))
    try {
      const file = join(folder, 'node.yaml')
      writeFileSync(file, 'name: a\ndata-dri: /x\n')
      const { code, err } = await run('node', '--config', file)
      expect([code, err.includes(`${file}: data-dri is not known`)]).toEqual([2, true])
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})
