import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { readU16, readU32 } from './bytes.ts'
import * as nbd from './constants.ts'
import { Handshake, OPTION_BYTES_MAX } from './handshake.ts'
import { concat, open, option, optionReplies, queries, u16, u32 } from './testing/client-bytes.ts'
import { FakeCatalog } from './testing/fake-session.ts'
import { decodeUtf8, encodeUtf8 } from './utf8.ts'

const volume = { name: 'vol', description: 'two copies', sizeBytes: 10_000, readOnly: false }
const fixed = u32(nbd.NBD_FLAG_C_FIXED_NEWSTYLE | nbd.NBD_FLAG_C_NO_ZEROES)

function started(catalog = new FakeCatalog(volume)): Handshake {
  return new Handshake(catalog, () => undefined)
}

/** Feeds the client's flags and options; the replies behind the greeting. */
function negotiate(...pieces: Uint8Array[]): { handshake: Handshake; output: Uint8Array } {
  const handshake = started()
  const input = concat(fixed, ...pieces)
  handshake.receive(input, 0, input.length)
  return { handshake, output: handshake.takeOutput()?.subarray(18) ?? new Uint8Array(0) }
}

function replyTypes(...pieces: Uint8Array[]): number[] {
  return optionReplies(negotiate(...pieces).output).map(({ type }) => type)
}

describe('greeting and client flags', () => {
  test('the server speaks first: magics, fixed newstyle, no zeroes', () => {
    const greeting = started().takeOutput() as Uint8Array
    expect(new TextDecoder().decode(greeting.subarray(0, 16))).toBe('NBDMAGICIHAVEOPT')
    expect(readU16(greeting, 16)).toBe(3)
    expect(greeting.length).toBe(18)
  })

  test('an unknown client flag ends the session', () => {
    const handshake = started()
    handshake.receive(u32(5), 0, 4)
    expect(handshake.state.kind).toBe('ended')
  })

  test('an option without its magic ends the session', () => {
    const { handshake } = negotiate(new Uint8Array(16))
    expect(handshake.state.kind).toBe('ended')
  })
})

