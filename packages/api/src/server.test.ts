import { type EventLog, HoldfastError } from '@holdfast/base'
import type { FastifyInstance } from 'fastify'
import { afterEach, describe, expect, it } from 'vitest'
import { ApiClient } from './client.ts'
import { createApi, startApi } from './server.ts'
import { FakeCluster, FakeMounts, fakeStatistics } from './testing/fake-cluster.ts'

const logged: string[] = []
const events: EventLog = { event: (level, message) => logged.push(`${level} ${message}`) }
const open: FastifyInstance[] = []

function api(admin = new FakeCluster(), token?: string): FastifyInstance {
  const app = createApi({
    host: '',
    port: 0,
    admin,
    statistics: () => fakeStatistics,
    mounts: new FakeMounts(),
    events,
    token,
  })
  open.push(app)
  return app
}

afterEach(async () => {
  logged.length = 0
  await Promise.all(open.splice(0).map((app) => app.close()))
})

const create = { name: 'data', size: '10MiB', replicas: 2 }

describe('volumes', () => {
  it('creates, lists, inspects and removes', async () => {
    const admin = new FakeCluster()
    const app = api(admin)
    const created = await app.inject({ method: 'POST', url: '/v1/volumes', payload: create })
    expect(created.statusCode).toBe(201)
    expect(created.json()).toMatchObject({
      name: 'data',
      namespace: 'default',
      export: 'data',
      size: 10_485_760,
      epoch: 1,
      primary: 'a',
      inSync: ['a', 'b'],
      replicas: ['a', 'b'],
      state: 'healthy',
      local: { role: 'primary', mappedBytes: 20_480, segments: 1 },
    })
    for (const url of ['/v1/volumes/data', '/v1/volumes/default/data']) {
      expect((await app.inject(url)).json()).toEqual(created.json())
    }
    expect((await app.inject('/v1/volumes')).json()).toEqual([created.json()])
    expect((await app.inject('/v1/volumes?namespace=other')).json()).toEqual([])
    const removed = await app.inject({ method: 'DELETE', url: '/v1/volumes/data' })
    expect([removed.statusCode, removed.body]).toEqual([204, ''])
    expect(admin.calls.at(-1)).toBe('remove default/data')
    expect((await app.inject('/v1/volumes/data')).statusCode).toBe(404)
  })

  it('has null for a primary that nobody is', async () => {
    const admin = new FakeCluster()
    const app = api(admin)
    await app.inject({ method: 'POST', url: '/v1/volumes', payload: create })
    admin.change('default', 'data', { primary: undefined })
    const found = (await app.inject('/v1/volumes/data')).json()
    expect(found).toMatchObject({ primary: null, state: 'unavailable' })
  })

  it('defaults to two copies, and to one in a cluster of one node', async () => {
    const body = { name: 'data', size: 2_000_000, namespace: 'shop' }
    const two = await api().inject({ method: 'POST', url: '/v1/volumes', payload: body })
    expect(two.json()).toMatchObject({ replicaCount: 2, size: 2_002_944, export: 'shop/data' })
    const one = await api(new FakeCluster(['a'])).inject({
      method: 'POST',
      url: '/v1/volumes',
      payload: body,
    })
    expect(one.json()).toMatchObject({ replicaCount: 1 })
  })

  it('moves the primary, with or without a body', async () => {
    const admin = new FakeCluster()
    const app = api(admin)
    await app.inject({ method: 'POST', url: '/v1/volumes', payload: create })
    const url = '/v1/volumes/data/move-primary'
    expect((await app.inject({ method: 'POST', url })).json()).toMatchObject({
      primary: 'b',
      epoch: 2,
    })
    const headers = { 'content-type': 'application/json' }
    expect((await app.inject({ method: 'POST', url, headers })).json()).toMatchObject({
      primary: 'a',
    })
    const named = await app.inject({
      method: 'POST',
      url: '/v1/volumes/default/data/move-primary',
      payload: { to: 'b' },
    })
    expect(named.json()).toMatchObject({ primary: 'b', epoch: 4 })
    const nowhere = await app.inject({ method: 'POST', url, payload: { to: 'z' } })
    expect(nowhere.json().error).toMatchObject({
      code: 'HF_NOT_FOUND',
      message: 'there is no node z: see holdfast node ls',
    })
    expect(admin.calls.slice(1)).toEqual([
      'move default/data -',
      'move default/data -',
      'move default/data b',
    ])
  })

  const refused: [string, unknown, string][] = [
    ['no body', undefined, 'the body is missing'],
    ['a list', [], 'the body is of type array'],
    ['no name', { size: 1e7 }, 'name is missing'],
    ['no size', { name: 'x' }, 'size is missing'],
    [
      'an unknown field',
      { ...create, replica: 2 },
      '"replica" is not known here: the fields are name,',
    ],
    [
      'a wrong type',
      { ...create, replicas: '2' },
      'replicas is of type string: it must be of type number, such as 2',
    ],
    ['a bad name', { ...create, name: 'A/b' }, '"A/b" is no volume name: use 1 to 128'],
    ['dots', { ...create, name: 'a..b' }, '"a..b" is no volume name'],
    ['a bad namespace', { ...create, namespace: '' }, '"" is no namespace'],
    ['too small', { ...create, size: 4096 }, 'the size 4096 is too small'],
    ['too many copies', { ...create, replicas: 9 }, '9 is no number of replicas'],
    ['half a copy', { ...create, replicas: 1.5 }, '1.5 is no number of replicas'],
    ['a label that is no text', { ...create, labels: { a: 1 } }, 'the label "a" is no text'],
    ['a failure mode', { ...create, failureMode: 'soft' }, '"soft" is no failure mode'],
  ]
  it.each(refused)('refuses %s with a sentence', async (_, payload, message) => {
    const admin = new FakeCluster()
    const options = payload === undefined ? {} : { payload: payload as object }
    const answer = await api(admin).inject({ method: 'POST', url: '/v1/volumes', ...options })
    expect(answer.statusCode).toBe(400)
    expect(answer.json().error).toMatchObject({ code: 'HF_BAD_REQUEST', details: {} })
    expect(answer.json().error.message).toContain(message)
    expect(admin.calls).toEqual([])
  })
})

