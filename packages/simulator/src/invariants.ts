/**
 * What must hold whenever one looks (DESIGN, I1 to I9), seen from outside the engines.
 *
 * - I1: what a client was told is done, every in-sync member holds.
 * - I3: what a client was told is flushed, every in-sync member has made durable; no copy lacks what it has called durable.
 * - I4, I8: of one volume at most one primary answers reads at a time.
 * - I5, I7: the epoch in the coordinator never goes back, and the set of in-sync members is never empty. No copy is made
 *   anew while it counts as one of them.
 * - Positions of a log keep their order: durable and committed never go beyond what is written.
 */
import type { NodeId, VolumeRecord } from '@holdfast/base'
import type { ObservedCluster, SimNode } from './observed.ts'
import { UNIT, versionOf } from './units.ts'

const BLOCK = 4096
const UNITS_PER_BLOCK = BLOCK / UNIT

export class Invariants {
  readonly #cluster: ObservedCluster
  readonly #epochs = new Map<string, number>()
  /** The record that was looked at last. */
  readonly #seen = new Map<string, VolumeRecord>()
  /** Nodes whose host lost its page cache since the volume was last whole. */
  readonly #lossy = new Map<string, Set<NodeId>>()
  /** To read into: each check reads what it looks at anew. */
  readonly #block = new Uint8Array(BLOCK)
  /** How often each was looked at, to show that the looking is not vacuous. */
  readonly looks = { members: 0, flushes: 0, serving: 0, copies: 0 }

  constructor(cluster: ObservedCluster) {
    this.#cluster = cluster
  }

  look(): void {
    for (const volume of this.#cluster.checkers.keys()) {
      const record = this.#cluster.record(volume)
      if (record === undefined) continue
      this.#lookAtRecord(volume, record)
      this.#lookAtServing(volume, record)
      if (this.#lossy.has(volume) && this.#whole(volume, record)) this.#lossy.delete(volume)
    }
  }

  /** Before hosts lose what they have not flushed: says whether that can lose acknowledged writes. */
  hostsLost(nodes: readonly SimNode[]): void {
    for (const volume of this.#cluster.checkers.keys()) {
      const record = this.#cluster.record(volume)
      const lossy = this.#lossy.get(volume) ?? new Set<NodeId>()
      this.#lossy.set(volume, lossy)
      for (const { name } of nodes) if (record?.replicas.includes(name) === true) lossy.add(name)
    }
    this.expectLosses()
  }

  /**
   * Where no in-sync copy is surely complete any more, clients may see less than they were told is done: after a loss
   * of power what was not flushed is gone; where a bit has flipped behind the last proof that the log was whole, the
   * rest of it looks torn at the next start and is cut. To be asked whenever a copy may have become such a one.
   */
  expectLosses(): void {
    for (const volume of this.#cluster.checkers.keys()) {
      const record = this.#cluster.record(volume)
      if (record !== undefined) this.#expectLossesOf(volume, record)
    }
  }

  #expectLossesOf(volume: string, { inSync }: VolumeRecord): void {
    const flipped = inSync.filter((member) => {
      return this.#cluster.nodes.some(({ name, platter }) => name === member && platter.flipped)
    })
    const lossy = this.#lossy.get(volume)
    if (!inSync.every((member) => lossy?.has(member) === true || flipped.includes(member))) return
    this.#cluster.world.note(`every in-sync copy of ${volume} may have lost what was not flushed`)
    this.#cluster.checker(volume).unflushedMayBeLost(flipped.length > 0)
  }

  /** I1, by contents: reads what every in-sync member would answer if it were elected now. */
  acknowledged(volume: string, units: readonly number[], versions: readonly number[], zero: boolean): void {
    const record = this.#cluster.record(volume)
    if (record === undefined) return
    const block = this.#block
    for (const member of record.inSync) {
      const node = this.#cluster.nodes.find(({ name }) => name === member)
      const replica = node?.engine?.replicas.get(record.id)
      const log = replica?.log
      if (log === undefined || log.state !== 'ok' || log.suspect) continue
      let loaded = -1
      for (const [at, unit] of units.entries()) {
        const wanted = Math.floor(unit / UNITS_PER_BLOCK)
        if (wanted !== loaded && !log.readLatest(wanted, block, 0)) continue
        loaded = wanted
        this.looks.members++
        const found = versionOf(block, unit % UNITS_PER_BLOCK, unit)
        const version = versions[at] ?? 0
        if (found === undefined) {
          this.#cluster.violation(`I1: ${member} holds contents of no version in unit ${unit} of ${volume}`)
        } else if (found < version && !(found === 0 && this.#zeroedSince(volume, unit, version, zero))) {
          this.#cluster.violation(
            `I1: version ${version} of unit ${unit} of ${volume} was acknowledged, in-sync ${member} has ${found}`,
          )
        }
      }
    }
  }

  /**
   * How far the volume is committed as any living in-sync copy knows. (What only others know of was lost with all
   * in-sync copies: the client's own account of it is `RegisterChecker.flushedBySession`.)
   */
  committedLsn(volume: string): number {
    const record = this.#cluster.record(volume)
    const members = this.#cluster.nodes.filter(({ name }) => record?.inSync.includes(name) === true)
    const logs = members.map(({ engine }) => record && engine?.replicas.get(record.id)?.log)
    return Math.max(0, ...logs.map((log) => log?.committedLsn ?? 0))
  }