describe('options', () => {
  test('unknown options, STARTTLS among them, are unsupported and the session goes on', () => {
    const types = replyTypes(
      option(nbd.NBD_OPT_STARTTLS),
      option(4711, new Uint8Array(100)),
      option(4),
      option(nbd.NBD_OPT_LIST),
    )
    const unsupported = nbd.NBD_REP_ERR_UNSUP
    expect(types).toEqual([unsupported, unsupported, unsupported, nbd.NBD_REP_SERVER, nbd.NBD_REP_ACK])
  })

  test('LIST names each export with its description, and takes no data', () => {
    const [server] = optionReplies(negotiate(option(nbd.NBD_OPT_LIST)).output)
    const data = server?.data as Uint8Array
    expect(readU32(data, 0)).toBe(3)
    expect(decodeUtf8(data, 4, data.length)).toBe('voltwo copies')
    expect(replyTypes(option(nbd.NBD_OPT_LIST, u16(0)))).toEqual([nbd.NBD_REP_ERR_INVALID])
  })

  test('ABORT is acknowledged, also with data, and ends the session', () => {
    const { handshake, output } = negotiate(option(nbd.NBD_OPT_ABORT, u32(1)))
    expect(optionReplies(output).map(({ type }) => type)).toEqual([nbd.NBD_REP_ACK])
    expect(handshake.state.kind).toBe('ended')
  })

  test('EXPORT_NAME answers size and flags, with 124 zeroes unless they were declined', () => {
    for (const [flags, length] of [[1, 134], [3, 10]] as const) {
      const handshake = started()
      handshake.takeOutput()
      const input = concat(u32(flags), option(nbd.NBD_OPT_EXPORT_NAME, encodeUtf8('vol')))
      handshake.receive(input, 0, input.length)
      const reply = handshake.takeOutput() as Uint8Array
      expect(reply.length).toBe(length)
      expect(readU32(reply, 4)).toBe(10_000)
      expect(handshake.state.kind).toBe('transmission')
    }
  })

  test('EXPORT_NAME of an unknown export, or with extended headers, ends the session', () => {
    const unknown = negotiate(option(nbd.NBD_OPT_EXPORT_NAME, encodeUtf8('none')))
    expect(unknown.handshake.state.kind).toBe('ended')
    expect(unknown.output.length).toBe(0)
    const extended = negotiate(
      option(nbd.NBD_OPT_EXTENDED_HEADERS),
      option(nbd.NBD_OPT_EXPORT_NAME, encodeUtf8('vol')),
    )
    expect(extended.handshake.state.kind).toBe('ended')
  })

  test('GO answers what was asked for and begins the transmission; the rest is left', () => {
    const infos = [nbd.NBD_INFO_NAME, nbd.NBD_INFO_DESCRIPTION, nbd.NBD_INFO_BLOCK_SIZE, 99]
    const handshake = started()
    handshake.takeOutput()
    const go = concat(fixed, option(nbd.NBD_OPT_GO, open('', ...infos)))
    const input = concat(go, new Uint8Array(5))
    expect(handshake.receive(input, 0, input.length)).toBe(go.length)
    const found = optionReplies(handshake.takeOutput() as Uint8Array)
    expect(found.map(({ type }) => type)).toEqual([3, 3, 3, 3, 1])
    expect(found.slice(0, 4).map(({ data }) => readU16(data, 0))).toEqual([0, 1, 2, 3])
    const sizes = found[3]?.data as Uint8Array
    expect([2, 6, 10].map((at) => readU32(sizes, at))).toEqual([1, 4096, 32 * 1024 * 1024])
    expect(handshake.state.kind).toBe('transmission')
  })

  test('INFO stays in the handshake and opens nothing', () => {
    const catalog = new FakeCatalog(volume)
    const handshake = started(catalog)
    handshake.takeOutput()
    const input = concat(fixed, option(nbd.NBD_OPT_INFO, open('vol')))
    handshake.receive(input, 0, input.length)
    const found = optionReplies(handshake.takeOutput() as Uint8Array)
    expect(found.map(({ type }) => type)).toEqual([nbd.NBD_REP_INFO, nbd.NBD_REP_ACK])
    expect(handshake.state.kind).toBe('negotiating')
    expect(catalog.opened).toBeUndefined()
  })

  test('GO of an unknown export is refused, and malformed data is invalid', () => {
    expect(replyTypes(option(nbd.NBD_OPT_GO, open('none')))).toEqual([nbd.NBD_REP_ERR_UNKNOWN])
    const bad = [
      new Uint8Array(5),
      concat(u32(100), encodeUtf8('vol'), u16(0)),
      concat(open('vol'), u16(1)),
      concat(u32(3), Uint8Array.of(0xff, 0xfe, 0xfd), u16(0)),
      concat(u32(3), Uint8Array.of(0x61, 0, 0x62), u16(0)),
    ]
    for (const data of bad) {
      expect(replyTypes(option(nbd.NBD_OPT_GO, data))).toEqual([nbd.NBD_REP_ERR_INVALID])
    }
  })

  test('transmission flags follow the export and what was negotiated', () => {
    const flagsOf = (readOnly: boolean, ...pieces: Uint8Array[]): number => {
      const handshake = started(new FakeCatalog({ ...volume, readOnly }))
      handshake.takeOutput()
      const input = concat(fixed, ...pieces, option(nbd.NBD_OPT_INFO, open('vol')))
      handshake.receive(input, 0, input.length)
      const found = optionReplies(handshake.takeOutput() as Uint8Array)
      const info = found.find(({ type }) => type === nbd.NBD_REP_INFO)
      return readU16(info?.data as Uint8Array, 10)
    }
    const structured = option(nbd.NBD_OPT_STRUCTURED_REPLY)
    const extended = option(nbd.NBD_OPT_EXTENDED_HEADERS)
    const context = option(nbd.NBD_OPT_SET_META_CONTEXT, queries('vol', 'base:allocation'))
    const plain = 1 | 4 | 8 | 32 | 64 | 256 | 1024 | 2048
    expect(flagsOf(false)).toBe(plain)
    expect(flagsOf(true)).toBe(1 | 2 | 4 | 8 | 256 | 1024)
    expect(flagsOf(false, structured)).toBe(plain | nbd.NBD_FLAG_SEND_DF)
    expect(flagsOf(false, structured, context)).toBe(plain | nbd.NBD_FLAG_SEND_DF)
    expect(flagsOf(false, extended, context)).toBe(
      plain | nbd.NBD_FLAG_SEND_DF | nbd.NBD_FLAG_BLOCK_STATUS_PAYLOAD,
    )
  })

  test('STRUCTURED_REPLY and EXTENDED_HEADERS take no data; the latter precedes', () => {
    expect(replyTypes(option(nbd.NBD_OPT_STRUCTURED_REPLY, u16(1)))).toEqual([nbd.NBD_REP_ERR_INVALID])
    expect(replyTypes(option(nbd.NBD_OPT_EXTENDED_HEADERS, u16(1)))).toEqual([nbd.NBD_REP_ERR_INVALID])
    expect(
      replyTypes(option(nbd.NBD_OPT_EXTENDED_HEADERS), option(nbd.NBD_OPT_STRUCTURED_REPLY)),
    ).toEqual([nbd.NBD_REP_ACK, nbd.NBD_REP_ERR_EXT_HEADER_REQD])
  })

  test('option data that is too long is skipped, or ends the session', () => {
    const long = new Uint8Array(OPTION_BYTES_MAX + 1)
    expect(replyTypes(option(nbd.NBD_OPT_LIST, long), option(nbd.NBD_OPT_LIST))).toEqual([
      nbd.NBD_REP_ERR_TOO_BIG,
      nbd.NBD_REP_SERVER,
      nbd.NBD_REP_ACK,
    ])
    const name = negotiate(option(nbd.NBD_OPT_EXPORT_NAME, long))
    expect(name.handshake.state.kind).toBe('ended')
    const header = concat(u32(nbd.IHAVEOPT_HIGH), u32(nbd.IHAVEOPT_LOW), u32(3), u32(0xffffffff))
    expect(negotiate(header).handshake.state.kind).toBe('ended')
  })

  test('during a shutdown options are refused, ABORT is not', () => {
    const handshake = started()
    handshake.takeOutput()
    handshake.shutDown()
    const input = concat(fixed, option(nbd.NBD_OPT_LIST), option(nbd.NBD_OPT_ABORT))
    handshake.receive(input, 0, input.length)
    const found = optionReplies(handshake.takeOutput() as Uint8Array).map(({ type }) => type)
    expect(found).toEqual([nbd.NBD_REP_ERR_SHUTDOWN, nbd.NBD_REP_ACK])
  })
})

