import type { LookupAddress } from 'node:dns'
import { describe, expect, it, vi } from 'vitest'
import { type Resolve, sharedLookup } from './shared-lookup.ts'

type Answer = Parameters<Resolve>[2]
const AT: LookupAddress[] = [{ address: '10.0.0.1', family: 4 }]

function bed() {
  const questions: { name: string; answer: Answer }[] = []
  const lookup = sharedLookup((name, _options, answer) => void questions.push({ name, answer }))
  const answers: unknown[] = []
  const ask = (name: string, all = true): void =>
    lookup(name, { all }, (error, address) => void answers.push(error?.code ?? address))
  return { questions, answers, ask }
}

describe('sharedLookup', () => {
  it('asks once per name at a time, and answers everybody', () => {
    const { questions, answers, ask } = bed()
    for (const name of ['a', 'a', 'b', 'a']) ask(name)
    expect(questions.map(({ name }) => name)).toEqual(['a', 'b'])
    questions[0]?.answer(null, AT)
    expect(answers).toEqual([AT, AT, AT])
    ask('a', false)
    expect(questions.length).toBe(3)
    questions[2]?.answer(null, AT)
    expect(answers[3]).toBe('10.0.0.1')
  })

  it('hands errors on, and does not keep them', () => {
    const { questions, answers, ask } = bed()
    ask('a')
    questions[0]?.answer(Object.assign(new Error('no such name'), { code: 'ENOTFOUND' }), [])
    ask('a')
    questions[1]?.answer(null, AT)
    expect(answers).toEqual(['ENOTFOUND', AT])
  })

  it('goes by what was known when the resolver is slow', () => {
    vi.useFakeTimers()
    try {
      const { questions, answers, ask } = bed()
      ask('a')
      vi.advanceTimersByTime(1000)
      expect(answers).toEqual([])
      questions[0]?.answer(null, AT)
      ask('a')
      vi.advanceTimersByTime(1000)
      expect(answers).toEqual([AT, AT])
      questions[1]?.answer(null, AT)
      expect(answers.length).toBe(2)
    } finally {
      vi.useRealTimers()
    }
  })
})
