/** Docker's socket while the node is away: the process that holds it, and nodes that come and go. */
import { programArguments } from '@holdfast/attach'
import { HoldfastError } from '@holdfast/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Answer, PluginBed } from './testing/plugin-bed.ts'

let bed: PluginBed
beforeEach(() => {
  bed = new PluginBed()
  bed.programArguments = programArguments
})
afterEach(async () => {
  for (const pid of bed.frontPids.filter(lives)) process.kill(pid, 'SIGKILL')
  await bed.close()
})

function lives(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** Where Docker calls. */
const call = (name: string, body: object = {}): Promise<Answer> =>
  bed.send(`/${name.includes('.') ? name : `VolumeDriver.${name}`}`, JSON.stringify(body), bed.socketPath)
const data = { Name: 'data' }
const ABSENT = expect.stringContaining('does not run: start it')

describe('while the node is away', () => {
  it('the next one is waited for', async () => {
    await bed.start()
    await call('Create', data)
    await bed.stop()
    const answer = call('Get', data)
    await bed.start()
    expect(await answer).toMatchObject({ Volume: data })
  })

  it('a volume stays one, and everything else is a sentence', { timeout: 60_000 }, async () => {
    await bed.start()
    await call('Create', data)
    const listed = () => bed.cluster.looks
    const before = listed()
    // The process that holds the socket asks by itself for the names.
    await expect.poll(listed, { timeout: 20_000 }).toBeGreaterThan(before)
    await bed.stop()
    expect(await call('Mount', { ...data, ID: 'one' })).toMatchObject({ status: 500, Err: ABSENT })
    expect(await call('Get', data)).toMatchObject({ status: 200, Volume: data, Err: '' })
    expect(await call('Get', { Name: 'nothing' })).toMatchObject({ status: 500, Err: ABSENT })
    expect(await call('Plugin.Activate')).toEqual({ status: 200, Implements: ['VolumeDriver'] })
  })

  it('an Unmount is taken, and done by the next node', async () => {
    await bed.start()
    await call('Create', data)
    await call('Mount', { ...data, ID: 'one' })
    await bed.stop()
    expect(await call('Unmount', { ...data, ID: 'one' })).toEqual({ status: 200, Err: '' })
    expect(bed.users('data')).toEqual(['one'])
    await bed.start()
    await expect.poll(() => bed.users('data'), { timeout: 20_000 }).toEqual([])
  })

  it('or does not reach its cluster, a Get has no answer', async () => {
    bed.ready = async () => {
      throw new HoldfastError('HF_UNAVAILABLE', 'no coordinator')
    }
    await bed.start()
    expect(await call('Mount', { ...data, ID: 'one' })).toMatchObject({ Err: 'no coordinator' })
    await expect(call('Get', data)).rejects.toThrow()
  })

  it('is there and the holder of the socket is killed, another one takes its place', async () => {
    await bed.start()
    const first = bed.frontPid
    process.kill(first, 'SIGKILL')
    await expect.poll(() => bed.frontPid !== first, { timeout: 20_000 }).toBe(true)
    bed.frontPids.push(bed.frontPid)
    await expect.poll(() => call('Plugin.Activate').catch(() => undefined)).toEqual({ status: 200, Implements: ['VolumeDriver'] })
    expect(bed.logged.join()).toContain("holds docker's socket has ended")
  })

  it('and has come back, the next holder of the socket takes the place of the last', async () => {
    await bed.start()
    await bed.stop()
    await bed.start()
    const [first = 0, second = 0] = bed.frontPids
    await expect.poll(() => lives(first), { timeout: 20_000 }).toBe(false)
    expect(lives(second)).toBe(true)
    expect(await call('Plugin.Activate')).toEqual({ status: 200, Implements: ['VolumeDriver'] })
  })
})
