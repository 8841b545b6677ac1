/** Docker's calls over a real socket, the process that holds it included, against a cluster in memory. */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FakeCluster, FakeMounts } from '@holdfast/api/testing'
import { programArguments } from '@holdfast/attach'
import { HoldfastError } from '@holdfast/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type DriverSettings, startDockerPlugin } from './index.ts'

let folder: string
let cluster: FakeCluster
let mounts: FakeMounts
let ready: () => Promise<unknown>
let plugin: { close(): Promise<void> } | undefined
const fronts: ChildProcess[] = []

const socketPath = (): string => join(folder, 'plugins', 'holdfast.sock')
const events = { event: () => undefined }

async function start(settings: Partial<DriverSettings> = {}): Promise<void> {
  plugin = await startDockerPlugin({
    ...{ socketPath: socketPath(), nodeSocketPath: join(folder, 'node.sock') },
    ...{ admin: cluster, mounts, events, ready: () => ready(), settings },
    programArguments,
    spawn: (command, words, options) => {
      const front = spawn(command, words, options)
      fronts.push(front)
      return front
    },
  })
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-docker-'))
  cluster = new FakeCluster()
  mounts = new FakeMounts(join(folder, 'mounts'))
  ready = async () => undefined
})

afterEach(async () => {
  await plugin?.close()
  plugin = undefined
  for (const front of fronts.splice(0)) front.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})

interface Reply {
  readonly Err?: string
  readonly [field: string]: unknown
}

function call(path: string, body: object = {}): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const asking = request({ socketPath: socketPath(), path, method: 'POST', agent: false }, (answer) => {
      let text = ''
      answer.on('data', (part: Buffer) => (text += part.toString()))
      answer.on('end', () => resolve(JSON.parse(text) as Reply))
    })
    asking.on('error', reject)
    asking.end(JSON.stringify(body))
  })
}

const create = (Name: string, Opts: Record<string, string> = {}): Promise<Reply> =>
  call('/VolumeDriver.Create', { Name, Opts })

describe('the volume driver', () => {
  it('says what it is', async () => {
    await start()
    expect(await call('/Plugin.Activate')).toEqual({ Implements: ['VolumeDriver'] })
    expect(await call('/VolumeDriver.Capabilities')).toEqual({ Capabilities: { Scope: 'global' } })
    expect(statSync(socketPath()).mode & 0o777).toBe(0o600)
  })

  it('creates, mounts, shows, unmounts and removes a volume', async () => {
    await start()
    const options = { size: '64MiB', replicas: '3', fs: 'xfs', 'mount-options': 'noatime,nodiratime', 'label.tier': 'fast' }
    expect(await create('data', options)).toEqual({ Err: '' })
    expect(cluster.volume('default', 'data')?.record).toMatchObject({
      sizeBytes: 64 * 1024 ** 2,
      replicaCount: 3,
      labels: { tier: 'fast', 'docker.fs': 'xfs' },
    })
    const mountpoint = join(folder, 'mounts/default/data/data')
    expect(await call('/VolumeDriver.Mount', { Name: 'data', ID: 'one' })).toEqual({ Mountpoint: mountpoint, Err: '' })
    expect(existsSync(mountpoint)).toBe(true)
    expect(mounts.calls).toEqual(['mount default/data one xfs noatime nodiratime'])
    const { Volume: shown } = await call('/VolumeDriver.Get', { Name: 'data' })
    expect(shown).toMatchObject({ Name: 'data', Mountpoint: mountpoint, Status: { size: '64 MiB' } })
    expect((shown as { CreatedAt: string }).CreatedAt).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/)
    expect(await call('/VolumeDriver.Remove', { Name: 'data' })).toMatchObject({ Err: expect.stringContaining('in use') })
    await call('/VolumeDriver.Unmount', { Name: 'data', ID: 'one' })
    expect(await call('/VolumeDriver.Path', { Name: 'data' })).toEqual({ Mountpoint: '', Err: '' })
    expect(await call('/VolumeDriver.Remove', { Name: 'data' })).toEqual({ Err: '' })
    expect(await call('/VolumeDriver.List')).toEqual({ Volumes: [], Err: '' })
  })

  it('takes a call that comes twice for one', async () => {
    await start()
    await create('data')
    let go = (): void => {}
    mounts.hold = new Promise((resolve) => (go = resolve))
    const both = [1, 2].map(() => call('/VolumeDriver.Mount', { Name: 'data', ID: 'one' }))
    await expect.poll(() => mounts.calls.length).toBe(1)
    go()
    expect((await Promise.all(both)).map(({ Err }) => Err)).toEqual(['', ''])
    expect(mounts.calls).toHaveLength(1)
  })

  it('undoes a mount that comes after Docker has given up', async () => {
    await start({ mountMs: 50 })
    await create('data')
    let go = (): void => {}
    mounts.hold = new Promise((resolve) => (go = resolve))
    const { Err: said } = await call('/VolumeDriver.Mount', { Name: 'data', ID: 'one' })
    expect(said).toContain('could not be mounted in time')
    go()
    await expect.poll(() => mounts.calls.at(-1)).toBe('unmount default/data one')
  })

  it('succeeds at what is done already', async () => {
    await start()
    expect(await create('data', { size: '64MiB' })).toEqual({ Err: '' })
    expect(await create('data')).toEqual({ Err: '' })
    expect(await create('data', { size: '67108864' })).toEqual({ Err: '' })
    expect((await create('data', { size: '1GiB' })).Err).toContain('exists already and is not what was asked for')
    expect(await call('/VolumeDriver.Unmount', { Name: 'data', ID: 'never' })).toEqual({ Err: '' })
    expect(await call('/VolumeDriver.Unmount', { Name: 'nothing', ID: 'never' })).toEqual({ Err: '' })
  })

  it('finds a volume of another namespace by the name that Docker has', async () => {
    await start()
    expect(await create('logs', { namespace: 'team' })).toEqual({ Err: '' })
    expect(cluster.volume('team', 'logs')).toBeDefined()
    await call('/VolumeDriver.Mount', { Name: 'logs', ID: 'one' })
    expect(mounts.calls).toEqual(['mount team/logs one ext4'])
    const { Volumes: list } = await call('/VolumeDriver.List')
    expect(list).toMatchObject([{ Name: 'logs', Status: { namespace: 'team' } }])
  })

  it('does not make a volume again that was removed elsewhere, unless it is told to', async () => {
    await start()
    await create('data')
    await call('/VolumeDriver.List')
    await cluster.removeVolume('default', 'data')
    expect((await create('data')).Err).toContain('was removed elsewhere')
    expect(await create('data', { size: '64MiB' })).toEqual({ Err: '' })
    await call('/VolumeDriver.Remove', { Name: 'data' })
    expect(await create('data')).toEqual({ Err: '' })
  })

  it.each([
    [{ colour: 'blue' }, 'there is no option "colour"'],
    [{ size: '0' }, 'too small'],
    [{ size: '1000PiB' }, 'is no size'],
    [{ replicas: 'two' }, 'is no number of replicas'],
    [{ fs: 'ntfs' }, 'use ext4 or xfs'],
    [{ namespace: '..' }, 'is no namespace'],
    [{ from: 'a@b' }, "can't be made from a snapshot"],
    [{ 'failure-mode': 'brave' }, 'is no failure mode'],
  ])('refuses %j', async (options, words) => {
    await start()
    expect((await create('data', options as Record<string, string>)).Err).toContain(words)
    expect(cluster.volumes()).toEqual([])
  })

  it('passes on what is wrong', async () => {
    await start()
    await create('data')
    mounts.failure = new HoldfastError('HF_CONFLICT', 'volume data is attached to host b')
    expect(await call('/VolumeDriver.Mount', { Name: 'data', ID: 'one' })).toEqual({ Err: 'volume data is attached to host b' })
    expect((await call('/VolumeDriver.Get', { Name: 'nothing' })).Err).toContain('there is no volume nothing')
    expect((await call('/VolumeDriver.Dance')).Err).toContain('has no call')
  })
})

