/** The calls that Docker 20.10 makes, action by action, over a real socket. */
import { statSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { gate, PluginBed } from './testing/plugin-bed.ts'

const OK = { status: 200, Err: '' }
let bed: PluginBed
beforeEach(async () => {
  bed = await new PluginBed().start()
})
afterEach(() => bed.close())

const create = (Name = 'data', Opts: object = {}) => bed.call('Create', { Name, Opts })
const mount = (ID: string, Name = 'data') => bed.call('Mount', { Name, ID })
const unmount = (ID: string, Name = 'data') => bed.call('Unmount', { Name, ID })
const mountsMade = () => bed.mounts.calls.filter((call) => call.startsWith('mount '))

describe('docker run', () => {
  it('with a new volume: Activate, Capabilities, Get, Create, Get, Mount', async () => {
    expect(await bed.call('Plugin.Activate')).toEqual({ status: 200, Implements: ['VolumeDriver'] })
    expect(await bed.call('Capabilities')).toMatchObject({ Capabilities: { Scope: 'global' } })
    expect(await bed.refusal('Get', { Name: 'data' })).toContain('there is no volume data')
    expect(await create()).toEqual(OK)
    const { Volume } = await bed.call('Get', { Name: 'data' })
    expect(Volume).toMatchObject({ Name: 'data', Mountpoint: '' })
    expect(await mount('id1')).toEqual({ ...OK, Mountpoint: bed.path('data') })
    expect(statSync(bed.path('data')).isDirectory()).toBe(true)
    expect(bed.users('data')).toEqual(['id1'])
  })

  it('with an image that has files there: Mount, Unmount and Mount again', async () => {
    await create()
    await mount('id1')
    expect(await unmount('id1')).toEqual(OK)
    expect(await mount('id2')).toMatchObject({ Mountpoint: bed.path('data') })
    expect(bed.users('data')).toEqual(['id2'])
    expect(bed.mounts.calls).not.toContain('detach default/data')
  })

  it('restart of a container, and two containers on one volume', async () => {
    await create()
    await mount('id1')
    await mount('other')
    await unmount('id1')
    await mount('id2')
    expect(bed.users('data')).toEqual(['other', 'id2'])
    await unmount('other')
    await unmount('id2')
    expect(bed.users('data')).toEqual([])
    expect(await bed.call('Path', { Name: 'data' })).toEqual({ ...OK, Mountpoint: '' })
  })
})

describe('docker volume', () => {
  it('create alone mounts nothing; docker cp mounts and unmounts', async () => {
    await create()
    expect(bed.mounts.calls).toEqual([])
    await mount('cp')
    await unmount('cp')
    expect(bed.users('data')).toEqual([])
  })

  it('ls and inspect show size, copies, state, primary and the mount', async () => {
    await create('data', { size: '3GiB', replicas: '3', 'failure-mode': 'hard' })
    await mount('id1')
    const { Volumes } = await bed.call('List')
    const { Volume } = await bed.call('Get', { Name: 'data' })
    expect(Volumes).toEqual([Volume])
    const Status = { size: '3 GiB', replicas: 3, state: 'healthy', primary: 'a', failureMode: 'hard' }
    expect(Volume).toMatchObject({ Name: 'data', Mountpoint: bed.path('data'), Status })
    const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/
    expect(Volume).toHaveProperty('CreatedAt', expect.stringMatching(rfc3339))
    expect(await bed.call('Path', { Name: 'data' })).toMatchObject({ Mountpoint: bed.path('data') })
  })

  it('rm: Get, Get, Remove; what lingers is let go before', async () => {
    await create()
    await mount('id1')
    expect(await bed.refusal('Remove', { Name: 'data' })).toContain('in use by 1 container')
    expect(bed.cluster.volumes()).toHaveLength(1)
    await unmount('id1')
    const order: string[] = []
    vi.spyOn(bed.mounts, 'detach').mockImplementation(async () => void order.push('detach'))
    const remove = bed.cluster.removeVolume.bind(bed.cluster)
    vi.spyOn(bed.cluster, 'removeVolume').mockImplementation(async (...volume) => {
      order.push('remove')
      await remove(...volume)
    })
    expect(await bed.call('Remove', { Name: 'data' })).toEqual(OK)
    expect(order).toEqual(['detach', 'remove'])
    expect(bed.cluster.volumes()).toEqual([])
  })

  it('rm whose answer was lost is sent again, and is done', async () => {
    await create()
    const remove = () => bed.call('Remove', { Name: 'data' })
    expect(await Promise.all([remove(), remove()])).toEqual([OK, OK])
    expect(await bed.call('Remove', { Name: 'data' })).toEqual(OK)
    expect(bed.cluster.calls.filter((call) => call.startsWith('remove'))).toHaveLength(1)
  })

  it('create of what exists succeeds, unless the options contradict it', async () => {
    await create('data', { size: '1GiB', replicas: '2', fs: 'xfs' })
    expect(await create()).toEqual(OK)
    expect(await create('data', { size: '1024M', replicas: '2', fs: 'xfs' })).toEqual(OK)
    const contradicted = (Opts: object) => bed.refusal('Create', { Name: 'data', Opts })
    expect(await contradicted({ size: '2GiB' })).toContain('has a size of 1 GiB')
    expect(await contradicted({ replicas: '3' })).toContain('has 2 copies')
    expect(await contradicted({ fs: 'ext4' })).toContain('has xfs')
    expect(await contradicted({ 'failure-mode': 'hard' })).toContain('failure mode is alwayson')
    expect(bed.cluster.volumes()).toHaveLength(1)
  })
})

describe('a restart', () => {
  it('of dockerd, orderly: Unmount, Get and Mount with another id', async () => {
    await create()
    await mount('id1')
    await unmount('id1')
    await bed.call('Get', { Name: 'data' })
    await mount('id2')
    expect(bed.users('data')).toEqual(['id2'])
  })

  it('of dockerd, killed: Mount with the same id is one mount, and one Unmount ends it', async () => {
    await create()
    await mount('id1')
    expect(await mount('id1')).toMatchObject({ Mountpoint: bed.path('data') })
    expect(bed.users('data')).toEqual(['id1'])
    await unmount('id1')
    expect(bed.users('data')).toEqual([])
  })

  it('of the node, with live-restore: an old id is unmounted later', async () => {
    await create()
    await mount('old')
    await bed.stop()
    await expect(bed.call('Get', { Name: 'data' })).rejects.toThrow('ENOENT')
    await bed.start()
    const { Volume } = await bed.call('Get', { Name: 'data' })
    expect(Volume).toMatchObject({ Mountpoint: bed.path('data') })
    expect(await unmount('old')).toEqual(OK)
    expect(bed.users('data')).toEqual([])
  })

  it('of the node: who comes early waits, and hears of it when it takes long', async () => {
    const { opened, open } = gate()
    bed.ready = () => opened
    let answered = false
    const listed = bed.call('List').finally(() => (answered = true))
    expect(await bed.call('Plugin.Activate')).toMatchObject({ status: 200 })
    expect(answered).toBe(false)
    open()
    expect(await listed).toMatchObject({ Volumes: [] })
    bed.ready = () => Promise.reject(new Error('this node does not reach its coordinator'))
    expect(await bed.refusal('List', {})).toBe('this node does not reach its coordinator')
  })
})

describe('Unmount', () => {
  it('of what is unknown succeeds', async () => {
    expect(await unmount('never', 'nothing')).toEqual(OK)
    await create()
    await mount('id1')
    expect(await unmount('never')).toEqual(OK)
    expect(bed.users('data')).toEqual(['id1'])
  })

  it('of a volume that another host has removed lets go of it here', async () => {
    await create()
    await mount('id1')
    await bed.cluster.removeVolume('default', 'data')
    expect(await unmount('id1')).toEqual(OK)
    expect(bed.users('data')).toEqual([])
  })

  it('that fails says so, and works when it is sent again', async () => {
    await create()
    await mount('id1')
    bed.mounts.failure = new Error('the device is busy')
    expect(await bed.refusal('Unmount', { Name: 'data', ID: 'id1' })).toBe('the device is busy')
    expect(await unmount('id1')).toEqual(OK)
    expect(bed.users('data')).toEqual([])
  })
})

describe('Mount', () => {
  it('tells why it failed', async () => {
    expect(await bed.refusal('Mount', { Name: 'data', ID: 'id1' })).toContain('there is no volume data')
    await create()
    bed.mounts.failure = new Error('volume data is attached to host b')
    expect(await bed.refusal('Mount', { Name: 'data', ID: 'id1' })).toBe('volume data is attached to host b')
    expect(await mount('id1')).toMatchObject({ Mountpoint: bed.path('data') })
  })

  it('sent twice is one operation', async () => {
    await create()
    const { opened, open } = gate()
    bed.mounts.hold = opened
    const both = [mount('id1'), mount('id1')]
    await vi.waitFor(() => expect(mountsMade()).toHaveLength(1))
    // A call that is answered later than both were sent: they have arrived.
    await bed.call('List')
    open()
    const answers = await Promise.all(both)
    expect(answers.map(({ Mountpoint }) => Mountpoint)).toEqual([bed.path('data'), bed.path('data')])
    expect(mountsMade()).toHaveLength(1)
  })
})

describe('a mount that takes too long', () => {
  beforeEach(async () => {
    await bed.stop()
    await bed.start({ mountMs: 1000, callMs: 5000 })
    await create()
  })

  it('is answered before docker gives up, and undone when it is ready', async () => {
    const { opened, open } = gate()
    bed.mounts.hold = opened
    expect(await bed.refusal('Mount', { Name: 'data', ID: 'id1' })).toContain('could not be mounted in time')
    expect(bed.mounts.calls).not.toContain('unmount default/data id1')
    open()
    await vi.waitFor(() => expect(bed.mounts.calls).toContain('unmount default/data id1'))
    expect(bed.users('data')).toEqual([])
    expect(await mount('id1')).toMatchObject({ Mountpoint: bed.path('data') })
    expect(bed.users('data')).toEqual(['id1'])
  })

  it('stays when docker asks for it again meanwhile', async () => {
    const { opened, open } = gate()
    bed.mounts.hold = opened
    await bed.refusal('Mount', { Name: 'data', ID: 'id1' })
    const again = mount('id1')
    await bed.call('List')
    open()
    expect(await again).toMatchObject({ Mountpoint: bed.path('data') })
    expect(bed.users('data')).toEqual(['id1'])
    expect(bed.mounts.calls).not.toContain('unmount default/data id1')
  })

  it('is undone when docker unmounts it before it is ready', async () => {
    const { opened, open } = gate()
    bed.mounts.hold = opened
    const mounting = mount('id1')
    await vi.waitFor(() => expect(mountsMade()).toHaveLength(1))
    const unmounting = unmount('id1')
    await bed.call('List')
    open()
    expect((await mounting).Err).toContain('unmounted before it was ready')
    expect(await unmounting).toEqual(OK)
    expect(bed.users('data')).toEqual([])
  })

  it('stays when docker unmounts it and then mounts it again before it is ready', async () => {
    const { opened, open } = gate()
    bed.mounts.hold = opened
    const first = mount('id1')
    await vi.waitFor(() => expect(mountsMade()).toHaveLength(1))
    const unmounting = unmount('id1')
    await bed.call('List')
    const again = mount('id1')
    await bed.call('List')
    open()
    expect(await Promise.all([again, unmounting])).toMatchObject([{ Mountpoint: bed.path('data') }, OK])
    expect(bed.users('data')).toEqual(['id1'])
    await first
  })

  it('and fails then is told in the log', async () => {
    const { opened, open } = gate()
    bed.mounts.hold = opened.then(() => Promise.reject(new Error('no device')))
    await bed.refusal('Mount', { Name: 'data', ID: 'id1' })
    open()
    await vi.waitFor(() => expect(bed.logged.join()).toContain('no device'))
  })
})
