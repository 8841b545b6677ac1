import { readFileSync } from 'node:fs'
import type { PeerChannel, PeerLink } from '@holdfast/base'
import { epoch, incarnation, lsn, nodeId, volumeId } from '@holdfast/base'
import { Outlet } from '@holdfast/direct-socket'
import type { PeerMessage } from '@holdfast/wire'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { createPeerNetwork, createShardNetwork, type ListeningPeerNetwork, type ShardNetwork } from './peer-network.ts'

const scope = { volume: volumeId('00112233aabbccdd'), epoch: epoch(3) }
const append = (at: number, payload: readonly Uint8Array[]): PeerMessage => {
  return { type: 'append', ...scope, lsn: lsn(at), committedLsn: lsn(at), payload }
}
const bytes = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (Math.imul(i + seed, 2_654_435_761) >>> 13) & 0xff)

const networks: ShardNetwork[] = []
afterEach(async () => {
  for (const network of networks.splice(0)) await network.close()
})

async function network(name: string, cluster = 'c'): Promise<ListeningPeerNetwork> {
  const self = { node: nodeId(name), incarnation: incarnation(`${name}-1`), cluster }
  const made = await createPeerNetwork({ self, listen: { host: '127.0.0.1', port: 0 }, events: { event: () => {} } })
  networks.push(made)
  return made
}

/** One end of an open link and what came to it. */
interface End {
  readonly link: PeerLink<PeerMessage>
  readonly got: PeerMessage[]
  closed: string | undefined
}

const end = (link: PeerLink<PeerMessage>): End => ({ link, got: [], closed: undefined })

/** A link between two nodes: the end that dialled, then the other one. */
async function linked(channel: PeerChannel = 'data'): Promise<readonly [End, End]> {
  const [a, b] = [await network('a'), await network('b')]
  const accepted = new Promise<End>((resolve) => {
    b.accept((link) => {
      const here = end(link)
      resolve(here)
      return {
        opened: () => {},
        message: (_link, message) => here.got.push(message),
        closed: (_link, reason) => {
          here.closed = reason
        },
      }
    })
  })
  const dialled = await new Promise<End>((resolve, reject) => {
    let here: End | undefined
    a.dial({ node: nodeId('b'), shard: 0, ...b.address }, channel, {
      opened: (link) => {
        here = end(link)
        resolve(here)
      },
      message: (_link, message) => here?.got.push(message),
      closed: (_link, reason) => {
        if (here === undefined) reject(new Error(reason))
        else here.closed = reason
      },
    })
  })
  return [dialled, await accepted]
}

const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve))
}
const joined = (message: PeerMessage | undefined): Buffer =>
  Buffer.concat(message !== undefined && 'payload' in message ? message.payload : [])

