/** Real nodes with the embedded coordinator, in this process and as processes of their own. */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ApiClient } from '@holdfast/api/client'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type NodeConfig, readConfig } from './config.ts'
import type { NodeLog } from './logger.ts'
import { startStorageNode } from './node.ts'

let folder: string
const ends: (() => Promise<void>)[] = []
const logged: string[] = []
const log: NodeLog = {
  event: (level, message) => logged.push(`${level} ${message}`),
  failure: (level, message, error) => logged.push(`${level} ${message}: ${String(error)}`),
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-node-'))
  logged.length = 0
})
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
  rmSync(folder, { recursive: true })
})

const anyPorts = { nbd: '127.0.0.1:0', api: '127.0.0.1:0', peer: '127.0.0.1:0' }

function config(flags: Record<string, unknown> = {}): NodeConfig {
  const all = { name: 'a', 'data-dir': join(folder, 'a'), ...anyPorts, ...flags }
  return readConfig({ flags: all, defaults: { logLevel: 'info' } })
}

async function start(flags: Record<string, unknown> = {}) {
  const node = await startStorageNode(config(flags), log)
  ends.push(() => node.close())
  return { ...node, client: new ApiClient({ url: node.addresses.api }) }
}

describe('in this process', () => {
  it('serves, stops, and knows its volumes when it starts again', async () => {
    const socket = join(folder, 'nbd.sock')
    const node = await start({ 'nbd-socket': socket, labels: { zone: 'z' } })
    expect(await node.client.createVolume({ name: 'data', size: '10MiB' })).toMatchObject({
      primary: 'a',
      inSync: ['a'],
    })
    expect(await node.client.node('a')).toMatchObject({ labels: { zone: 'z' }, primaryCount: 1 })
    expect(existsSync(socket)).toBe(true)
    await node.close()
    expect(existsSync(socket)).toBe(false)
    const again = await start()
    const volume = await until(
      () => again.client.volume({ namespace: 'default', name: 'data' }),
      ({ primary }) => primary === 'a',
    )
    expect(volume.epoch).toBeGreaterThan(1)
    expect(logged.filter((line) => line.startsWith('error'))).toEqual([])
  })

  it('refuses a directory in use, another name, and an address in use; and gives all back', async () => {
    const node = await start()
    await expect(start()).rejects.toMatchObject({ code: 'HF_CONFLICT' })
    const other = { name: 'b', 'data-dir': join(folder, 'b') }
    for (const flag of ['api', 'nbd', 'peer'] as const) {
      const taken = start({ ...other, [flag]: node.addresses[flag] })
      await expect(taken).rejects.toMatchObject({
        code: 'HF_CONFLICT',
        message: expect.stringMatching(/listen|serve/),
      })
    }
    await (await start(other)).close()
    await expect(start({ ...other, name: 'c' })).rejects.toThrow('belongs to node b, not c')
  })
})

async function until<T>(look: () => Promise<T>, good: (value: T) => boolean): Promise<T> {
  for (let left = 500; ; left--) {
    const value = await look()
    if (good(value) || left === 0) return value
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/** Starts a process that runs a node and, after that serves, some code of the test's. */
function spawnNode(
  flags: Record<string, unknown>,
  after = '',
): { child: ChildProcess; text: () => { out: string; err: string }; exit: Promise<number | null> } {
  const code = `
    import { readConfig, runStorageNode } from '@holdfast/storage-node'
    const config = readConfig({ flags: ${JSON.stringify(flags)}, defaults: { logLevel: 'info' } })
    process.exitCode = await runStorageNode(config, () => { ${after} })`
  const args = [
    '--conditions=@holdfast/source',
    '--import',
    'tsx',
    '--input-type=module',
    '-e',
    code,
  ]
  const child = spawn(process.execPath, args, {
    cwd: import.meta.dirname,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let out = ''
  let err = ''
  child.stdout.on('data', (chunk: Buffer) => {
    out += chunk.toString()
  })
  child.stderr.on('data', (chunk: Buffer) => {
    err += chunk.toString()
  })
  const exit = new Promise<number | null>((resolve) =>
    child.once('exit', (status) => resolve(status)),
  )
  ends.push(async () => {
    child.kill('SIGKILL')
    await exit
  })
  return { child, text: () => ({ out, err }), exit }
}

describe('as a process', () => {
  const flags = (): Record<string, unknown> => ({
    name: 'a',
    'data-dir': join(folder, 'a'),
    ...anyPorts,
  })

  it.each(['SIGTERM', 'SIGINT'] as const)(
    'prints ready and stops cleanly on %s',
    async (signal) => {
      const { child, text, exit } = spawnNode(flags())
      await until(
        async () => text(),
        ({ out }) => out.includes('\n'),
      )
      expect(text().out).toMatch(
        /^ready node=a nbd=127\.0\.0\.1:[1-9]\d* api=127\.0\.0\.1:[1-9]\d* peer=127\.0\.0\.1:[1-9]\d*\n$/,
      )
      child.kill(signal)
      expect(await exit).toBe(0)
      const lines = text()
        .err.trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { node: string; msg: string })
      expect(lines.at(-1)).toMatchObject({ node: 'a', level: 'info', msg: 'stopped' })
    },
  )

  it('stops while it waits for the coordinator', async () => {
    const { child, text, exit } = spawnNode({ ...flags(), coordinator: 'etcd://127.0.0.1:1' })
    await until(
      async () => text(),
      ({ err }) => err.includes('waiting for the coordinator'),
    )
    child.kill('SIGTERM')
    expect([await exit, text().out]).toEqual([0, ''])
  })

  it('ends with 70 on a broken invariant and on an unhandled error', async () => {
    for (const after of [
      `import('@holdfast/base').then(({ assert }) => setImmediate(() => assert(false, 'planted')))`,
      `void Promise.reject(new Error('planted'))`,
    ]) {
      const { text, exit } = spawnNode(flags(), after)
      expect(await exit).toBe(70)
      expect(text().err).toContain('planted')
    }
  })

  it('is forced by a second signal', async () => {
    // The second one comes at once, before the clean stop can have ended.
    const { child, text, exit } = spawnNode(
      flags(),
      `process.once('SIGTERM', () => { process.emit('SIGTERM', 'SIGTERM') })`,
    )
    await until(
      async () => text(),
      ({ out }) => out.includes('ready'),
    )
    child.kill('SIGTERM')
    expect(await exit).toBe(1)
    expect(text().err).toContain('forced to stop by a second signal')
  })
})
