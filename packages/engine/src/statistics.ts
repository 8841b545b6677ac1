/** Counters of one node, kept on the hot path without allocation and read by the metrics endpoint. */
import { WIDE } from '@holdfast/base'
import type { EngineStatistics, OperationStatistics } from '@holdfast/base'

export type CountedOperation = 'read' | 'write' | 'zero' | 'flush'
const OPERATIONS: readonly CountedOperation[] = ['read', 'write', 'zero', 'flush']
/** Bucket i ends at 2^i * 16 microseconds. */
const BUCKETS = 20

export class OperationCounter {
  count = 0
  bytes = WIDE
  errors = 0
  latencySumMs = WIDE
  readonly buckets = new Float64Array(BUCKETS)

  constructor() {
    this.bytes = 0
    this.latencySumMs = 0
  }

  add(bytes: number, latencyMs: number): void {
    this.count++
    this.bytes += bytes
    this.latencySumMs += latencyMs
    const scaled = (latencyMs * 1000) / 16
    const bucket = scaled <= 1 ? 0 : Math.min(BUCKETS - 1, 32 - Math.clz32(scaled | 0))
    this.buckets[bucket] = (this.buckets[bucket] as number) + 1
  }
}

export type VolumeCounters = Readonly<Record<CountedOperation, OperationCounter>>

export class Statistics {
  epochChanges = 0
  relayedRequests = 0
  damagedBlocks = 0
  membersDropped = 0
  membersAdded = 0
  readonly #volumes = new Map<string, VolumeCounters>()

  volume(name: string): VolumeCounters {
    let counters = this.#volumes.get(name)
    if (counters === undefined) {
      counters = {
        read: new OperationCounter(),
        write: new OperationCounter(),
        zero: new OperationCounter(),
        flush: new OperationCounter(),
      }
      this.#volumes.set(name, counters)
    }
    return counters
  }

  forget(name: string): void {
    this.#volumes.delete(name)
  }

  snapshot(): EngineStatistics {
    const operations: OperationStatistics[] = []
    for (const [volume, counters] of this.#volumes) {
      for (const operation of OPERATIONS) {
        const counter = counters[operation]
        operations.push({
          volume,
          operation,
          count: counter.count,
          bytes: counter.bytes,
          errors: counter.errors,
          latencyBuckets: Array.from(counter.buckets),
          latencySumSeconds: counter.latencySumMs / 1000,
        })
      }
    }
    return {
      operations,
      epochChanges: this.epochChanges,
      relayedRequests: this.relayedRequests,
      damagedBlocks: this.damagedBlocks,
      membersDropped: this.membersDropped,
      membersAdded: this.membersAdded,
    }
  }
}