describe('meta contexts', () => {
  const list = nbd.NBD_OPT_LIST_META_CONTEXT
  const set = nbd.NBD_OPT_SET_META_CONTEXT
  const structured = option(nbd.NBD_OPT_STRUCTURED_REPLY)
  const after = (...pieces: Uint8Array[]): number[] => replyTypes(structured, ...pieces).slice(1)
  const { NBD_REP_ACK, NBD_REP_META_CONTEXT, NBD_REP_ERR_INVALID, NBD_REP_ERR_UNKNOWN } = nbd

  test('need structured replies first', () => {
    expect(replyTypes(option(list, queries('vol')))).toEqual([NBD_REP_ERR_INVALID])
    expect(replyTypes(option(set, queries('vol', 'base:allocation')))).toEqual([NBD_REP_ERR_INVALID])
  })

  test('no query or the wildcard lists all, but selects nothing', () => {
    expect(after(option(list, queries('vol')))).toEqual([NBD_REP_META_CONTEXT, NBD_REP_ACK])
    expect(after(option(list, queries('vol', 'base:')))).toEqual([NBD_REP_META_CONTEXT, NBD_REP_ACK])
    expect(after(option(set, queries('vol')))).toEqual([NBD_REP_ACK])
    expect(after(option(set, queries('vol', 'base:')))).toEqual([NBD_REP_ACK])
  })

  test('unknown contexts are ignored, malformed ones are invalid', () => {
    expect(after(option(set, queries('vol', 'qemu:dirty', 'base:other')))).toEqual([NBD_REP_ACK])
    expect(after(option(set, queries('vol', 'nocolon')))).toEqual([NBD_REP_ERR_INVALID])
    expect(after(option(set, queries('none', 'base:allocation')))).toEqual([NBD_REP_ERR_UNKNOWN])
    const cut = queries('vol', 'base:allocation').subarray(0, 20)
    expect(after(option(set, cut))).toEqual([NBD_REP_ERR_INVALID])
  })

  test('a selection holds for its export only, and any later SET replaces it', () => {
    const selected = (...pieces: Uint8Array[]): boolean => {
      const { handshake } = negotiate(structured, ...pieces, option(nbd.NBD_OPT_GO, open('vol')))
      const { state } = handshake
      return state.kind === 'transmission' && state.agreement.blockStatus
    }
    const right = option(set, queries('vol', 'base:allocation'))
    expect(selected(right)).toBe(true)
    expect(selected(option(set, queries('', 'base:allocation')))).toBe(true)
    expect(selected(right, option(set, queries('vol', 'nocolon')))).toBe(false)
    expect(selected(right, option(set, queries('none', 'base:allocation')))).toBe(false)
    expect(selected()).toBe(false)
  })
})

