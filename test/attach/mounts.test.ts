/** Volumes of a real node, mounted for real over nbdfuse and a loop device. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { waitUntil } from '../e2e/harness.ts'
import { AttachBed, sh, whyNot } from './attach-bed.ts'

const reason = whyNot()
if (reason !== undefined) console.log(`tests of attach are skipped: ${reason}`)

let bed: AttachBed | undefined
afterEach(async () => {
  await bed?.close()
  bed = undefined
})

describe.skipIf(reason !== undefined)('a mounted volume', () => {
  it('keeps its files from one mount to the next, and leaves nothing behind', async () => {
    bed = await AttachBed.start()
    await bed.createVolume('v')
    const mounts = await bed.open()
    for (const round of [1, 2]) {
      const { path } = await mounts.mount(bed.request('v', `id-${round}`))
      expect(path).toBe(join(bed.mountRoot, 'default', 'v'))
      if (round === 1) writeFileSync(join(path, 'file'), 'hello')
      expect(readFileSync(join(path, 'file'), 'utf8')).toBe('hello')
      expect(mounts.list()).toMatchObject([{ name: 'v', path, mountIds: [`id-${round}`] }])
      await mounts.unmount('default', 'v', `id-${round}`)
      await waitUntil('the volume to be let go', 5000, () => mounts.list().length === 0)
      await waitUntil('nothing to be left', 5000, () => bed?.remnants().length === 0)
      expect(bed.desk.holders.size).toBe(0)
      expect(existsSync(path)).toBe(false)
    }
    expect(bed.events.filter((line) => line.includes('filesystem made'))).toHaveLength(1)
  })
})