describe('links', () => {
  it('send bulk and what was announced to follow it in one call, before the turn ends', async () => {
    const [{ link }, { got }] = await linked()
    const sends = vi.spyOn(Outlet.prototype, 'send')
    const parts = (): number[] => sends.mock.calls.map(([, , count]) => count)
    try {
      link.send(append(0, [bytes(4096, 1)]), undefined, true)
      expect(parts()).toEqual([])
      link.send(append(1, []))
      expect(parts()).toEqual([3])
      link.send(append(2, [bytes(4096, 1)]))
      expect(parts()).toEqual([3, 2])
      await until(() => got.length === 3)
    } finally {
      vi.restoreAllMocks()
    }
  })

  it('are watched at both ends while nothing is sent, so that one whose other end has vanished closes', async () => {
    await linked()
    const ports = networks.map((one) => (one as ListeningPeerNetwork).address.port)
    // Of /proc/net/tcp: the kind of timer that runs is 2 where the kernel asks a silent peer for a sign of life.
    const timers = (): string[] => {
      const lines = ['tcp', 'tcp6'].flatMap((table) => readFileSync(`/proc/net/${table}`, 'utf8').trim().split('\n').slice(1))
      const fields = lines.map((line) => line.trim().split(/\s+/))
      const port = (address: string | undefined): number => Number.parseInt(address?.split(':')[1] ?? '', 16)
      const ours = fields.filter(([, local, remote, state]) => state === '01' && ports.some((one) => one === port(local) || one === port(remote)))
      return ours.map(([, , , , , timer]) => timer?.slice(0, 2) ?? '')
    }
    await until(() => timers().length >= 2 && timers().every((kind) => kind === '02'))
  })

  it('bring what was announced to be followed, whether it is or not, in order', async () => {
    const [{ link }, { got }] = await linked()
    const expected: number[] = []
    const send = (bytesCount: number, followed: boolean): void => {
      link.send(append(expected.length, bytesCount === 0 ? [] : [bytes(bytesCount, 1)]), undefined, followed)
      expected.push(expected.length)
    }
    // The end of the turn is what ends the wait where nothing follows.
    send(4096, true)
    await until(() => got.length === expected.length)
    for (const turn of [[0], [4096], [4096, 0], [0, 4096, 0]]) {
      for (const bytesCount of turn) send(bytesCount, true)
      send(0, false)
      send(4096, true)
      await until(() => got.length === expected.length)
    }
    expect(got.map((message) => (message as { lsn: number }).lsn)).toEqual(expected)
  })

  it.each([
    { channel: 'data', counted: [1, 3] },
    { channel: 'control', counted: [0, 0] },
  ] as const)('count what comes over $channel links: $counted', async ({ channel, counted }) => {
    const [dialled, accepted] = await linked(channel)
    const [a, b] = networks as [ShardNetwork, ShardNetwork]
    for (let i = 0; i < 3; i++) dialled.link.send(append(i, []))
    accepted.link.send(append(9, []))
    await until(() => accepted.got.length === 3 && dialled.got.length === 1)
    expect([a.received, b.received]).toEqual(counted)
  })

  // Around the lengths at which the header of a WebSocket frame changes.
  it.each([0, 1, 125, 126, 127, 65_535, 65_536, 1024 * 1024])('carry %i bytes both ways', async (length) => {
    const ends = await linked()
    const payload = bytes(length, 1)
    for (const { link } of ends) link.send(append(7, [payload]))
    await until(() => ends.every(({ got }) => got.length === 1))
    for (const { got } of ends) {
      expect(got[0]).toMatchObject({ type: 'append', ...scope, lsn: 7 })
      expect(joined(got[0]).equals(payload)).toBe(true)
    }
  })

  it('keep the order of small and large messages of one turn and of many, in parts', async () => {
    const [dialled, accepted] = await linked()
    const lengths = [10, 0, 5000, 0, 0, 70_000, 3, 0, 200_000, 0]
    for (let turn = 0; turn < 20; turn++) {
      lengths.forEach((length, i) => {
        const at = turn * lengths.length + i
        if (length === 0) dialled.link.send({ type: 'ack', ...scope, appendedLsn: lsn(at), durableLsn: lsn(0) })
        else dialled.link.send(append(at, [bytes(length, at), bytes(9, at)]))
      })
      if (turn % 3 === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    await until(() => accepted.got.length === 20 * lengths.length)
    accepted.got.forEach((message, at) => {
      if (message.type === 'ack') expect(message.appendedLsn).toBe(at)
      else {
        expect(message).toMatchObject({ type: 'append', lsn: at })
        const length = lengths[at % lengths.length] ?? 0
        expect(joined(message).equals(Buffer.concat([bytes(length, at), bytes(9, at)]))).toBe(true)
      }
    })
  })

  it('receive into memory that was given back, and into no other', async () => {
    const [dialled, accepted] = await linked()
    const next = async (seed: number): Promise<Uint8Array> => {
      const count = accepted.got.length
      dialled.link.send(append(seed, [bytes(100_000, seed)]))
      await until(() => accepted.got.length > count)
      const message = accepted.got.at(-1)
      return (message?.type === 'append' ? message.payload[0] : undefined) ?? expect.fail('no payload came')
    }
    const [kept, given] = [await next(1), await next(2)]
    accepted.link.giveBack([given])
    const third = await next(3)
    expect(third.buffer).toBe(given.buffer)
    expect(Buffer.from(third).equals(bytes(100_000, 3))).toBe(true)
    expect(Buffer.from(kept).equals(bytes(100_000, 1))).toBe(true)
  })

  it('compress for a peer that takes less than is sent', async () => {
    const [dialled, accepted] = await linked()
    const part = new Uint8Array(64 * 1024).fill(5)
    let sent = 0
    for (let i = 0; i < 400; i++) dialled.link.send(append(i, [part, part]), () => sent++)
    // 50 MiB as they are; the kernel takes a few of them.
    expect(dialled.link.bufferedBytes()).toBeLessThan(16 * 1024 * 1024)
    await until(() => accepted.got.length === 400 && sent === 400)
    for (const message of accepted.got) expect(joined(message).equals(Buffer.concat([part, part]))).toBe(true)
  })

  it('tell the other end that they are closed, and send nothing after that', async () => {
    const [dialled, accepted] = await linked('control')
    dialled.link.close('test')
    await until(() => accepted.closed !== undefined)
    await new Promise<void>((resolve) => accepted.link.send(append(1, [bytes(9, 1)]), resolve))
    expect(dialled.got).toEqual([])
  })

  it('are refused to the node of another cluster', async () => {
    const [a, b] = [await network('a'), await network('b', 'another')]
    b.accept(() => ({ opened: () => {}, message: () => {}, closed: () => {} }))
    const reason = await new Promise<string>((resolve) => {
      a.dial({ node: nodeId('b'), shard: 0, ...b.address }, 'data', {
        opened: () => resolve('opened'),
        message: () => {},
        closed: (_link, why) => resolve(why),
      })
    })
    expect(reason).not.toBe('opened')
  })
})

describe('a link to another shard', () => {
  const events = { event: () => {} }
  const accepting = (shard: ShardNetwork, ends: End[]): void => {
    shard.accept((link) => {
      const here = end(link)
      ends.push(here)
      return {
        opened: () => {},
        message: (_link, message) => here.got.push(message),
        closed: (_link, reason) => {
          here.closed = reason
        },
      }
    })
  }
  /** A node with two shards, as two threads would have them. */
  async function sharded(): Promise<{ first: ListeningPeerNetwork; ends: readonly [End[], End[]] }> {
    const self = { node: nodeId('b'), incarnation: incarnation('b-1'), cluster: 'c' }
    const second = createShardNetwork({ self, events, shard: { index: 1, count: 2 } })
    const first = await createPeerNetwork({
      ...{ self, events, listen: { host: '127.0.0.1', port: 0 }, shard: { index: 0, count: 2 } },
      handOver: (handed) => second.adopt(structuredClone(handed)),
    })
    networks.push(first, second)
    const ends: [End[], End[]] = [[], []]
    accepting(first, ends[0])
    accepting(second, ends[1])
    return { first, ends }
  }
  async function dialled(from: ShardNetwork, to: ListeningPeerNetwork, shard: number): Promise<End | string> {
    return new Promise((resolve) => {
      let here: End | undefined
      from.dial({ node: nodeId('b'), shard, ...to.address }, 'data', {
        opened: (link) => {
          here = end(link)
          resolve(here)
        },
        message: (_link, message) => here?.got.push(message),
        closed: (_link, reason) => {
          if (here === undefined) resolve(reason)
          else here.closed = reason
        },
      })
    })
  }

  it.each([0, 1])('is accepted by shard %i, where it carries messages both ways', async (shard) => {
    const { first, ends } = await sharded()
    const here = (await dialled(await network('a'), first, shard)) as End
    await until(() => ends[shard]?.length === 1)
    expect(ends[1 - shard]).toEqual([])
    const there = ends[shard]?.[0] as End
    const payload = bytes(300_000, 3)
    for (const { link } of [here, there]) link.send(append(9, [payload]))
    await until(() => here.got.length === 1 && there.got.length === 1)
    for (const { got } of [here, there]) expect(joined(got[0]).equals(payload)).toBe(true)
    here.link.close('test')
    await until(() => there.closed !== undefined)
  })

  it('can begin at a shard that does not listen', async () => {
    const { first, ends } = await sharded()
    const self = { node: nodeId('a'), incarnation: incarnation('a-1'), cluster: 'c' }
    const third = createShardNetwork({ self, events, shard: { index: 2, count: 3 } })
    networks.push(third)
    const here = (await dialled(third, first, 1)) as End
    await until(() => ends[1].length === 1)
    expect([here.link.node, ends[1][0]?.link.node]).toEqual(['b', 'a'])
  })

  it('is refused where there is no such shard, and at a node that knows of none', async () => {
    const { first } = await sharded()
    const a = await network('a')
    expect(await dialled(a, first, 2)).toContain('there is no shard 2 here')
    const b = await network('b')
    b.accept(() => ({ opened: () => {}, message: () => {}, closed: () => {} }))
    expect(await dialled(a, b, 1)).toContain('there is no shard 1 here')
  })
})
