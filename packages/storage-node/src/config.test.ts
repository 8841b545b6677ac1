import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { formatAddress, parseAddress } from './address.ts'
import { defaultDataDir, type NodeConfig, readConfig } from './config.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-config-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

const defaults = { logLevel: 'info' } as const

function fromFile(text: string, flags: Record<string, unknown> = {}): NodeConfig {
  const file = join(folder, 'node.yaml')
  writeFileSync(file, text)
  return readConfig({ flags: { 'data-dir': '/d', ...flags }, file, defaults })
}

const fromFlags = (flags: Record<string, unknown>, token?: string): NodeConfig =>
  readConfig({ flags: { 'data-dir': '/d', name: 'a', ...flags }, token, defaults })

describe('readConfig', () => {
  it('has as many shards as asked for, or one per core', () => {
    const cores = Math.min(8, availableParallelism())
    expect([fromFlags({}, '').shardCount, fromFlags({ shards: '3' }, '').shardCount]).toEqual([cores, 3])
    for (const wrong of ['0', '65', '1.5', 'x']) expect(() => fromFlags({ shards: wrong }, '')).toThrow(/--shards must be/)
  })

  it('keeps processors awake while it is busy, or never', () => {
    const of = (when: string) => fromFlags({ 'keep-awake': when }, '').keepAwake
    expect([of('busy'), of('never')]).toEqual([true, false])
    expect(() => of('always')).toThrow(/--keep-awake must be one of busy, never/)
  })

  it('has the defaults of the contract', () => {
    expect(fromFlags({ nbd: undefined, shards: 1 }, '')).toEqual({
      name: 'a',
      dataDir: '/d',
      coordinator: { kind: 'embedded' },
      nbd: { host: '127.0.0.1', port: 10_809 },
      nbdSocket: undefined,
      deviceSocket: '/d/nbd.sock',
      dockerPlugin: undefined,
      api: { host: '127.0.0.1', port: 5705 },
      peer: { host: '127.0.0.1', port: 5710 },
      advertise: '127.0.0.1',
      labels: {},
      leaseTtlMs: 10_000,
      replaceAfterMs: 600_000,
      shardCount: 1,
      keepAwake: true,
      logLevel: 'info',
      apiToken: undefined,
    })
  })

  it('reads YAML and JSON, flags first', () => {
    const yaml =
      'name: b\ncoordinator: etcd://h1:2379,h2:2379\npeer: 10.0.0.1:7000\nlabels: {zone: 1, disk: ssd}\nlease-ttl: 2.5\n'
    const config = fromFile(yaml, { labels: { zone: 'x' }, 'log-level': 'debug' })
    expect(config).toMatchObject({
      name: 'b',
      coordinator: { kind: 'etcd', endpoints: ['h1:2379', 'h2:2379'] },
      peer: { host: '10.0.0.1', port: 7000 },
      advertise: '10.0.0.1',
      labels: { zone: 'x', disk: 'ssd' },
      leaseTtlMs: 2500,
      logLevel: 'debug',
    })
    expect(fromFile('{"name": "c", "api": 80}', { name: 'd' })).toMatchObject({
      name: 'd',
      api: { port: 80 },
    })
  })

  it('takes the token of the environment unless the file has one', () => {
    expect(fromFlags({}, 'sesame').apiToken).toBe('sesame')
    expect(fromFile('api-token: longenough').apiToken).toBe('longenough')
  })

  it('does not advertise a wildcard', () => {
    expect(fromFlags({ peer: '0.0.0.0:1' }).advertise).toBe('127.0.0.1')
    expect(fromFlags({ peer: '0.0.0.0:1', advertise: 'h' }).advertise).toBe('h')
  })

  const wrong: [string, Record<string, unknown>, string][] = [
    ['a name', { name: 'a/b' }, '--name must be 1 to 63 letters'],
    ['dots', { name: 'a..b' }, "--name must not contain '..'"],
    ['a lease', { 'lease-ttl': '0.1' }, '--lease-ttl must be at least 0.5 s'],
    ['no number', { 'lease-ttl': 'soon' }, '--lease-ttl must be a number of seconds'],
    ['a level', { 'log-level': 'loud' }, '--log-level must be one of debug, info, warn, error'],
    ['a socket path', { 'nbd-socket': `/${'x'.repeat(107)}` }, '--nbd-socket must be at most 107'],
    ['a port', { peer: '127.0.0.1:70000' }, 'peer: "127.0.0.1:70000" is no address'],
    ['no coordinator', { coordinator: 'etcd://' }, 'coordinator endpoint'],
  ]
  it.each(wrong)('refuses %s', (_, flags, message) => {
    expect(() => fromFlags(flags)).toThrow(message)
  })

  it('says where in the file it is wrong', () => {
    expect(() => fromFile('datadir: /x')).toThrow(
      /node\.yaml: datadir is not known: the settings are name, data-dir,/,
    )
    expect(() => fromFile('- a')).toThrow('it must be a map of settings')
    expect(() => fromFile('name: [')).toThrow('is neither YAML nor JSON')
    expect(() => fromFile('labels: {zone: [a]}')).toThrow('node.yaml: labels')
    expect(() => readConfig({ flags: {}, file: join(folder, 'none'), defaults })).toThrow(
      "can't be read",
    )
    expect(() => readConfig({ flags: {}, defaults })).toThrow('--data-dir DIR')
  })

  it('finds the data directory of a user', () => {
    expect(defaultDataDir({ XDG_DATA_HOME: '/x' })).toBe('/x/holdfast')
    expect(defaultDataDir({})).toMatch(/\/\.local\/share\/holdfast$/)
  })
})

describe('addresses', () => {
  it.each([
    ['h:1', 'h', 1],
    ['[::1]:0', '::1', 0],
    [':9', '127.0.0.1', 9],
    ['65535', '127.0.0.1', 65_535],
  ])('reads %s', (text, host, port) => {
    expect(parseAddress('x', text)).toEqual({ host, port })
  })

  it.each(['', 'h', 'h:', 'h:x', '::1:5', 'h:65536', 'http://h:1'])('refuses %j', (text) => {
    expect(() => parseAddress('x', text)).toThrow('is no address')
  })

  it('writes them back', () => {
    expect(formatAddress({ host: '::1', port: 2 })).toBe('[::1]:2')
    expect(formatAddress({ host: 'h', port: 2 })).toBe('h:2')
  })
})
