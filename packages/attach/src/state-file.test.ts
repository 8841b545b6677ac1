import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { type AttachmentRecord, AttachmentState } from './state-file.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-state-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

const record: AttachmentRecord = {
  namespace: 'default',
  name: 'v',
  backend: 'nbdfuse',
  device: '/dev/loop7',
  path: '/mnt/v',
  directory: false,
  readOnly: false,
  pinned: false,
  mountIds: ['one'],
}

it('comes back in the same life of the host, and is void in the next', async () => {
  const state = new AttachmentState(folder, 'boot-1')
  expect(await state.load()).toEqual({ current: true, attachments: [] })
  await Promise.all([state.save([]), state.save([record, record]), state.save([record])])
  expect(await new AttachmentState(folder, 'boot-1').load()).toEqual({ current: true, attachments: [record] })
  expect(await new AttachmentState(folder, 'boot-2').load()).toEqual({
    current: false,
    attachments: [record],
  })
  expect(readdirSync(folder)).toEqual(['attachments.json'])
})

it('that is damaged counts as none: keepers are found by their folders', async () => {
  writeFileSync(join(folder, 'attachments.json'), '{"version":1,"bo')
  expect(await new AttachmentState(folder, 'boot-1').load()).toEqual({ current: false, attachments: [] })
})