describe('while the node is away', () => {
  it('the next node is waited for', async () => {
    await start()
    await create('data')
    await plugin?.close()
    const answer = call('/VolumeDriver.Get', { Name: 'data' })
    await start()
    expect(await answer).toMatchObject({ Volume: { Name: 'data' } })
  })

  it('a volume stays one, and everything else is a sentence', { timeout: 30_000 }, async () => {
    await start()
    await create('data')
    await expect.poll(async () => (await call('/VolumeDriver.List')).Volumes, { timeout: 10_000 }).toHaveLength(1)
    // The process that holds the socket asks by itself, a little later than we did.
    await new Promise((resolve) => setTimeout(resolve, 4_000))
    await plugin?.close()
    plugin = undefined
    expect((await call('/VolumeDriver.Mount', { Name: 'data', ID: 'one' })).Err).toContain('does not run: start it')
    expect(await call('/VolumeDriver.Get', { Name: 'data' })).toMatchObject({ Volume: { Name: 'data' }, Err: '' })
    expect((await call('/VolumeDriver.Get', { Name: 'nothing' })).Err).toContain('does not run: start it')
    expect(await call('/Plugin.Activate')).toEqual({ Implements: ['VolumeDriver'] })
  })

  it('a node that does not reach its cluster leaves a Get without an answer', async () => {
    ready = async () => {
      throw new HoldfastError('HF_UNAVAILABLE', 'no coordinator')
    }
    await start()
    expect((await call('/VolumeDriver.Mount', { Name: 'data', ID: 'one' })).Err).toBe('no coordinator')
    await expect(call('/VolumeDriver.Get', { Name: 'data' })).rejects.toThrow()
  })

  it('the next holder of the socket takes the place of the last', async () => {
    await start()
    await plugin?.close()
    await start()
    const [first] = fronts
    await expect.poll(() => first?.exitCode, { timeout: 10_000 }).toBe(0)
    expect(await call('/Plugin.Activate')).toEqual({ Implements: ['VolumeDriver'] })
  })
})
