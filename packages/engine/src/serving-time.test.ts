import { bootInstant, type Clock, instant, type Scheduler } from '@holdfast/base'
import { beforeEach, describe, expect, it } from 'vitest'
import { ServingTime } from './serving-time.ts'

describe('[I8] the time in which a primary serves', () => {
  let sinceBoot: number
  let looks: number
  let ends: (() => void)[]
  let time: ServingTime
  const endTurn = (): void => {
    for (const task of ends.splice(0)) task()
  }

  beforeEach(() => {
    sinceBoot = 100
    looks = 0
    ends = []
    const clock: Clock = {
      now: () => instant(0),
      sinceBoot: () => {
        looks++
        return bootInstant(sinceBoot)
      },
      wallMs: () => 0,
    }
    const scheduler: Scheduler = { after: () => () => {}, soon: (task) => void ends.push(task) }
    time = new ServingTime(clock, scheduler)
  })

  it('is over before anything is known', () => {
    expect([time.now, time.inTurn]).toEqual([false, false])
  })

  it('is looked at once in a turn, and again in each', () => {
    time.set(bootInstant(200))
    expect([time.inTurn, time.inTurn, time.inTurn]).toEqual([true, true, true])
    expect(looks).toBe(1)
    endTurn()
    // The machine has slept, perhaps.
    sinceBoot = 200
    expect([time.inTurn, time.now]).toEqual([false, false])
    sinceBoot = 199
    expect(time.inTurn).toBe(true)
  })

  it('counts for all of a turn as of the first look, and not by the clock alone', () => {
    time.set(bootInstant(200))
    expect(time.inTurn).toBe(true)
    sinceBoot = 300
    expect([time.inTurn, time.now]).toEqual([true, false])
    endTurn()
    expect(time.inTurn).toBe(false)
  })

  it('is looked at again in the same turn where less is known', () => {
    time.set(bootInstant(200))
    expect(time.inTurn).toBe(true)
    time.set(bootInstant(50))
    expect(time.inTurn).toBe(false)
    time.set(bootInstant(200))
    expect(time.inTurn).toBe(true)
    // The end of the turn was asked for twice.
    endTurn()
    sinceBoot = 200
    expect(time.inTurn).toBe(false)
  })
})
