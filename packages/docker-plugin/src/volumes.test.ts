/** Names and options of volumes, what is created and what is refused. */
import { HoldfastError } from '@holdfast/base'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { gate, PluginBed } from './testing/plugin-bed.ts'

const OK = { status: 200, Err: '' }
let bed: PluginBed
beforeEach(async () => {
  bed = await new PluginBed().start({ seenMs: 200 })
})
afterEach(() => bed.close())

const create = (Name: string, Opts: object = {}) => bed.call('Create', { Name, Opts })
const refused = (Opts: object, Name = 'data') => bed.refusal('Create', { Name, Opts })
const names = async (): Promise<unknown> => {
  const { Volumes } = await bed.call('List')
  return (Volumes as { readonly Name: string }[]).map(({ Name }) => Name)
}

describe('options', () => {
  it('have defaults: two copies, or one where there is one node', async () => {
    expect(await bed.call('Create', { Name: 'none', Opts: null })).toEqual(OK)
    expect(bed.cluster.record('default', 'none')).toMatchObject({ replicaCount: 2 })
    for (const { record } of bed.cluster.nodes().slice(1)) bed.cluster.down.add(record.name)
    vi.spyOn(bed.cluster, 'nodes').mockReturnValue(bed.cluster.nodes().slice(0, 1))
    expect(await create('single')).toEqual(OK)
    expect(bed.cluster.record('default', 'single')).toMatchObject({ replicaCount: 1 })
  })

  it('reach the volume, and each mount of it', async () => {
    const filesystem = { fs: 'xfs', 'mkfs-options': '-m crc=1', 'mount-options': 'noatime,nodev' }
    const rest = { size: '10GiB', replicas: '3', 'failure-mode': 'threshold=2', 'label.team': 'blue' }
    expect(await create('data', { ...filesystem, ...rest })).toEqual(OK)
    expect(bed.cluster.record('default', 'data')).toMatchObject({
      ...{ sizeBytes: 10 * 1024 ** 3, replicaCount: 3 },
      ...{ failureMode: { kind: 'threshold', inSyncMin: 2 }, labels: { team: 'blue' } },
    })
    await bed.call('Mount', { Name: 'data', ID: 'id1' })
    expect(bed.mounts.calls).toEqual(['mount default/data id1 xfs -m crc=1 noatime nodev'])
  })

  it.each([
    [{ colour: 'red' }, /no option "colour": the options are size/],
    [{ size: '0' }, /too small/],
    [{ size: '-1GiB' }, /no size/],
    [{ size: 'big' }, /no size/],
    [{ size: '1000PiB' }, /no size/],
    [{ size: '65TiB' }, /too large/],
    [{ replicas: '0' }, /0 is no number of replicas/],
    [{ replicas: '1000' }, /no number of replicas/],
    [{ replicas: 'two' }, /no number of replicas/],
    [{ fs: 'ntfs' }, /"ntfs" is no filesystem.*ext4 or xfs/],
    [{ from: 'good@monday' }, /snapshot.*good@monday/],
    [{ 'failure-mode': 'never' }, /no failure mode/],
    [{ namespace: '..' }, /no namespace/],
    [{ 'label.': 'x' }, /no label name/],
    [{ 'label.docker.mkfs-options': '-x' }, /docker.mkfs-options is the driver's own/],
  ])('%j are refused in a sentence', async (options, words) => {
    expect(await refused(options)).toMatch(words)
    expect(bed.cluster.calls).toEqual([])
  })

  it.each(['', '/..', 'a/..', '../../etc', '..', 'a..', 'é', 'x'.repeat(129), 'a/b', '.a', 'a\nb'])(
    'the name %j is refused',
    async (name) => {
      expect(await refused({}, name)).toMatch(/is no volume name/)
      expect(bed.cluster.calls).toEqual([])
    },
  )
})

describe('names', () => {
  it('of volumes in other namespaces are found again, from every host, by the label', async () => {
    expect(await create('data', { namespace: 'blue', size: '1GiB' })).toEqual(OK)
    expect(bed.cluster.record('blue', 'data').namespace).toBe('blue')
    expect(await create('data')).toEqual(OK)
    expect(await refused({ namespace: 'red' })).toContain('it is in the namespace blue')
    expect(await names()).toEqual(['data'])
    await bed.call('Mount', { Name: 'data', ID: 'id1' })
    expect(bed.users('data')).toEqual(['id1'])
    await bed.call('Unmount', { Name: 'data', ID: 'id1' })
    expect(bed.users('data')).toEqual([])
    expect(await bed.call('Remove', { Name: 'data' })).toEqual(OK)
    expect(bed.cluster.volumes()).toEqual([])
  })

  it('of volumes that docker has not made are full ones', async () => {
    const request = { name: 'data', namespace: 'blue', sizeBytes: 1024 ** 3, replicaCount: 1, labels: {} }
    await bed.cluster.createVolume(request)
    expect(await names()).toEqual(['blue..data'])
    expect(await bed.refusal('Get', { Name: 'data' })).toContain('there is no volume data')
    expect(await bed.call('Get', { Name: 'blue..data' })).toMatchObject({ Volume: { Name: 'blue..data' } })
    const mounted = await bed.call('Mount', { Name: 'blue..data', ID: 'id1' })
    expect(mounted).toMatchObject({ Mountpoint: bed.path('data', 'blue') })
    await bed.call('Unmount', { Name: 'blue..data', ID: 'id1' })
    expect(bed.users('data')).toEqual([])
  })

  it('that are full ones say the namespace at creation', async () => {
    expect(await create('blue..data')).toEqual(OK)
    expect(bed.cluster.record('blue', 'data').labels).not.toHaveProperty('docker.name')
    expect(await refused({ namespace: 'red' }, 'blue..data')).toContain('is in the namespace blue')
    expect(await refused({ namespace: 'red' }, 'blue..new')).toContain('leave out the option namespace=red')
    expect(await names()).toEqual(['blue..data'])
  })

  it('that two volumes have are refused, and the full ones still work', async () => {
    await create('data', { namespace: 'blue' })
    const request = { name: 'data', namespace: 'default', sizeBytes: 1024 ** 3, replicaCount: 1, labels: {} }
    await bed.cluster.createVolume(request)
    const words = 'say which one with its full name, blue..data or default..data'
    for (const call of ['Get', 'Path', 'Create', 'Mount', 'Remove']) {
      expect(await bed.refusal(call, { Name: 'data', ID: 'id1' })).toContain(words)
    }
    expect(await names()).toEqual(['blue..data', 'default..data'])
    expect(await bed.call('Remove', { Name: 'default..data' })).toEqual(OK)
    expect(await names()).toEqual(['data'])
  })
})

describe('creation', () => {
  it('sent twice at once makes one volume', async () => {
    const { opened, open } = gate()
    const make = bed.cluster.createVolume.bind(bed.cluster)
    const made = vi.spyOn(bed.cluster, 'createVolume').mockImplementation(async (request) => {
      await opened
      return make(request)
    })
    const both = [create('data'), create('data')]
    await vi.waitFor(() => expect(made).toHaveBeenCalled())
    await bed.call('List')
    open()
    expect(await Promise.all(both)).toEqual([OK, OK])
    expect(made).toHaveBeenCalledTimes(1)
  })

  it('that another host has won is a success, if it made what was asked for', async () => {
    const make = bed.cluster.createVolume.bind(bed.cluster)
    vi.spyOn(bed.cluster, 'createVolume').mockImplementation(async (request) => {
      setTimeout(() => void make({ ...request, sizeBytes: 1024 ** 3 }), 20)
      throw new HoldfastError('HF_CONFLICT', `volume ${request.name} exists already: choose another name`)
    })
    expect(await create('one', { size: '1GiB' })).toEqual(OK)
    expect(await refused({ size: '2GiB' }, 'two')).toContain('has a size of 1 GiB')
  })

  it('that fails tells why', async () => {
    expect(await refused({ replicas: '4' })).toBe('too few nodes')
    bed.cluster.failure = new HoldfastError('HF_CONFLICT', 'volume data exists already')
    expect(await refused({})).toBe('volume data exists already')
  })

  it('that does not come to serve leaves nothing behind, and can be tried again', async () => {
    bed.cluster.looksUntilServing = 1000
    const remove = bed.cluster.removeVolume.bind(bed.cluster)
    vi.spyOn(bed.cluster, 'removeVolume').mockImplementation(async (...volume) => {
      // As the process that holds the socket does it all the time.
      await bed.call('List')
      await remove(...volume)
      await bed.call('List')
    })
    expect(await refused({})).toContain('does not serve yet')
    expect(bed.cluster.volumes()).toEqual([])
    bed.cluster.looksUntilServing = 0
    expect(await create('data')).toEqual(OK)
  })

  it('that was late, but serves, is a success: nothing is removed', async () => {
    const make = bed.cluster.createVolume.bind(bed.cluster)
    vi.spyOn(bed.cluster, 'createVolume').mockImplementation(async (request) => {
      await make(request)
      throw new HoldfastError('HF_TIMEOUT', 'too late')
    })
    expect(await create('data')).toEqual(OK)
    expect(bed.cluster.volumes()).toHaveLength(1)
    expect(bed.cluster.calls.join()).not.toContain('remove')
  })

  it('that gets no answer is given up in time', async () => {
    await bed.stop()
    await bed.start({ callMs: 100, seenMs: 50 })
    const { opened, open } = gate()
    vi.spyOn(bed.cluster, 'createVolume').mockImplementation(async () => {
      await opened
      throw new Error('no')
    })
    expect(await refused({})).toContain('volume data is not ready yet')
    open()
  })

  it('that waited too long for a removal does not come later', async () => {
    await bed.stop()
    await bed.start({ callMs: 100, seenMs: 50 })
    await create('data')
    const { opened, open } = gate()
    vi.spyOn(bed.mounts, 'detach').mockImplementation(() => opened)
    expect(await bed.refusal('Remove', { Name: 'data' })).toContain('volume data is not removed yet')
    const created = vi.spyOn(bed.cluster, 'createVolume')
    const late = refused({ size: '1GiB' })
    expect(await late).toContain('volume data is not ready yet')
    open()
    // It has its turn after those of the same name.
    expect(await bed.call('Remove', { Name: 'data' })).toEqual(OK)
    expect(bed.cluster.volumes()).toEqual([])
    expect(created).not.toHaveBeenCalled()
  })
})

describe('a volume that was removed', () => {
  beforeEach(async () => {
    await create('data', { size: '1GiB' })
    expect(await names()).toEqual(['data'])
  })

  it('elsewhere is not made again, empty, unasked', async () => {
    await bed.cluster.removeVolume('default', 'data')
    expect(await refused({})).toMatch(/data was removed elsewhere.*docker volume create .*--opt size=.* data$/)
    expect(await refused({})).toContain('was removed elsewhere')
    expect(bed.cluster.volumes()).toEqual([])
    expect(await create('other')).toEqual(OK)
    expect(await create('data', { size: '1GiB' })).toEqual(OK)
    expect(await create('data')).toEqual(OK)
  })

  it('elsewhere is remembered for ten minutes', async () => {
    await bed.cluster.removeVolume('default', 'data')
    const removedAt = Date.now()
    expect(await names()).toEqual([])
    const clock = vi.spyOn(Date, 'now')
    clock.mockReturnValue(removedAt + 595_000)
    expect(await refused({})).toContain('was removed')
    clock.mockReturnValue(removedAt + 700_000)
    expect(await create('data')).toEqual(OK)
    clock.mockRestore()
  })

  it('here is made again, although the removal was seen before it was done', async () => {
    const remove = bed.cluster.removeVolume.bind(bed.cluster)
    vi.spyOn(bed.cluster, 'removeVolume').mockImplementation(async (...volume) => {
      await remove(...volume)
      await bed.call('List')
    })
    expect(await bed.call('Remove', { Name: 'data' })).toEqual(OK)
    expect(await create('data')).toEqual(OK)
  })

  it('and any other is not made unasked, where the operator wants it so', async () => {
    await bed.stop()
    await bed.start({ implicitCreation: false })
    expect(await refused({}, 'new')).toContain('create it with docker volume create')
    expect(await create('data')).toEqual(OK)
    expect(await create('new', { size: '1GiB' })).toEqual(OK)
  })
})
