/** Restarts of the node process, of the host, of the keeper: what goes on, and what is cleaned up. */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { sleep, waitUntil } from '../support/waiting.ts'
import { AttachBed, sh, whyNot } from './attach-bed.ts'

const reason = whyNot()

let bed: AttachBed | undefined
const children: ChildProcess[] = []
afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
  await bed?.close()
  bed = undefined
})

/**
 * Appends numbered lines with fsync; prints each number when it is on disk, and the longest time that took.
 */
const WRITER = `
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
number = 0; longest = 0
while not os.path.exists(sys.argv[2]):
    number += 1; start = time.monotonic()
    os.write(fd, b'%08d %s\\n' % (number, b'x' * 5000)); os.fsync(fd)
    longest = max(longest, time.monotonic() - start)
    print(number, flush=True)
print('longest', longest, flush=True)
`

interface Writer {
  readonly written: () => number
  /** Longest pause in seconds; rejects if a write failed. */
  readonly stop: () => Promise<number>
}

function startWriter(own: AttachBed, path: string): Writer {
  const stopFile = join(own.folder, 'stop')
  const child = spawn('python3', ['-c', WRITER, path, stopFile], { stdio: ['ignore', 'pipe', 'pipe'] })
  children.push(child)
  let output = ''
  let errors = ''
  child.stdout.on('data', (text: Buffer) => (output += text.toString()))
  child.stderr.on('data', (text: Buffer) => (errors += text.toString()))
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
  return {
    written: () => Number(output.trim().split('\n').at(-1) ?? 0),
    stop: async () => {
      writeFileSync(stopFile, '')
      if ((await ended) !== 0) throw new Error(`the writer failed: ${errors}`)
      return Number(/longest (\S+)/.exec(output)?.[1])
    },
  }
}

async function startBed(): Promise<AttachBed> {
  bed = await AttachBed.start()
  await bed.createVolume('v')
  return bed
}

const nothingLeft = async (): Promise<void> => bed?.nothingLeft()

describe.skipIf(reason !== undefined)('a restart of the node', () => {
  for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
    it(`by ${signal} is a pause for who writes with fsync`, { timeout: 120_000 }, async () => {
      const own = await startBed()
      const mounts = await own.open()
      const { path } = await mounts.mount(own.request('v', 'one'))
      const file = join(path, 'log')
      const writer = startWriter(own, file)
      let total = 0
      for (let round = 0; round < 3; round++) {
        const before = writer.written()
        await waitUntil('the writer', 20_000, () => writer.written() > before + 50)
        await own.node.stop(signal)
        await sleep(500)
        await own.node.start()
        total = writer.written()
      }
      await waitUntil('the writer', 20_000, () => writer.written() > total + 20)
      total = writer.written()
      const longest = await writer.stop()
      console.log(`${signal}: ${total} writes, longest pause ${longest.toFixed(2)} s`)
      expect(longest).toBeGreaterThan(0.5)
      const lines = readFileSync(file, 'utf8').trimEnd().split('\n')
      expect(lines.length).toBeGreaterThanOrEqual(total)
      lines.forEach((line, index) => expect(line.startsWith(String(index + 1).padStart(8, '0'))).toBe(true))
      await mounts.unmount('default', 'v', 'one')
      await waitUntil('the unmount', 8000, () => mounts.list().length === 0)
      const { device } = await mounts.attach('default', 'v')
      sh('e2fsck', '-f', '-n', device)
    })
  }

  it('finds mounts and their users again', async () => {
    const own = await startBed()
    const first = await own.open()
    const { path } = await first.mount(own.request('v', 'one'))
    await first.mount(own.request('v', 'two'))
    const before = first.list()
    const writer = startWriter(own, join(path, 'log'))
    await waitUntil('the writer', 10_000, () => writer.written() > 10)
    await first.close()
    await own.node.stop('SIGKILL')
    await own.node.start()
    const second = await own.open()
    expect(second.list()).toEqual(before)
    const count = writer.written()
    await waitUntil('the writer to go on', 10_000, () => writer.written() > count + 10)
    await writer.stop()
    await second.mount(own.request('v', 'two'))
    await second.unmount('default', 'v', 'one')
    expect(second.list()[0]?.mountIds).toEqual(['two'])
    await second.unmount('default', 'v', 'two')
    await nothingLeft()
  })

  it('keeps its distance from a node that has not confirmed the right', async () => {
    const own = await startBed()
    const first = await own.open()
    const { path } = await first.mount(own.request('v', 'one'))
    await first.close()
    await own.node.stop('SIGKILL')
    await own.node.start()
    const writer = startWriter(own, join(path, 'log'))
    const log = sh('sh', '-c', `echo ${own.stateDir}/keepers/*/keeper.log`)
    await waitUntil('the keeper to notice', 5000, () =>
      readFileSync(log, 'utf8').includes('the node has gone'),
    )
    await sleep(700)
    expect(writer.written()).toBe(0)
    expect(readFileSync(log, 'utf8')).not.toContain('connected again')
    await own.open()
    await waitUntil('the writer', 10_000, () => writer.written() > 0)
    await writer.stop()
  })
})

