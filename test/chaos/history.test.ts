/** The check of the chaos harness must be able to fail: histories with faults that a store could have. */
import { describe, expect, it } from 'vitest'
import { History } from './history.ts'

interface Outcome {
  readonly violations: readonly string[]
  readonly errors: readonly number[]
  readonly history: History
}

/** Lines `client: line` in any order of arrival; all clients are known to have told everything. */
function check(...lines: readonly string[]): Outcome {
  const violations: string[] = []
  const errors: number[] = []
  const history = new History({
    violation: (text) => violations.push(text),
    errorReply: (_client, errno) => errors.push(errno),
  })
  for (const client of [0, 1]) history.add(client)
  for (const line of lines) history.line(Number(line[0]), line.slice(3))
  for (const client of [0, 1]) history.ended(client)
  history.advance()
  return { violations, errors, history }
}

const WRITTEN = ['0: W 10 1 7 1 -', '0: c 20 1', '0: W 30 2 7 2 -', '0: c 40 2']

describe('a history', () => {
  it('without a fault has no violation', () => {
    const { violations, history } = check(...WRITTEN, '1: R 50 1 7', '1: c 60 1 2')
    expect(violations).toEqual([])
    expect(history.checker.acknowledgedWrites).toBe(2)
    expect(history.checker.reads).toBe(1)
    expect(history.settledVersion(7)).toBe(2)
  })

  it('shows a lost write', () => {
    const { violations } = check(...WRITTEN, '1: R 50 1 7', '1: c 60 1 1')
    expect(violations).toHaveLength(1)
    expect(violations[0]).toContain('block 7: read version 1 after 2')
  })

  it('shows a block that lost everything', () => {
    expect(check(...WRITTEN, '1: R 50 1 7', '1: c 60 1 z').violations[0]).toContain('read zeroes after version 2')
  })

  it('shows a read that goes back behind what another client saw', () => {
    const lines = ['0: W 10 1 7 1 -', '1: R 20 1 7', '1: c 30 1 1', '0: R 40 2 7', '0: c 50 2 z']
    expect(check(...lines).violations).toHaveLength(1)
  })

  it('shows contents of another block, torn ones, and a version of the future', () => {
    expect(check('1: R 50 1 7', '1: b 60 1 head 8').violations[0]).toContain('what nobody wrote')
    expect(check(...WRITTEN, '1: R 50 1 7', '1: c 60 1 3').violations[0]).toContain('never written')
  })

  it('permits both outcomes of a write that was not answered, and only one after it was seen', () => {
    const open = ['0: W 10 1 7 1 -', '0: c 20 1', '0: W 30 2 7 2 -', '0: u 40']
    const once = (seen: number): readonly string[] => check(...open, '1: R 50 1 7', `1: c 60 1 ${seen}`).violations
    expect(once(1)).toEqual([])
    expect(once(2)).toEqual([])
    expect(check(...open, '1: R 50 1 7', '1: c 60 1 2', '1: R 70 2 7', '1: c 80 2 1').violations).toHaveLength(1)
    expect(check(...open).history.unknown).toBe(1)
  })

  it('permits the older version while the newer write is under way', () => {
    const lines = ['0: W 10 1 7 1 -', '0: c 20 1', '1: R 25 1 7', '0: W 30 2 7 2 -', '0: c 40 2', '1: c 50 1 1']
    expect(check(...lines).violations).toEqual([])
  })

  it('orders by time what arrives out of order', () => {
    const lines = ['1: R 50 1 7', '1: c 60 1 1', ...WRITTEN]
    expect(check(...lines).violations).toHaveLength(1)
  })

  it('tells about error replies', () => {
    expect(check('0: W 10 1 7 1 -', '0: e 20 1 28').errors).toEqual([28])
  })

  it('waits for the client that has told least', () => {
    const violations: string[] = []
    const history = new History({ violation: (text) => violations.push(text), errorReply: () => {} })
    for (const client of [0, 1]) history.add(client)
    history.line(1, 'R 50 1 7')
    history.line(1, 'c 60 1 z')
    history.advance()
    expect(violations).toEqual([])
    for (const line of ['W 10 1 7 1 -', 'c 20 1', 't 100']) history.line(0, line)
    history.line(1, 't 100')
    history.advance()
    expect(violations).toHaveLength(1)
  })
})
