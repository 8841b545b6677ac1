/** Docker's socket while the node is away: the process that holds it, against a cluster in memory. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FakeCluster, FakeMounts } from '@holdfast/api/testing'
import { programArguments } from '@holdfast/attach'
import { HoldfastError } from '@holdfast/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { startDockerPlugin } from './index.ts'

let folder: string
let cluster: FakeCluster
let mounts: FakeMounts
let ready: () => Promise<unknown>
let plugin: { close(): Promise<void> } | undefined
const fronts: ChildProcess[] = []

const socketPath = (): string => join(folder, 'plugins', 'holdfast.sock')
const events = { event: () => undefined }

async function start(): Promise<void> {
  plugin = await startDockerPlugin({
    ...{ socketPath: socketPath(), nodeSocketPath: join(folder, 'node.sock') },
    ...{ admin: cluster, mounts, events, ready: () => ready() },
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
