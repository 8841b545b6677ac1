/** UTF-8 for the strings of the handshake; pure packages have no TextDecoder. */

export function encodeUtf8(text: string): Uint8Array {
  const bytes: number[] = []
  for (const character of text) {
    const code = character.codePointAt(0) ?? 0
    if (code < 0x80) bytes.push(code)
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), continuation(code))
    else if (code < 0x10000) {
      bytes.push(0xe0 | (code >> 12), continuation(code >> 6), continuation(code))
    } else {
      bytes.push(0xf0 | (code >> 18), continuation(code >> 12))
      bytes.push(continuation(code >> 6), continuation(code))
    }
  }
  return Uint8Array.from(bytes)
}

/**
 * The text of `bytes[start, end)`, or undefined where it is no string of the protocol: NUL,
 * overlong forms, surrogates and cut sequences are refused.
 */
export function decodeUtf8(bytes: Uint8Array, start: number, end: number): string | undefined {
  let text = ''
  for (let at = start; at < end; ) {
    const lead = bytes[at] as number
    if (lead === 0) return undefined
    const extra = extraBytes(lead)
    if (extra < 0 || at + extra >= end) return undefined
    let code = extra === 0 ? lead : lead & (0x3f >> extra)
    for (let i = 1; i <= extra; i++) {
      const byte = bytes[at + i] as number
      if ((byte & 0xc0) !== 0x80) return undefined
      code = (code << 6) | (byte & 0x3f)
    }
    if (code < (smallest[extra] as number) || code > 0x10ffff) return undefined
    if (code >= 0xd800 && code <= 0xdfff) return undefined
    text += String.fromCodePoint(code)
    at += 1 + extra
  }
  return text
}

/** The smallest code point that needs 0, 1, 2 or 3 continuation bytes. */
const smallest = [0, 0x80, 0x800, 0x10000]

function extraBytes(lead: number): number {
  if (lead < 0x80) return 0
  if (lead >= 0xc0 && lead < 0xe0) return 1
  if (lead >= 0xe0 && lead < 0xf0) return 2
  return lead >= 0xf0 && lead < 0xf8 ? 3 : -1
}

function continuation(code: number): number {
  return 0x80 | (code & 0x3f)
}
