import { expect, it } from 'vitest'
import { createScheduler, cryptoRandom, systemClock } from './production-ports.ts'

it('runs what is due soon after the code that asked and before any later event, in order', async () => {
  const scheduler = createScheduler()
  const order: string[] = []
  await new Promise<void>((resolve) => {
    setImmediate(() => {
      scheduler.soon(() => {
        order.push('first')
        scheduler.soon(() => {
          order.push('asked for meanwhile')
        })
      })
      scheduler.soon(() => order.push('second'))
      setImmediate(() => {
        order.push('later event')
        resolve()
      })
      order.push('asking')
    })
  })
  expect(order).toEqual(['asking', 'first', 'second', 'asked for meanwhile', 'later event'])
})

it('loses no task when one throws', async () => {
  const scheduler = createScheduler()
  const thrown: unknown[] = []
  const listeners = process.listeners('uncaughtException')
  process.removeAllListeners('uncaughtException')
  process.on('uncaughtException', (error) => thrown.push(error))
  try {
    const ran: number[] = []
    await new Promise<void>((resolve) => {
      scheduler.soon(() => ran.push(1))
      scheduler.soon(() => {
        scheduler.soon(() => {
          ran.push(3)
          resolve()
        })
        throw new Error('x')
      })
      scheduler.soon(() => ran.push(2))
    })
    expect(ran).toEqual([1, 2, 3])
    expect(thrown).toEqual([new Error('x')])
  } finally {
    process.removeAllListeners('uncaughtException')
    for (const listener of listeners) process.on('uncaughtException', listener)
  }
})

it('cancels timers, also those that have run', async () => {
  const scheduler = createScheduler()
  let ran = 0
  const cancel = scheduler.after(1, () => ran++)
  scheduler.after(1, () => ran++)
  cancel()
  const startedAt = systemClock.now()
  await new Promise<void>((resolve) => void scheduler.after(20, resolve))
  expect(ran).toBe(1)
  expect(systemClock.now() - startedAt).toBeGreaterThanOrEqual(18)
  cancel()
})

it('draws within the bounds', () => {
  for (let i = 0; i < 200; i++) {
    expect(cryptoRandom.below(3)).toBeLessThan(3)
    const large = cryptoRandom.below(2 ** 48)
    expect(Number.isSafeInteger(large) && large >= 0 && large < 2 ** 48).toBe(true)
  }
  expect(cryptoRandom.below(1)).toBe(0)
  expect(cryptoRandom.hex(16)).toMatch(/^[0-9a-f]{16}$/)
  expect(cryptoRandom.hex(7)).toMatch(/^[0-9a-f]{7}$/)
})
