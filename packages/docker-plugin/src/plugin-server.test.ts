/** The socket, and calls that are none. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { dirname } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { PluginBed } from './testing/plugin-bed.ts'

let bed: PluginBed
beforeEach(() => {
  bed = new PluginBed()
})
afterEach(() => bed.close())

describe("the node's socket", () => {
  it('is made with its folder, for root alone, and goes at the end', async () => {
    await bed.start()
    expect(statSync(bed.nodeSocketPath).mode & 0o777).toBe(0o600)
    await bed.stop()
    expect(existsSync(bed.nodeSocketPath)).toBe(false)
  })

  it('that a killed process left is replaced', async () => {
    mkdirSync(dirname(bed.nodeSocketPath), { recursive: true })
    const killed = `() => process.kill(process.pid, 'SIGKILL')`
    const script = `require('net').createServer().listen(process.argv[1], ${killed})`
    spawnSync(process.execPath, ['-e', script, bed.nodeSocketPath])
    expect(statSync(bed.nodeSocketPath).isSocket()).toBe(true)
    await bed.start()
    expect(await bed.call('List')).toMatchObject({ Volumes: [] })
  })

  it('that another process serves is left to it', async () => {
    mkdirSync(dirname(bed.nodeSocketPath), { recursive: true })
    const other = createServer()
    await new Promise<void>((resolve) => other.listen(bed.nodeSocketPath, resolve))
    try {
      await expect(bed.start()).rejects.toMatchObject({ code: 'HF_CONFLICT' })
      expect(statSync(bed.nodeSocketPath).isSocket()).toBe(true)
    } finally {
      await new Promise((resolve) => other.close(resolve))
    }
  })

  it.each(['socketPath', 'nodeSocketPath'] as const)('never takes the place of a file: %s', async (which) => {
    mkdirSync(dirname(bed[which]), { recursive: true })
    writeFileSync(bed[which], 'precious')
    await expect(bed.start()).rejects.toMatchObject({ code: 'HF_CONFLICT', message: /is no socket/ })
    expect(readFileSync(bed[which], 'utf8')).toBe('precious')
  })

  it('can not be made below a file', async () => {
    writeFileSync(dirname(bed.nodeSocketPath), '')
    await expect(bed.start()).rejects.toMatchObject({ code: 'HF_IO' })
  })

  it("is not kept when the program for docker's socket fails", async () => {
    bed.programArguments = () => ['-e', 'throw new Error("no room")']
    await expect(bed.start()).rejects.toMatchObject({ code: 'HF_IO', message: /no room/ })
    expect(existsSync(bed.nodeSocketPath)).toBe(false)
  })
})

describe('a call', () => {
  beforeEach(async () => {
    await bed.start()
  })

  it.each([
    ['{"Name": ', 'the call is no JSON'],
    ['null', 'the call is no JSON object'],
    ['[]', 'the call is no JSON object'],
    ['"Name"', 'the call is no JSON object'],
    ['{"Name": 7}', 'Name and ID of a call are texts'],
    ['{"Name": "a", "Opts": "size"}', 'Opts of a call is an object'],
    ['{"Name": "a", "Opts": ["size"]}', 'Opts of a call is an object'],
    ['{"Name": "a", "Opts": {"size": {"of": 1}}}', 'the option "size" is no text'],
  ])('of %s is refused', async (body, words) => {
    expect(await bed.send('/VolumeDriver.Create', body)).toEqual({ status: 500, Err: words })
    expect(bed.cluster.calls).toEqual([])
  })

  it('that is too long is refused, and the next one is served', async () => {
    const body = JSON.stringify({ Name: 'a', Opts: { size: '1'.repeat(300_000) } })
    const { Err } = await bed.send('/VolumeDriver.Create', body)
    expect(Err).toBe('the call is longer than 262144 bytes: leave out options')
    expect(await bed.call('List')).toMatchObject({ Volumes: [] })
  })

  it('that does not exist is named', async () => {
    const { Err } = await bed.send('/VolumeDriver.Snapshot', '{}')
    expect(Err).toContain('/VolumeDriver.Snapshot')
  })

  it('without a body is one without fields', async () => {
    expect(await bed.send('/VolumeDriver.List', '')).toMatchObject({ status: 200, Volumes: [] })
  })
})