describe.skipIf(reason !== undefined)('what is left of before', () => {
  it('a device that is older than another host\'s use of the volume never writes again', async () => {
    const own = await startBed()
    const first = await own.open()
    const { path } = await first.mount(own.request('v', 'one'))
    await first.close()
    await own.node.stop('SIGKILL')
    // The node is away for longer than its lease: another host takes the volume, uses it, and gives it back.
    await own.desk.release('default', 'v')
    own.desk.generation++
    await own.node.start()
    await own.open()
    await waitUntil('the event', 10_000, () => own.events.some((line) => line.includes('attachment lost while the node was down')))
    expect(() => sh('sh', '-c', `echo late > ${path}/late && sync -f ${path}/late`)).toThrow()
    expect(own.desk.holder('default', 'v')).toBeUndefined()
  })

  it('a right that was never written down is given back', async () => {
    const own = await startBed()
    await own.desk.claim('default', 'v')
    const mounts = await own.open()
    await waitUntil('the release', 5_000, () => own.desk.holders.size === 0)
    await mounts.mount(own.request('v', 'one'))
    expect(own.desk.holder('default', 'v')).toBe('here')
  })

  it('a restart of the host makes all mounts void', async () => {
    const own = await startBed()
    const first = await own.open()
    const { path } = await first.mount(own.request('v', 'one'))
    writeFileSync(join(path, 'file'), 'hello')
    await first.close()
    const second = await own.open({ bootId: 'boot-2' })
    expect(second.list()).toEqual([])
    await nothingLeft()
    expect(existsSync(path)).toBe(false)
    expect(own.desk.holders.size).toBe(0)
    await second.mount(own.request('v', 'one'))
    expect(readFileSync(join(path, 'file'), 'utf8')).toBe('hello')
  })

  it('a killed keeper is an error, which the next mount puts right', async () => {
    const own = await startBed()
    const mounts = await own.open({ timings: { lingerMs: 0 } })
    const { path } = await mounts.mount(own.request('v', 'one'))
    writeFileSync(join(path, 'file'), 'hello')
    sh('sync', '-f', path)
    const keeper = own.processes().find(({ line }) => line.includes('keeper-main'))
    process.kill(keeper?.pid ?? 0, 'SIGKILL')
    await waitUntil('the event', 5000, () => own.events.some((line) => line.includes('its keeper has ended')))
    await mounts.unmount('default', 'v', 'one')
    await nothingLeft()
    await mounts.mount(own.request('v', 'two'))
    expect(readFileSync(join(path, 'file'), 'utf8')).toBe('hello')
  })

  it('keepers and mounts that nobody remembers are taken away', async () => {
    const own = await startBed()
    const first = await own.open()
    await first.mount(own.request('v', 'one'))
    await first.close()
    // The node died before it could write down what it had made.
    writeFileSync(join(own.stateDir, 'attachments.json'), '{"version":1,"bootId":"boot-1","attachments":[]}')
    mkdirSync(join(own.stateDir, 'keepers', 'half-made'))
    const second = await own.open()
    expect(second.list()).toEqual([])
    await nothingLeft()
  })
})
