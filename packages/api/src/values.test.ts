import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  checkName,
  formatBytes,
  parseFailureMode,
  parseLabels,
  parseSize,
  parseVolumeName,
} from './values.ts'

describe('sizes', () => {
  it.each([
    ['1GiB', 2 ** 30],
    ['1G', 2 ** 30],
    ['1gib', 2 ** 30],
    ['500MB', 500_002_816],
    ['1.5MiB', 1_572_864],
    ['1048576', 1_048_576],
    ['1048577', 1_052_672],
    ['2097152B', 2_097_152],
    [' 64 TiB ', 64 * 2 ** 40],
  ])('reads %s', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes)
  })

  it.each([
    '',
    'GiB',
    '1XB',
    '-1GiB',
    '1e9',
    '1.5',
    '1iB',
    '1048576.5B',
    '1GiBx',
    'NaN',
    '0x100000',
  ])('refuses %j', (text) => {
    expect(() => parseSize(text)).toThrow('is no size')
  })

  it('has bounds', () => {
    expect(() => parseSize('1MB')).toThrow('too small')
    expect(() => parseSize('0')).toThrow('too small')
    expect(() => parseSize('65TiB')).toThrow('too large')
    expect(() => parseSize('99999999999999999999TiB')).toThrow('too large')
  })

  it('are whole blocks and never less than asked for', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2 ** 20, max: 2 ** 46 }), (bytes) => {
        const size = parseSize(String(bytes))
        expect(size % 4096).toBe(0)
        expect(size - bytes).toBeGreaterThanOrEqual(0)
        expect(size - bytes).toBeLessThan(4096)
      }),
    )
  })

  it('are written for people', () => {
    expect([0, 1023, 1024, 1536, 10 * 2 ** 30, 12_345_678, 2 ** 20 - 1].map(formatBytes)).toEqual([
      '0 B',
      '1023 B',
      '1 KiB',
      '1.5 KiB',
      '10 GiB',
      '11.8 MiB',
      '1 MiB',
    ])
  })
})

describe('names', () => {
  it('have a namespace or not', () => {
    expect(parseVolumeName('data')).toEqual({ namespace: 'default', name: 'data' })
    expect(parseVolumeName('data', 'shop')).toEqual({ namespace: 'shop', name: 'data' })
    expect(parseVolumeName('shop/data')).toEqual({ namespace: 'shop', name: 'data' })
  })

  it.each(['', 'a/b/c', '/a', 'a/', 'A/b', '.a', 'a..b', 'ä', 'a b', 'a'.repeat(129)])(
    'refuse %j',
    (text) => {
      expect(() => parseVolumeName(text)).toThrow(/ is no (volume|namespace)/)
    },
  )

  it('may be 63 long', () => {
    expect(checkName('volume name', 'A'.repeat(128))).toBe('A'.repeat(128))
  })
})

it('reads labels and failure modes', () => {
  expect(parseLabels(['zone=a', 'note=x=y', 'empty='])).toEqual({
    zone: 'a',
    note: 'x=y',
    empty: '',
  })
  expect(() => parseLabels(['zone'])).toThrow('write key=value')
  expect(() => parseLabels(['a=1', 'a=2'])).toThrow('given twice')
  expect(() => parseLabels(['a b=1'])).toThrow('is no label name')
  expect(parseFailureMode('threshold=2')).toEqual({ kind: 'threshold', inSyncMin: 2 })
  expect(parseFailureMode('hard')).toEqual({ kind: 'hard' })
  expect(() => parseFailureMode('threshold=0')).toThrow('is no failure mode')
})
