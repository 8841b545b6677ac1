import { describe, expect, it } from 'vitest'
import { parseCoordinatorUrl } from './coordinator-url.ts'

describe('parseCoordinatorUrl', () => {
  it('reads one and several endpoints', () => {
    expect(parseCoordinatorUrl('embedded')).toEqual({ kind: 'embedded' })
    expect(parseCoordinatorUrl('etcd://a:1,10.0.0.2:2379,[::1]:3')).toEqual({
      kind: 'etcd',
      endpoints: ['a:1', '10.0.0.2:2379', '[::1]:3'],
    })
  })

  it.each(['', 'etcd', 'etcd://', 'etcd://a', 'etcd://a:0', 'etcd://a:65536', 'etcd://a:1,,b:2', 'etcd://a:1,a:1', 'http://a:1', 'etcd://a:1/x'])(
    'refuses %j',
    (text) => {
      expect(() => parseCoordinatorUrl(text)).toThrow(/coordinator/)
    },
  )
})
