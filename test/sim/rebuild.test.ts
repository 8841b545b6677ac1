/** A copy that is made anew from another's checkpoint and segments, while the volume is written. */
import type { ExportSession } from '@holdfast/base'
import { nativeChecksum } from '@holdfast/disk'
import { SimCluster } from '@holdfast/simulator'
import type { ReplicaLog } from '@holdfast/volume-log'
import { describe, expect, it } from 'vitest'

const BLOCK = 4096
const PIECE = 512 * 1024
const VOLUME = 'v1'
const PIECES = 24

const PAUSE_MS = 40

/** A volume that a client overwrites all the time, piece by piece. */
class BusyVolume {
  readonly cluster = new SimCluster({ seed: 3, checksum: nativeChecksum, nodeCount: 2, replaceAfterMs: 600_000 })
  #session: ExportSession | undefined
  #token = 0
  stopped = false
  written = 0

  constructor() {
    this.cluster.createVolume(VOLUME, 2, (PIECES * PIECE) / BLOCK)
    expect(this.cluster.runUntil(5_000, () => this.cluster.healthy(VOLUME))).toBe(true)
  }

  get log(): ReplicaLog {
    const id = this.cluster.record(VOLUME)?.id
    const primary = this.cluster.primaryOf(VOLUME)
    const log = id === undefined ? undefined : primary?.engine?.replicas.get(id)?.log
    if (primary === undefined || log === undefined) throw new Error('the volume has no primary')
    return log
  }

  start(): void {
    const exports = this.cluster.primaryOf(VOLUME)?.engine?.exports
    this.#session = exports?.open(VOLUME, (_token, error) => {
      if (error !== 0) this.cluster.violation(`a write failed with errno ${error}`)
      this.written++
      if (!this.stopped) this.#write()
    })
    this.#write()
  }

  #write(): void {
    const token = ++this.#token
    const at = (token % PIECES) * PIECE
    this.cluster.world.schedule(PAUSE_MS, undefined, () => {
      this.#session?.write(token, at, new Uint8Array(PIECE).fill(token % 251), 0, PIECE, false)
    })
  }
}

describe('a rebuild of a busy volume', () => {
  it('over a slow link completes at the first attempt while the primary writes checkpoints', () => {
    const busy = new BusyVolume()
    const { cluster } = busy
    busy.start()
    const primary = cluster.primaryOf(VOLUME)
    const member = cluster.nodes.find((node) => node !== primary)
    if (primary === undefined || member === undefined) throw new Error('the volume has no member')
    cluster.crash(member)
    // Everything that the member has is overwritten, and the segments are freed.
    const from = busy.log.appendedLsn
    let checkpoints = 0
    const checkpoint = (): void => {
      if (busy.stopped) return
      busy.log.checkpointNow((error) => {
        if (error === undefined) checkpoints++
        cluster.world.schedule(20, undefined, checkpoint)
      })
    }
    checkpoint()
    expect(cluster.runUntil(10_000, () => busy.log.streamableFrom() > from)).toBe(true)
    cluster.network.slowness = 20
    primary.platter.slowness = 10
    const before = checkpoints
    const id = cluster.record(VOLUME)?.id
    cluster.restart(member)
    let rebuilds = 0
    let was = ''
    const joined = cluster.runUntil(15_000, () => {
      const state = id === undefined ? '' : (member.engine?.replicas.get(id)?.log?.state ?? '')
      if (state === 'rebuilding' && was !== state) rebuilds++
      was = state
      return cluster.record(VOLUME)?.inSync.length === 2
    })
    expect(cluster.violations).toEqual([])
    expect(joined).toBe(true)
    expect(rebuilds).toBe(1)
    expect(checkpoints - before).toBeGreaterThan(2)
    busy.stopped = true
    cluster.network.slowness = 1
    primary.platter.slowness = 1
    expect(cluster.runUntil(5_000, () => cluster.healthy(VOLUME))).toBe(true)
    // What it kept for the rebuild is gone with it.
    const files = (): number => {
      const disk = primary.platter.attach(primary.life)
      return disk.list(`volumes/${id}`).filter((name) => name.startsWith('checkpoint-')).length
    }
    expect(files()).toBe(1)
    cluster.run(1_000)
    expect(cluster.violations).toEqual([])
  })
})
