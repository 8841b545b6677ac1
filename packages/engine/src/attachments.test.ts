import { keys, nodeId, type Transaction, type TransactionResult, volumeId, type VolumeRecord } from '@holdfast/base'
import { describe, expect, it } from 'vitest'
import { Attachments } from './attachments.ts'
import type { NodeContext } from './context.ts'

const KEY = keys.volume('default', 'v1')
const SELF = nodeId('n1')

it('gives a right back that it may have taken: the answer to the transaction was lost', async () => {
  let now = 0
  let modRevision = 7
  let record = { id: 'v', name: 'v1', namespace: 'default', labels: {}, inSync: [SELF], primary: SELF } as unknown as VolumeRecord
  const outcomes: TransactionResult['kind'][] = []
  const alive = new Map([[SELF, { key: keys.aliveNode(SELF), modRevision: 1 }]])
  const context = {
    self: { node: SELF },
    lease: { held: true },
    clock: { now: () => now, wallMs: () => now },
    scheduler: {
      after: (ms: number, task: () => void) => {
        now += ms
        setImmediate(task)
        return () => {}
      },
    },
    view: { volumes: new Map(), alive, learnVolume: () => {} },
    coordinator: {
      range: (_key: string, done: (result: unknown) => void) => {
        const entries = [{ key: KEY, value: JSON.stringify(record), modRevision }]
        done({ kind: 'ok', revision: modRevision, entries })
      },
      transact: ({ operations }: Transaction, done: (result: TransactionResult) => void) => {
        const [operation] = operations
        if (operation?.op === 'put') record = JSON.parse(operation.value) as VolumeRecord
        modRevision++
        const lost = outcomes.length === 0
        outcomes.push(lost ? 'unknown' : 'ok')
        done(lost ? { kind: 'unknown', reason: 'timeout' } : { kind: 'ok', revision: modRevision })
      },
    },
  } as unknown as NodeContext
  const attachments = new Attachments(context)
  // No primary ever confirms it.
  const claim = attachments.claim('default', 'v1')
  await expect(claim).rejects.toMatchObject({ code: 'HF_UNAVAILABLE' })
  expect(outcomes[0]).toBe('unknown')
  for (let turn = 0; turn < 100 && record.attachment !== undefined; turn++) await new Promise(setImmediate)
  expect(record.attachment).toBeUndefined()
})

describe('a right that was taken before', () => {
  const right = { volume: volumeId('00112233445566aa'), generation: 9 }
  const recordWith = (change: Partial<VolumeRecord>): VolumeRecord =>
    ({
      id: right.volume,
      name: 'v1',
      namespace: 'default',
      labels: {},
      inSync: [SELF],
      primary: SELF,
      attachment: { node: SELF, generation: 9, confirmed: true, since: '' },
      ...change,
    }) as unknown as VolumeRecord
  const attachmentsOf = (record: VolumeRecord): Attachments => {
    const versioned = { key: KEY, modRevision: 12, record }
    return new Attachments({
      self: { node: SELF },
      lease: { held: true },
      clock: { now: () => 0, wallMs: () => 0 },
      view: { synced: true, volumes: new Map([[KEY, versioned]]), alive: new Map([[SELF, {}]]), learnVolume: () => {} },
      coordinator: {
        range: (_key: string, done: (result: unknown) => void) =>
          done({ kind: 'ok', revision: 12, entries: [{ key: KEY, value: JSON.stringify(record), modRevision: 12 }] }),
        transact: () => {
          throw new Error('nothing is to be taken')
        },
      },
    } as unknown as NodeContext)
  }

  it('is ours only where nobody has had the volume since', async () => {
    expect(await attachmentsOf(recordWith({})).reconfirm('default', 'v1', right)).toEqual(right)
    expect(await attachmentsOf(recordWith({})).reconfirm('default', 'v1', undefined)).toEqual(right)
    const others: Partial<VolumeRecord>[] = [
      { attachment: undefined },
      { attachment: { node: nodeId('n2'), generation: 9, confirmed: true, since: '' } },
      { attachment: { node: SELF, generation: 11, confirmed: true, since: '' } },
      { id: volumeId('ffffffffffffffff') },
    ]
    for (const other of others) {
      await expect(attachmentsOf(recordWith(other)).reconfirm('default', 'v1', right)).rejects.toMatchObject({ code: 'HF_CONFLICT' })
    }
  })

  it('is known although this process has not taken it', async () => {
    expect(await attachmentsOf(recordWith({})).rights()).toEqual([{ namespace: 'default', name: 'v1' }])
    expect(await attachmentsOf(recordWith({ attachment: undefined })).rights()).toEqual([])
  })
})
