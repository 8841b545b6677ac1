/**
 * Mistakes to plant in the production code, each as a change of its source, with the number of seeds within which the
 * simulator must find it. A change whose place is not found exactly once is an error: the code has moved on.
 */
export interface Change {
  readonly file: string
  readonly find: string
  readonly replace: string
}
export interface Mistake {
  readonly name: string
  readonly changes: readonly Change[]
  /** Found within so many seeds from 1 on. */
  readonly seedsMax: number
  /** With several threads per node. */
  readonly shards?: boolean
  /** Only with these kinds of fault. */
  readonly kinds?: string
}

const PRIMARY = 'packages/replication/src/primary.ts'

export const MISTAKES: readonly Mistake[] = [
  {
    name: 'takes the time of the next lease for that of the one whose loss it has not heard of',
    changes: [
      {
        file: 'packages/coordinator/src/shared/lease-memory.ts',
        find: 'if (Atomics.load(this.#words, SERIAL) !== BigInt(serial) || microseconds === 0n) return NEVER',
        replace: 'if (serial < 0 || microseconds === 0n) return NEVER',
      },
    ],
    seedsMax: 1500,
    shards: true,
  },
  {
    name: 'acknowledges before the secondary',
    changes: [
      {
        file: PRIMARY,
        find: 'if (member.required && member.appendedLsn < position) position = member.appendedLsn',
        replace: '',
      },
    ],
    seedsMax: 100,
  },
  {
    name: 'skips the epoch check',
    changes: [
      {
        file: PRIMARY,
        find: 'if (record.epoch !== this.epoch || record.primary !== this.self) {',
        replace: 'if (false as boolean) {',
      },
    ],
    seedsMax: 100,
  },
  {
    name: 'elects a member that is not in sync',
    changes: [
      {
        file: 'packages/replication/src/election.ts',
        find: "if (!record.inSync.includes(self)) return wait('not in sync')",
        replace: '',
      },
      {
        file: 'packages/engine/src/replica.ts',
        find: "log.state !== 'ok' || !record.inSync.includes(self.node)) return",
        replace: "log.state !== 'ok') return",
      },
    ],
    seedsMax: 200,
  },
  {
    name: 'applies before commit',
    changes: [
      {
        file: 'packages/engine/src/local-primary.ts',
        find: 'if (!atOnce) return\n    entry.written = true',
        replace: 'if (!atOnce) return\n    entry.written = true\n    this.log.commitTo(endLsn)',
      },
    ],
    seedsMax: 100,
  },
  {
    name: 'forgets the flush of the members',
    changes: [
      {
        file: PRIMARY,
        find: 'if (member.required && member.durableLsn < position) position = member.durableLsn',
        replace: '',
      },
    ],
    seedsMax: 400,
  },
  {
    name: 'does not truncate',
    changes: [
      {
        file: 'packages/engine/src/follower.ts',
        find: "if (forkLsn === this.#log.appendedLsn && this.#log.state === 'ok') {",
        replace: "if (forkLsn <= this.#log.appendedLsn && this.#log.state === 'ok') {",
      },
    ],
    // A tail to cut is left where a primary was cut off or died; among all faults one seed in two hundred shows it.
    kinds: 'partition,isolation,coordinator-partition,process-crash,pause,move-primary',
    seedsMax: 100,
  },
  {
    name: 'drops a member after acknowledging',
    changes: [
      {
        file: PRIMARY,
        find: 'drop.push(member.node)\n    }',
        replace: 'drop.push(member.node)\n      member.required = false\n    }\n    this.#commit()',
      },
    ],
    seedsMax: 200,
  },
  {
    name: 'counts leases and promises by a clock that stands still while the machine sleeps',
    changes: [
      {
        file: 'packages/simulator/src/world.ts',
        find: 'return bootInstant(this.#world.now * this.rate)',
        replace: 'return bootInstant((this.#world.now - this.#asleepMs) * this.rate)',
      },
    ],
    kinds: 'sleep',
    seedsMax: 100,
  },
  {
    name: 'counts a lease from its reply, for as long again',
    changes: [
      {
        file: 'packages/simulator/src/sim-coordinator.ts',
        find: 'this.#validUntil = bootInstant(sentAt + this.#ttlMs)',
        replace: 'this.#validUntil = bootInstant(this.#clock.sinceBoot() + 2 * this.#ttlMs)',
      },
    ],
    seedsMax: 400,
  },
  {
    name: 'flushes without asking whether it holds what earlier primaries had answered',
    changes: [
      {
        file: 'packages/engine/src/local-primary.ts',
        find: 'const missing = acknowledged.find((position) => !this.log.holds(position))',
        replace: 'const missing = acknowledged.find(() => false)',
      },
    ],
    // All copies must lose what a client was told; among all faults one seed in two hundred shows it.
    kinds: 'power-loss,host-crash,process-crash',
    seedsMax: 400,
  },
  {
    name: 'believes a soft checkpoint after the host has lost its page cache',
    changes: [
      {
        file: 'packages/volume-log/src/found-checkpoints.ts',
        find: 'const believed = !meta.value.clean && meta.value.bootId === options.bootId',
        replace: 'const believed = !meta.value.clean',
      },
      {
        file: 'packages/volume-log/src/checkpoint-codec.ts',
        find: 'for (let i = 0; i < BLOCK_BYTES; i++) if (source[i] !== expected[i]) return undefined',
        replace: 'if (expected.length === 0) return undefined',
      },
    ],
    seedsMax: 400,
    // Among all kinds of fault it shows once in a thousand seeds.
    kinds: 'power-loss',
  },
  {
    name: 'flushes over the hole that soft checkpoints have left',
    changes: [
      {
        file: 'packages/volume-log/src/flusher.ts',
        find: 'if (!this.#core.hasHole) return this.#round()',
        replace: 'if (true as boolean) return this.#round()',
      },
      {
        file: 'packages/volume-log/src/flusher.ts',
        find: 'if (!this.#core.hasHole && this.#core.segments.anyDirty) this.#round()',
        replace: 'if (this.#core.segments.anyDirty) this.#round()',
      },
      {
        file: 'packages/volume-log/src/flusher.ts',
        find: "assert(!core.hasHole, 'flush over a hole in the log')",
        replace: '',
      },
    ],
    seedsMax: 800,
  },
  {
    name: 'softly frees what a flush has made durable',
    changes: [
      {
        file: 'packages/volume-log/src/checkpoint-writer.ts',
        find: 'const limit = Math.max(lastCheckpoint.lsn, durableLsn, meta.value.durableLsn)',
        replace: 'const limit = Math.min(lastCheckpoint.lsn, durableLsn + meta.value.durableLsn + 1e9)',
      },
      {
        file: 'packages/volume-log/src/maintenance.ts',
        find: 'const limit = Math.max(durableEnd, durableLsn, meta.value.durableLsn)',
        replace: 'const limit = durableEnd',
      },
    ],
    seedsMax: 800,
  },
  {
    name: 'trusts a grant longer than it was given',
    changes: [
      {
        file: 'packages/engine/src/grants.ts',
        find: 'after(asked.sentAt, grant.durationMs * (1 - CLOCK_RATE_MARGIN))',
        replace: 'after(asked.sentAt, grant.durationMs * 3)',
      },
    ],
    seedsMax: 400,
  },
  {
    name: 'gives what it can not read for read',
    changes: [
      {
        file: 'packages/volume-log/src/reader.ts',
        find: 'if (run.blockCount === 1) return done(this.#damaged(run, 0, 1))',
        replace: 'if (run.blockCount === 1) return done(undefined)',
      },
    ],
    seedsMax: 800,
    kinds: 'bad-sector,process-crash',
  },
]
