/** One node, killed again and again; and what it needs when it does nothing. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { residentBytes, TestCluster } from './harness.ts'
import { sleep } from '../support/waiting.ts'

const run = promisify(execFile)
const MIB = 1024 * 1024

let cluster: TestCluster | undefined
afterEach(async () => {
  await cluster?.close()
  cluster = undefined
})

/**
 * Writes numbered blocks, flushes, and prints each number that was flushed; ends with the connection. Reads all back with
 * `check`, against what was printed before.
 */
const WRITER = `
import nbd, random, struct, sys
uri, mode, state = sys.argv[1:4]
h = nbd.NBD(); h.connect_uri(uri)
blocks = 4096
def block(i, v): return struct.pack('<QQ', i, v) * 256
if mode == 'check':
    bad = 0
    for line in open(state):
        i, v, newest = map(int, line.split())
        a, b = struct.unpack('<QQ', h.pread(4096, i * 4096)[:16])
        if not (a == i and v <= b <= newest) and not (v == 0 and a == b == 0): bad += 1; print('bad', i, a, b, 'flushed', v, 'newest', newest)
    print('wrong', bad); sys.exit(1 if bad else 0)
flushed = {}; newest = {}; version = int(sys.argv[4])
try:
    while True:
        some = {}
        for _ in range(random.randint(1, 16)):
            i = random.randrange(blocks); version += 1
            newest[i] = version
            h.pwrite(block(i, version), i * 4096); some[i] = version
        h.flush(); flushed.update(some)
except nbd.Error: pass
for i in newest: print(i, flushed.get(i, 0), newest[i])
`

describe('[I3] a single node under kill -9', () => {
  it('never loses a flushed write', { timeout: 600_000 }, async () => {
    const kills = Number(process.env['HOLDFAST_E2E_KILLS'] ?? 8)
    cluster = await TestCluster.start({ nodes: ['a'], etcd: false })
    const node = cluster.node('a')
    await cluster.cli(['volume', 'create', 'v', '--size', '1GiB', '--replicas', '1'])
    const script = join(cluster.folder, 'writer.py')
    const state = join(cluster.folder, 'state')
    writeFileSync(script, WRITER)
    const flushed = new Map<string, { flushed: number; newest: number }>()
    let version = 0
    for (let kill = 0; kill < kills; kill++) {
      const uri = node.uri('v')
      const writing = run('/usr/bin/python3', [script, uri, 'write', state, String(version)], { maxBuffer: 64 * MIB })
      await sleep(300 + Math.random() * 700)
      await node.stop('SIGKILL')
      const { stdout } = await writing
      for (const line of stdout.trim().split('\n')) {
        const [block, done, newest] = line.split(' ').map(Number) as [number, number, number]
        const before = flushed.get(String(block))?.flushed ?? 0
        flushed.set(String(block), { flushed: Math.max(before, done), newest })
        version = Math.max(version, newest)
      }
      await node.start()
      const lines = [...flushed].map(([block, seen]) => `${block} ${seen.flushed} ${seen.newest}`)
      writeFileSync(state, lines.join('\n'))
      const check = ['/usr/bin/python3', [script, node.uri('v'), 'check', state]] as const
      const checked = await run(...check).catch((error: Error) => {
        throw new Error(`after kill ${kill + 1}: ${error.message}\n${node.log.slice(-3000)}`)
      })
      expect(checked.stdout.trim()).toBe('wrong 0')
    }
    expect(version).toBeGreaterThan(kills * 50)
    console.log(`${kills} kills, ${version} writes, ${flushed.size} blocks checked each time`)
  })
})

describe('memory', () => {
  it('of an idle node stays below 150 MiB', { timeout: 60_000 }, async () => {
    cluster = await TestCluster.start({ nodes: ['a'], etcd: false })
    await cluster.cli(['volume', 'create', 'v', '--size', '10GiB', '--replicas', '1'])
    await sleep(2000)
    const bytes = residentBytes(cluster.node('a').pid)
    console.log(`idle node: ${(bytes / MIB).toFixed(0)} MiB`)
    expect(bytes).toBeLessThan(150 * MIB)
  })
})