test('splits of the input change nothing', () => {
  const input = concat(
    fixed,
    option(nbd.NBD_OPT_STRUCTURED_REPLY),
    option(4711, new Uint8Array(300)),
    option(nbd.NBD_OPT_LIST),
    option(nbd.NBD_OPT_LIST, new Uint8Array(OPTION_BYTES_MAX + 3)),
    option(nbd.NBD_OPT_SET_META_CONTEXT, queries('vol', 'base:allocation')),
    option(nbd.NBD_OPT_GO, open('vol', 1, 2, 3)),
    new Uint8Array(7),
  )
  const run = (cuts: readonly number[]): { output: Uint8Array; taken: number } => {
    const handshake = started()
    let taken = 0
    let start = 0
    for (const end of [...cuts, input.length]) {
      taken += handshake.receive(input, start, end) - start
      start = end
    }
    return { output: handshake.takeOutput() as Uint8Array, taken }
  }
  const whole = run([])
  expect(whole.taken).toBe(input.length - 7)
  const interesting = fc.oneof(fc.nat(700), fc.integer({ min: 262_000, max: input.length }))
  fc.assert(
    fc.property(fc.array(interesting, { maxLength: 60 }), (cuts) => {
      expect(run(cuts.sort((a, b) => a - b))).toEqual(whole)
    }),
    { numRuns: 60 },
  )
})

test('byte by byte is the same as at once', () => {
  const input = concat(fixed, option(nbd.NBD_OPT_LIST), option(nbd.NBD_OPT_GO, open('vol', 1)))
  const whole = started()
  whole.receive(input, 0, input.length)
  const slow = started()
  for (let at = 0; at < input.length; at++) slow.receive(input, at, at + 1)
  expect(slow.takeOutput()).toEqual(whole.takeOutput())
  expect(slow.state.kind).toBe('transmission')
})

test('UTF-8 agrees with the platform, on good and on random bytes', () => {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  const expected = (bytes: Uint8Array): string | undefined => {
    try {
      const decoded = decoder.decode(bytes)
      return decoded.includes('\0') ? undefined : decoded
    } catch {
      return undefined
    }
  }
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (value) => {
      const bytes = encodeUtf8(value)
      expect(bytes).toEqual(new TextEncoder().encode(value))
      expect(decodeUtf8(bytes, 0, bytes.length)).toBe(expected(bytes))
    }),
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 8 }), (bytes) => {
      expect(decodeUtf8(bytes, 0, bytes.length)).toBe(expected(bytes))
    }),
    { numRuns: 2000 },
  )
})
