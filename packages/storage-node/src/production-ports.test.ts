import { execFileSync, spawnSync } from 'node:child_process'
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

/** In a time namespace, whose machine seems to have slept for a day: only root may have one. */
const asleep = ['--time', '--boottime=86400', '--fork', '--']
const mayPretend = spawnSync('unshare', [...asleep, 'true']).status === 0

it.skipIf(!mayPretend)('counts the time that the machine slept for leases and promises, and for nothing else', () => {
  const code = `
    import(${JSON.stringify(new URL('production-ports.ts', import.meta.url).href)}).then(({ systemClock }) => {
      const [uptime] = require('node:fs').readFileSync('/proc/uptime', 'utf8').split(' ')
      const [seconds] = process.hrtime()
      console.log(JSON.stringify({ uptime: Number(uptime), sinceBoot: systemClock.sinceBoot() / 1000, awake: seconds, now: systemClock.now() / 1000 }))
    })`
  const node = [process.execPath, '--conditions=@holdfast/source', '--import', 'tsx', '-e', code]
  const { uptime, sinceBoot, awake, now } = JSON.parse(execFileSync('unshare', [...asleep, ...node], { encoding: 'utf8' }))
  expect(Math.abs(sinceBoot - uptime)).toBeLessThan(5)
  expect(sinceBoot - awake).toBeGreaterThan(86_000)
  expect(now).toBeLessThan(60)
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
