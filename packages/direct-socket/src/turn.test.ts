import { expect, it } from 'vitest'
import { atEndOfTurn, beginTurn, breakTurn, endTurn } from './turn.ts'

it('ends right after the code that asked and before any later event, in order', async () => {
  const order: string[] = []
  await new Promise<void>((resolve) => {
    setImmediate(() => {
      atEndOfTurn(() => {
        order.push('first')
        atEndOfTurn(() => order.push('asked for meanwhile'))
      })
      atEndOfTurn(() => order.push('second'))
      setImmediate(() => {
        order.push('later event')
        resolve()
      })
      order.push('asking')
    })
  })
  expect(order).toEqual(['asking', 'first', 'second', 'asked for meanwhile', 'later event'])
})

it('ends where it is said to, with nothing left over', async () => {
  const order: string[] = []
  beginTurn()
  atEndOfTurn(() => order.push('a task'))
  order.push('asking')
  endTurn()
  expect(order).toEqual(['asking', 'a task'])
  await new Promise((resolve) => setImmediate(resolve))
  expect(order).toHaveLength(2)
  // The next one is none of that turn's.
  atEndOfTurn(() => order.push('another'))
  expect(order).toHaveLength(2)
  await new Promise((resolve) => setImmediate(resolve))
  expect(order.at(-1)).toBe('another')
})

it('loses no task when one throws', async () => {
  const thrown: unknown[] = []
  const listeners = process.listeners('uncaughtException')
  process.removeAllListeners('uncaughtException')
  process.on('uncaughtException', (error) => thrown.push(error))
  try {
    const ran: number[] = []
    await new Promise<void>((resolve) => {
      atEndOfTurn(() => ran.push(1))
      atEndOfTurn(() => {
        atEndOfTurn(() => {
          ran.push(3)
          resolve()
        })
        throw new Error('x')
      })
      atEndOfTurn(() => ran.push(2))
    })
    expect(ran).toEqual([1, 2, 3])
    expect(thrown).toEqual([new Error('x')])
  } finally {
    process.removeAllListeners('uncaughtException')
    for (const listener of listeners) process.on('uncaughtException', listener)
  }
})

it('loses none when one throws in a turn that ends where it is said to, and that turn is over', async () => {
  const ran: number[] = []
  beginTurn()
  atEndOfTurn(() => ran.push(1))
  atEndOfTurn(() => {
    atEndOfTurn(() => ran.push(3))
    throw new Error('x')
  })
  atEndOfTurn(() => ran.push(2))
  expect(endTurn).toThrow('x')
  expect(ran).toEqual([1])
  await new Promise((resolve) => setImmediate(resolve))
  expect(ran).toEqual([1, 2, 3])
  atEndOfTurn(() => ran.push(4))
  await new Promise((resolve) => setImmediate(resolve))
  expect(ran).toEqual([1, 2, 3, 4])
})

it('does nothing of a turn that broke before the process has had the chance to end for it', async () => {
  const order: string[] = []
  beginTurn()
  atEndOfTurn(() => order.push('a task'))
  breakTurn()
  order.push('what was thrown is handled')
  await new Promise((resolve) => setImmediate(resolve))
  expect(order).toEqual(['what was thrown is handled', 'a task'])
  beginTurn()
  breakTurn()
  atEndOfTurn(() => order.push('another'))
  await new Promise((resolve) => setImmediate(resolve))
  expect(order.at(-1)).toBe('another')
})

it('loses nothing where a turn begins and ends within a task', () => {
  const order: number[] = []
  beginTurn()
  atEndOfTurn(() => order.push(1))
  atEndOfTurn(() => {
    beginTurn()
    atEndOfTurn(() => order.push(3))
    endTurn()
    order.push(2)
    atEndOfTurn(() => order.push(4))
  })
  endTurn()
  expect(order).toEqual([1, 2, 3, 4])
})
