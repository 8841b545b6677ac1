/** Messages of generic netlink: their bytes, and the kernel's own answer to one. */
import { describe, expect, it } from 'vitest'
import {
  attribute,
  attributeText,
  attributeU32,
  attributeU64,
  nested,
  Netlink,
  parseAttributes,
} from './netlink.ts'

describe('attributes', () => {
  it('are padded to four bytes, and come back', () => {
    expect(attribute(3, Buffer.from('abcde')).toString('hex')).toBe('09000300616263646500' + '0000')
    const bytes = Buffer.concat([
      attributeText(2, 'nbd'),
      attributeU64(4, 30),
      nested(7, [attributeU32(1, 5)]),
    ])
    const found = parseAttributes(bytes)
    expect([...found.keys()]).toEqual([2, 4, 7])
    expect(found.get(2)?.toString()).toBe('nbd\0')
    expect(found.get(4)?.readBigUInt64LE()).toBe(30n)
    expect(
      parseAttributes(found.get(7) ?? Buffer.alloc(0))
        .get(1)
        ?.readUInt32LE(),
    ).toBe(5)
  })

  it('that are cut short end the list', () => {
    const bytes = Buffer.concat([attributeU32(1, 5), attributeU32(2, 6)])
    expect([...parseAttributes(bytes.subarray(0, 14)).keys()]).toEqual([1])
    expect(parseAttributes(Buffer.from([0, 0, 1, 0])).size).toBe(0)
  })
})

describe('a netlink socket', () => {
  const GENL_ID_CTRL = 16
  const CTRL_CMD_GETFAMILY = 3

  it('asks the kernel for a family, and hears of one that there is not', async () => {
    const netlink = new Netlink(2000)
    const found = await netlink.request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, [attributeText(2, 'nlctrl')])
    expect(found?.attributes.get(1)?.readUInt16LE()).toBe(GENL_ID_CTRL)
    const missing = netlink.request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, [attributeText(2, 'no-such')])
    await expect(missing).rejects.toMatchObject({ code: 'HF_IO', systemCode: 'ENOENT' })
    await netlink.close()
  })

  it('returns without a message when none comes', async () => {
    const netlink = new Netlink(20)
    expect(await netlink.receive()).toEqual([])
    await netlink.close()
  })
})
