import { atEndOfTurn } from '@holdfast/direct-socket'
import { expect, it } from 'vitest'
import { cryptoRandom, systemClock, systemScheduler } from './production-ports.ts'

it('runs what is due soon at the end of the turn', () => {
  expect(systemScheduler.soon).toBe(atEndOfTurn)
})

it('cancels timers, also those that have run', async () => {
  let ran = 0
  const cancel = systemScheduler.after(1, () => ran++)
  systemScheduler.after(1, () => ran++)
  cancel()
  const startedAt = systemClock.now()
  await new Promise<void>((resolve) => void systemScheduler.after(20, resolve))
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
