/**
 * Exclusive attachment under faults: hosts take a volume from each other, and each checks that while it has the right
 * nobody else's write reaches the volume, however long that was on its way.
 */
import { type ExportSession, errno, isHoldfastError } from '@holdfast/base'
import { nativeChecksum } from '@holdfast/disk'
import { inject, SimCluster, type SimNode } from '@holdfast/simulator'
import { describe, expect, it } from 'vitest'

const BLOCK = 4096
const VOLUME = 'v1'
const LENGTH_MS = 12_000

/** A host that attaches the volume whenever it can, and writes numbers that grow to one block. */
class Host {
  readonly #cluster: SimCluster
  readonly #node: SimNode
  readonly #pending = new Map<number, (error: number) => void>()
  #token = 0
  #has = false
  #stopped = false
  claims = 0
  refusals = 0
  writes = 0

  constructor(cluster: SimCluster, node: SimNode) {
    this.#cluster = cluster
    this.#node = node
    void this.#live()
  }

  stop(): void {
    this.#stopped = true
  }

  async #live(): Promise<void> {
    while (!this.#stopped) {
      const { engine, life } = this.#node
      if (engine === undefined || !life.alive) await this.#sleep(20)
      else {
        this.#has = false
        engine.attachments.onLost(() => (this.#has = false))
        try {
          await engine.attachments.claim('default', VOLUME)
          this.claims++
          await this.#use(life)
        } catch (error) {
          if (!isHoldfastError(error)) throw error
        }
        await this.#sleep(50)
      }
    }
  }

  /** Writes for a while. Goes on after it has lost the right until something tells it, as a mounted filesystem would. */
  async #use(life: SimNode['life']): Promise<void> {
    const session = this.#node.engine?.exports.open(VOLUME, (token, error) => {
      const done = this.#pending.get(token)
      this.#pending.delete(token)
      done?.(error)
    })
    if (session === undefined) return
    this.#has = true
    let known: string | undefined
    const count = 5 + this.#cluster.random.below(150)
    for (let i = 0; i < count && life.alive && this.#has && !this.#stopped; i++) {
      const seen = await this.#read(session)
      if (!this.#has || !life.alive) break
      if (known !== undefined && seen !== known && this.#rightfully()) {
        this.#cluster.violation(`${this.#node.name} has the volume, wrote ${known} and reads ${seen}`)
      }
      const next = `${this.#node.name}/${this.#node.lives}/${this.claims}/${i}`
      const error = await this.#write(session, next)
      if (error === errno.EPERM) {
        this.refusals++
        this.#has = false
        if (this.#rightfully()) this.#cluster.violation(`${this.#node.name} has the volume and is refused`)
      } else if (error === 0) {
        this.writes++
        known = next
      }
      await this.#sleep(this.#cluster.random.between(1, 20))
    }
    session.close()
    if (this.#has && life.alive) await this.#node.engine?.attachments.release('default', VOLUME)
  }

  /** By the coordinator, whatever this host has heard of it. */
  #rightfully(): boolean {
    const attachment = this.#cluster.record(VOLUME)?.attachment
    return this.#has && attachment?.node === this.#node.name && attachment.confirmed
  }

  #read(session: ExportSession): Promise<string> {
    const target = new Uint8Array(BLOCK)
    return this.#ask((token) => session.read(token, 0, BLOCK, target, 0)).then(() => {
      return Buffer.from(target).toString('latin1').replace(/\0+$/, '')
    })
  }

  #write(session: ExportSession, text: string): Promise<number> {
    const bytes = new Uint8Array(BLOCK)
    bytes.set(Buffer.from(text, 'latin1'))
    return this.#ask((token) => {
      session.write(token, 0, bytes, 0, BLOCK, false)
      return false
    })
  }

  /** Resolves with the error; with -1 when the process that should answer is gone. */
  #ask(submit: (token: number) => boolean): Promise<number> {
    const { life } = this.#node
    return new Promise((resolve) => {
      const token = ++this.#token
      this.#pending.set(token, resolve)
      if (submit(token)) {
        this.#pending.delete(token)
        resolve(0)
      }
      const look = (): void => {
        if (!this.#pending.has(token)) return
        if (life.alive && !this.#stopped) this.#cluster.world.schedule(50, undefined, look)
        else {
          this.#pending.delete(token)
          resolve(-1)
        }
      }
      look()
    })
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.#cluster.world.schedule(ms, undefined, resolve))
  }
}

function disturb(cluster: SimCluster): void {
  const { random, world, nodes } = cluster
  const stage = { cluster, volumes: [VOLUME], clients: [], damaged: undefined }
  const victim = { volume: 0, role: 'any', pick: random.fraction() } as const
  const node = nodes[random.below(nodes.length)] as SimNode
  const ms = random.between(300, 3_000)
  switch (random.below(7)) {
    case 0:
      cluster.crash(node)
      world.schedule(random.between(100, 2_500), undefined, () => cluster.restart(node))
      break
    case 1:
      cluster.pause(node, ms)
      break
    case 2:
      inject(stage, { kind: 'coordinator-partition', atMs: 0, forMs: ms, victim })
      break
    case 3:
      inject(stage, { kind: 'isolation', atMs: 0, forMs: ms, victim, fromCoordinator: random.chance(0.7) })
      break
    case 4:
      inject(stage, { kind: 'late-watches', atMs: 0, forMs: ms, lagMs: 600 })
      break
    case 5:
      inject(stage, { kind: 'slow-network', atMs: 0, forMs: ms, factor: 40 })
      break
    default: {
      const { name } = nodes[random.below(nodes.length)] as SimNode
      cluster.alive[0]?.engine?.admin.movePrimary('default', VOLUME, name).catch(() => {})
    }
  }
  world.schedule(random.between(100, 1_200), undefined, () => disturb(cluster))
}

async function play(seed: number): Promise<{ readonly hosts: readonly Host[]; readonly cluster: SimCluster }> {
  const cluster = new SimCluster({ seed, checksum: nativeChecksum, nodeCount: 3, leaseTtlMs: 1_000 })
  cluster.createVolume(VOLUME, 2 + (seed % 2), 64)
  const hosts = cluster.nodes.map((node) => new Host(cluster, node))
  cluster.world.schedule(500, undefined, () => disturb(cluster))
  for (let ms = 0; ms < LENGTH_MS && cluster.violations.length === 0; ms += 2) {
    cluster.run(2)
    // Where a promise has been kept, its owner goes on before the next event.
    await new Promise(setImmediate)
  }
  for (const host of hosts) host.stop()
  return { hosts, cluster }
}

describe('an attached volume', () => {
  it('takes writes from one host alone, whatever happens', { timeout: 240_000 }, async () => {
    let [claims, refusals, writes] = [0, 0, 0]
    for (let seed = 1; seed <= 100; seed++) {
      const { hosts, cluster } = await play(seed)
      expect({ seed, violations: cluster.violations }).toEqual({ seed, violations: [] })
      for (const host of hosts) {
        claims += host.claims
        refusals += host.refusals
        writes += host.writes
      }
    }
    console.log(`${claims} claims, ${refusals} hosts refused, ${writes} writes`)
    expect(claims).toBeGreaterThan(300)
    expect(refusals).toBeGreaterThan(10)
    expect(writes).toBeGreaterThan(10_000)
  })
})
