import type { ReplicaLog } from '@holdfast/volume-log'
import { expect, it } from 'vitest'
import { ManualScheduler } from '../../volume-log/src/testing/manual-scheduler.ts'
import type { NodeContext } from './context.ts'
import { RestRation } from './rest-ration.ts'
import { Upkeep } from './upkeep.ts'

const ROUND_MS = 1_000

/** A copy that rests: nobody ticks it but its own upkeep. */
class Copy {
  readonly scheduler = new ManualScheduler()
  readonly rounds: number[] = []
  readonly upkeep: Upkeep
  closed = false
  #grew = false
  readonly #log = {
    quietRounds: 0,
    maintenance: () => {
      this.rounds.push(Math.round(this.scheduler.now))
      this.#log.quietRounds = this.#grew ? 0 : this.#log.quietRounds + 1
      this.#grew = false
    },
  }

  constructor() {
    const context = {
      clock: { now: () => this.scheduler.now },
      scheduler: this.scheduler,
      settings: { maintenanceMs: ROUND_MS },
      rests: new RestRation(),
    } as unknown as NodeContext
    this.upkeep = new Upkeep(context, () => {
      if (this.closed) return undefined
      const log = this.#log as unknown as ReplicaLog
      this.upkeep.round(log)
      return log
    })
  }

  append(): void {
    this.#grew = true
    this.upkeep.grows()
  }

  /** Appends every millisecond for so long. */
  stream(ms: number): void {
    const end = this.scheduler.now + ms
    const again = (): void => {
      this.append()
      if (this.scheduler.now < end) this.scheduler.after(1, again)
    }
    again()
    this.scheduler.run(() => this.scheduler.now >= end)
  }
}

it('has a round a second while a log grows, two more, and then none', () => {
  const copy = new Copy()
  copy.stream(5_500)
  expect(copy.rounds.length).toBe(5)
  copy.scheduler.run()
  expect(copy.rounds.length).toBe(8)
  for (let i = 1; i < copy.rounds.length; i++) {
    expect((copy.rounds[i] as number) - (copy.rounds[i - 1] as number)).toBeGreaterThanOrEqual(ROUND_MS)
  }
  copy.append()
  copy.scheduler.run()
  expect(copy.rounds.length).toBe(11)
})

it('ends with the copy', () => {
  const copy = new Copy()
  copy.stream(1_500)
  copy.closed = true
  copy.scheduler.run()
  expect(copy.rounds.length).toBe(1)
})
