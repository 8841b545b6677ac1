/** The NBD server against other people's clients, on an export in memory. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type NbdServer, startNbdServer } from '../../packages/nbd-server/src/index.ts'
import { MemoryCatalog, MemoryExport } from '../../packages/nbd-server/src/testing/memory-catalog.ts'
import { requireTools, run, type Tool } from './tools.ts'

const MIB = 1024 * 1024
const SIZE = 64 * MIB

let folder = ''
let server: NbdServer
let host = ''
const volume = new MemoryExport('vol', SIZE, { description: 'two copies' })
const slow = new MemoryExport('slow', SIZE, { slowReads: true })
const odd = new MemoryExport('odd', 1_000_001)
const readOnly = new MemoryExport('space/read-only', MIB, { readOnly: true })

const unixUri = (name: string): string => `nbd+unix:///${name}?socket=${folder}/nbd.sock`
const tcpUri = (name: string): string => `nbd://${host}/${name}`

beforeAll(async () => {
  requireTools()
  folder = mkdtempSync(join(tmpdir(), 'holdfast-conformance-'))
  const catalog = new MemoryCatalog(volume, slow, odd, readOnly)
  const listeners = [{ path: join(folder, 'nbd.sock') }, { host: '127.0.0.1', port: 0 }]
  server = await startNbdServer({ catalog, listeners })
  const tcp = server.addresses[1]
  host = tcp !== undefined && 'port' in tcp ? `${tcp.host}:${tcp.port}` : ''
})

afterAll(async () => {
  await server.close()
  rmSync(folder, { recursive: true })
})

beforeEach(() => {
  for (const memory of [volume, slow, odd]) {
    memory.bytes.fill(0)
    memory.allocated.fill(0)
  }
})

async function succeed(tool: Tool, args: readonly string[]): Promise<string> {
  const { code, output } = await run(tool, args)
  expect(`${code} ${code === 0 ? '' : output}`.trim()).toBe('0')
  return output
}

function noise(bytes: Uint8Array, seed: number): void {
  let state = seed
  for (let i = 0; i < bytes.length; i++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    bytes[i] = state >>> 16
  }
}

describe('libnbd', () => {
  test('nbdinfo sees size, flags, block sizes and contexts', async () => {
    const output = await succeed('nbdinfo', ['--json', unixUri('vol')])
    const info = JSON.parse(output) as { exports: Record<string, unknown>[] }
    expect(info).toMatchObject({ protocol: 'newstyle-fixed', structured: true })
    expect(info.exports[0]).toMatchObject({
      'export-name': 'vol',
      description: 'two copies',
      'export-size': SIZE,
      contexts: ['base:allocation'],
      is_read_only: false,
      can_cache: true,
      can_df: true,
      can_fast_zero: true,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      block_size_minimum: 1,
      block_size_preferred: 4096,
      block_size_maximum: 32 * MIB,
    })
  })

  test('nbdinfo lists every export; a name with a namespace and a read-only one work', async () => {
    const list = await succeed('nbdinfo', ['--list', tcpUri('')])
    for (const name of ['vol', 'slow', 'odd', 'space/read-only']) expect(list).toContain(`export="${name}"`)
    await succeed('nbdinfo', ['--is', 'read-only', tcpUri('space/read-only')])
    expect((await run('nbdinfo', [unixUri('none')])).code).not.toBe(0)
  })

  test('nbdinfo --map tells holes from data', async () => {
    volume.bytes.fill(1, 8192, 16_384)
    volume.allocated.fill(1, 2, 4)
    const map = JSON.parse(await succeed('nbdinfo', ['--map', '--json', unixUri('vol')])) as unknown
    expect(map).toEqual([
      expect.objectContaining({ offset: 0, length: 8192, type: 3 }),
      expect.objectContaining({ offset: 8192, length: 8192, type: 0 }),
      expect.objectContaining({ offset: 16_384, length: SIZE - 16_384, type: 3 }),
    ])
  })

  test.each(['unix', 'tcp'])('nbdcopy there and back over %s, several connections', async (kind) => {
    const uri = kind === 'unix' ? unixUri('vol') : tcpUri('vol')
    const source = new Uint8Array(SIZE)
    noise(source.subarray(0, 20 * MIB), 1)
    noise(source.subarray(40 * MIB + 511, 50 * MIB), 2)
    writeFileSync(join(folder, 'source'), source)
    await succeed('nbdcopy', ['--flush', join(folder, 'source'), uri])
    expect(Buffer.compare(volume.bytes, source)).toBe(0)
    expect(volume.flushCount).toBeGreaterThan(0)
    await succeed('nbdcopy', [uri, join(folder, 'target')])
    expect(Buffer.compare(readFileSync(join(folder, 'target')), source)).toBe(0)
    await succeed('nbdcopy', [uri, tcpUri('slow')])
    expect(Buffer.compare(slow.bytes, source)).toBe(0)
  })

  test.each(['vol', 'slow'])('python: every command on %s, and the errors of the document', async (name) => {
    const script = join(import.meta.dirname, 'nbd-commands.py')
    const args = [unixUri(name), tcpUri('space/read-only'), tcpUri('odd')]
    const output = await succeed('/usr/bin/python3', [script, ...args])
    expect(output).toContain('all commands behaved')
  })
})

describe('qemu', () => {
  test('qemu-img converts and compares, also a size that is no multiple of a sector', async () => {
    const raw = join(folder, 'raw')
    const source = new Uint8Array(SIZE)
    noise(source.subarray(3 * MIB, 9 * MIB), 3)
    writeFileSync(raw, source)
    await succeed('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', raw, unixUri('vol')])
    await succeed('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', raw, tcpUri('vol')])
    expect(Buffer.compare(volume.bytes, source)).toBe(0)
    expect(await succeed('qemu-img', ['info', unixUri('odd')])).toContain('virtual size')
  })

  test('qemu-io: patterns, discard, zeroes, flush, unaligned', async () => {
    const commands = [
      'write -P 0x5a 1k 128k',
      'write -P 0xa5 -f 200001 777',
      'read -P 0x5a 1k 128k',
      'read -P 0xa5 200001 777',
      'write -z 4k 8k',
      'read -P 0 4k 8k',
      'write -z -u 64k 16k',
      'discard 96k 4k',
      'read -P 0 96k 4k',
      'aio_write -P 1 1M 1M',
      'aio_write -P 2 4M 3M',
      'aio_flush',
      'read -P 2 4M 3M',
      'flush',
    ]
    const args = ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), unixUri('vol')]
    expect(await succeed('qemu-io', args)).not.toMatch(/verification failed/i)
    expect(volume.bytes[MIB]).toBe(1)
  })
})

describe('fio', () => {
  test.each([
    ['vol', 'randwrite', '4k', 32],
    ['slow', 'randrw', '1k-96k', 16],
    ['vol', 'write', '1m', 8],
  ])('%s, %s of %s at depth %i verifies', async (name, rw, blockSize, depth) => {
    await succeed('fio', [
      '--name=verify',
      '--ioengine=nbd',
      `--uri=${unixUri(name)}`,
      `--rw=${rw}`,
      blockSize.includes('-') ? `--bsrange=${blockSize}` : `--bs=${blockSize}`,
      `--iodepth=${depth}`,
      '--size=24m',
      '--verify=crc32c',
      '--verify_fatal=1',
      '--do_verify=1',
      '--verify_state_save=0',
    ])
  })
})