  /**
   * I3, by positions: a flush succeeded that was asked for when the volume was committed up to `committedLsn`. Where
   * a bit has flipped, a header may be gone that was durable when the flush was done: not the flush has failed then.
   */
  flushed(volume: string, committedLsn: number): void {
    const record = this.#cluster.record(volume)
    if (record === undefined) return
    for (const member of record.inSync) {
      const node = this.#cluster.nodes.find(({ name }) => name === member)
      const log = node?.engine?.replicas.get(record.id)?.log
      if (log === undefined || log.state !== 'ok' || log.suspect || node?.platter.flipped === true) continue
      this.looks.flushes++
      if (log.durableLsn < committedLsn) {
        const what = `a flush of ${volume} at ${committedLsn} succeeded`
        this.#cluster.violation(`I3: ${what}, in-sync ${member} is durable up to ${log.durableLsn}`)
      }
    }
  }

  /** At the end, with nothing under way: every in-sync copy is byte for byte the same up to the commit position. */
  copiesAreTheSame(volume: string): string | undefined {
    const record = this.#cluster.record(volume)
    const primary = this.#cluster.primaryOf(volume)
    const own = record === undefined ? undefined : primary?.engine?.replicas.get(record.id)?.log
    if (record === undefined || own === undefined) return `volume ${volume} has no primary`
    for (const member of record.inSync) {
      const node = this.#cluster.nodes.find(({ name }) => name === member)
      const log = node?.engine?.replicas.get(record.id)?.log
      this.looks.copies++
      // Each header carries the CRC of the one before and of every block: equal ends mean equal logs.
      const same =
        log?.appendedLsn === own.appendedLsn &&
        log.lastHeaderCrc === own.lastHeaderCrc &&
        log.committedLsn === own.committedLsn &&
        log.mappedBlocks === own.mappedBlocks
      if (!same) {
        const ends = `${log?.appendedLsn}/${log?.committedLsn} against ${own.appendedLsn}/${own.committedLsn}`
        return `the copies of ${volume} on ${member} and ${primary?.name} differ: ${ends}`
      }
    }
    return undefined
  }

  #zeroedSince(volume: string, unit: number, version: number, zero: boolean): boolean {
    return zero || this.#cluster.checker(volume).zeroedSince(unit, version)
  }

  #lookAtRecord(volume: string, record: VolumeRecord): void {
    if (this.#seen.get(volume) === record) return
    this.#seen.set(volume, record)
    // A member may be left alone in sync by a transaction that was on its way when its host lost power.
    if (this.#lossy.has(volume)) this.#expectLossesOf(volume, record)
    const before = this.#epochs.get(volume) ?? 0
    if (record.epoch < before) this.#cluster.violation(`I5: epoch of ${volume} went from ${before} to ${record.epoch}`)
    this.#epochs.set(volume, record.epoch)
    if (record.inSync.length === 0) this.#cluster.violation(`I7: nobody is in sync of ${volume}`)
    for (const member of record.inSync) {
      if (!record.replicas.includes(member)) {
        this.#cluster.violation(`I7: ${member} is in sync of ${volume} without being a replica`)
      }
    }
  }

  #lookAtServing(volume: string, record: VolumeRecord): void {
    const serving: string[] = []
    for (const node of this.#cluster.nodes) {
      const replica = node.engine?.replicas.get(record.id)
      if (replica?.primary?.answersReads === true) serving.push(`${node.name} in epoch ${replica.primary.scope.epoch}`)
      const log = replica?.log
      // Damage is what was proven durable and is not there: no loss of power makes it, only a mistake of ours.
      if (log?.state === 'damaged' && !this.#cluster.nodes.some(({ platter }) => platter.flipped || platter.spoilt)) {
        const known = `ends at ${log.appendedLsn}, was durable up to ${log.damagedBelowLsn}`
        this.#cluster.violation(`I3: ${node.name} is damaged where no disk is: ${volume} ${known}`)
      }
      if (log?.state === 'rebuilding' && record.inSync.includes(node.name)) {
        this.#cluster.violation(`I7: ${node.name} is in sync of ${volume} while its copy is made anew`)
      }
      if (log !== undefined && (log.committedLsn > log.writtenLsn || log.durableLsn > log.writtenLsn)) {
        const positions = `committed ${log.committedLsn}, durable ${log.durableLsn}, written ${log.writtenLsn}`
        this.#cluster.violation(`positions of ${volume} on ${node.name} are out of order: ${positions}`)
      }
    }
    this.looks.serving += serving.length
    if (serving.length > 1) this.#cluster.violation(`I8: two primaries of ${volume} serve: ${serving.join(' and ')}`)
  }

  /** All copies are in sync and none of them lacks anything. */
  #whole(volume: string, record: VolumeRecord): boolean {
    if (!this.#cluster.healthy(volume)) return false
    return record.replicas.every((member) => {
      const node = this.#cluster.nodes.find(({ name }) => name === member)
      const log = node?.engine?.replicas.get(record.id)?.log
      return record.inSync.includes(member) && log !== undefined && log.state === 'ok' && !log.suspect
    })
  }
}