describe('nodes and status', () => {
  it('shows nodes, one with its volumes, and drains', async () => {
    const admin = new FakeCluster()
    const app = api(admin)
    await app.inject({ method: 'POST', url: '/v1/volumes', payload: create })
    admin.change('default', 'data', { inSync: ['a'] as never })
    admin.down.add('c')
    const states = (await app.inject('/v1/nodes'))
      .json()
      .map((node: { name: string; state: string }) => [node.name, node.state])
    expect(states).toEqual([
      ['a', 'up'],
      ['b', 'up'],
      ['c', 'down'],
    ])
    const b = (await app.inject('/v1/nodes/b')).json()
    expect(b.volumes).toEqual([
      { name: 'data', namespace: 'default', state: 'degraded', role: 'catching-up' },
    ])
    const url = '/v1/nodes/b/drain'
    expect((await app.inject({ method: 'POST', url })).json()).toMatchObject({
      state: 'draining',
      draining: true,
    })
    admin.change('default', 'data', { replicas: ['a'] as never })
    expect((await app.inject('/v1/nodes/b')).json()).toMatchObject({
      state: 'drained',
      volumes: [],
    })
    const undone = await app.inject({ method: 'POST', url, payload: { draining: false } })
    expect(undone.json()).toMatchObject({ state: 'up', draining: false })
    expect((await app.inject('/v1/nodes/z')).statusCode).toBe(404)
    expect((await app.inject('/v1/status')).json()).toMatchObject({
      node: 'a',
      ready: true,
      nodes: { total: 3, up: 2, draining: 0 },
      volumes: { total: 1, healthy: 0, degraded: 1 },
      attention: [
        'node c is down and holds nothing',
        'volume data is degraded: 1 of 2 copies in sync',
      ],
    })
  })

  it('answers the probes', async () => {
    const admin = new FakeCluster()
    const app = api(admin)
    expect((await app.inject('/healthz')).statusCode).toBe(200)
    expect((await app.inject('/readyz')).statusCode).toBe(200)
    admin.ready = false
    const answer = await app.inject('/readyz')
    expect([answer.statusCode, answer.json().ready]).toEqual([503, false])
    expect((await app.inject('/healthz')).statusCode).toBe(200)
  })
})

describe('errors', () => {
  it('takes the status from the traits and hides what is not ours', async () => {
    const admin = new FakeCluster()
    const app = api(admin)
    const post = () => app.inject({ method: 'POST', url: '/v1/volumes', payload: create })
    admin.failure = new HoldfastError('HF_TOO_FEW_NODES', 'only one node is alive', { alive: 1 })
    let answer = await post()
    expect(answer.statusCode).toBe(409)
    expect(answer.json()).toEqual({
      error: { code: 'HF_TOO_FEW_NODES', message: 'only one node is alive', details: { alive: 1 } },
    })
    admin.failure = new Error('secret')
    answer = await post()
    expect(answer.statusCode).toBe(500)
    expect(answer.body).not.toContain('secret')
    expect(logged.at(-1)).toBe('error request failed: secret')
  })

  it('words what the HTTP layer refuses', async () => {
    const app = api()
    const send = (payload: string, type: string) =>
      app.inject({ method: 'POST', url: '/v1/volumes', payload, headers: { 'content-type': type } })
    const broken = await send('{"name":', 'application/json')
    expect([broken.statusCode, broken.json().error.code]).toEqual([400, 'HF_BAD_REQUEST'])
    expect((await send('name=data', 'text/plain')).statusCode).toBe(415)
    expect((await send(`"${'x'.repeat(70_000)}"`, 'application/json')).statusCode).toBe(413)
    const lost = await app.inject('/v1/volume')
    expect([lost.statusCode, lost.json().error.code]).toEqual([404, 'HF_NOT_FOUND'])
    expect(lost.json().error.message).toContain('there is no GET /v1/volume:')
  })

  it('wants the token for /v1 and nothing else', async () => {
    const app = api(new FakeCluster(), 'secret')
    const status = async (url: string, authorization?: string) =>
      (await app.inject({ url, headers: authorization === undefined ? {} : { authorization } }))
        .statusCode
    expect(await status('/v1/volumes')).toBe(401)
    expect(await status('/v1/volumes', 'Bearer secre')).toBe(401)
    expect(await status('/v1/volumes', 'Bearer secret')).toBe(200)
    expect(await status('/%761/volumes')).toBe(401)
    expect(await status('/metrics')).toBe(200)
    expect(await status('/readyz')).toBe(200)
  })
})

describe('metrics', () => {
  it('writes counters, histograms, gauges and process metrics', async () => {
    const admin = new FakeCluster()
    const app = api(admin)
    await app.inject({ method: 'POST', url: '/v1/volumes', payload: create })
    const answer = await app.inject('/metrics')
    expect(answer.headers['content-type']).toContain('text/plain; version=0.0.4')
    const lines = answer.body.split('\n')
    for (const line of [
      'holdfast_requests_total{volume="default/data",operation="read"} 3',
      'holdfast_request_errors_total{volume="default/other",operation="read"} 1',
      'holdfast_request_duration_seconds_bucket{operation="read",le="0.000016"} 1',
      'holdfast_request_duration_seconds_bucket{operation="read",le="0.000032"} 4',
      'holdfast_request_duration_seconds_bucket{operation="read",le="+Inf"} 5',
      'holdfast_request_duration_seconds_sum{operation="read"} 0.75',
      'holdfast_request_duration_seconds_count{operation="read"} 5',
      'holdfast_epoch_changes_total 4',
      'holdfast_volume_in_sync_replicas{volume="default/data"} 2',
      'holdfast_volume_replication_lag_bytes{volume="default/data",member="b"} 8192',
      'holdfast_volume_mapped_bytes{volume="default/data"} 20480',
      'holdfast_volume_segments{volume="default/data"} 1',
      'holdfast_node_up{node="a"} 1',
      'holdfast_ready 1',
    ]) {
      expect(lines).toContain(line)
    }
    expect(answer.body).toContain('process_cpu_seconds_total')
    expect(answer.body).toContain('route="/v1/volumes",status="201"')
  })
})

describe('the client', () => {
  it('speaks to a real server and gets its errors back', async () => {
    const admin = new FakeCluster()
    const server = await startApi({
      host: '127.0.0.1',
      port: 0,
      admin,
      statistics: () => fakeStatistics,
      mounts: new FakeMounts(),
      events,
      token: 't',
    })
    try {
      const client = new ApiClient({ url: `127.0.0.1:${server.port}/`, token: 't' })
      const name = { namespace: 'default', name: 'data' }
      expect((await client.createVolume({ name: 'data', size: '1GiB' })).replicas).toEqual([
        'a',
        'b',
      ])
      expect((await client.movePrimary(name)).primary).toBe('b')
      expect((await client.movePrimary(name, 'a')).primary).toBe('a')
      expect((await client.setDraining('b', true)).state).toBe('draining')
      expect((await client.nodes()).length).toBe(3)
      expect((await client.status()).volumes.total).toBe(1)
      await client.removeVolume(name)
      await expect(client.volume(name)).rejects.toMatchObject({ code: 'HF_NOT_FOUND' })
      const stranger = new ApiClient({ url: client.url })
      await expect(stranger.volumes()).rejects.toMatchObject({ code: 'HF_UNAUTHORIZED' })
      const again = startApi({
        host: '127.0.0.1',
        port: server.port,
        admin,
        statistics: () => fakeStatistics,
        mounts: new FakeMounts(),
        events,
      })
      await expect(again).rejects.toMatchObject({ code: 'HF_CONFLICT' })
    } finally {
      await server.close()
    }
    const client = new ApiClient({ url: `http://127.0.0.1:${server.port}` })
    await expect(client.volumes()).rejects.toMatchObject({ code: 'HF_UNAVAILABLE' })
  })

  it('says so when something else answers', async () => {
    const answering = (body: string, status: number) =>
      new ApiClient({ url: 'http://x:1', fetch: async () => new Response(body, { status }) })
    for (const client of [
      answering('<html>', 200),
      answering('nope', 404),
      answering('{"error":"x"}', 500),
    ]) {
      await expect(client.volumes()).rejects.toThrow('is no Holdfast API')
    }
    expect(() => new ApiClient({ url: 'ftp://x' })).toThrow('is no API address')
  })
})
