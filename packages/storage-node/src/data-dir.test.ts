import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { claimDataDir, lockDataDir, readIdentity } from './data-dir.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-dir-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

it('lets one in at a time and names who has it', () => {
  const path = join(folder, 'deep', 'data')
  const lock = lockDataDir(path)
  expect(readFileSync(join(path, 'lock'), 'utf8')).toBe(`${process.pid}\n`)
  expect(() => lockDataDir(path)).toThrow(`in use by process ${process.pid}: stop that one`)
  lock.release()
  lockDataDir(path).release()
})

it('is not kept by a process that has ended, whatever the file says', () => {
  const script = `require('fs').writeFileSync(3, '1\\n'); process.kill(process.pid, 'SIGKILL')`
  const path = join(folder, 'lock')
  writeFileSync(path, '')
  const args = [
    '--nonblock',
    path,
    process.execPath,
    '-e',
    script.replace('3', JSON.stringify(path)),
  ]
  spawnSync('flock', args)
  // The id of a process that lives: the kernel's lock counts, not the text.
  expect(readFileSync(path, 'utf8')).toBe('1\n')
  lockDataDir(folder).release()
})

it('says what is wrong with a directory that is none', () => {
  writeFileSync(join(folder, 'file'), '')
  expect(() => lockDataDir(join(folder, 'file'))).toThrow("can't be used: EEXIST")
})

it('belongs to one node of one cluster', () => {
  expect(readIdentity(folder)).toBeUndefined()
  claimDataDir(folder, { cluster: 'c1', node: 'a' })
  claimDataDir(folder, { cluster: 'c1', node: 'a' })
  expect(readIdentity(folder)).toEqual({ formatVersion: 1, cluster: 'c1', node: 'a' })
  expect(() => claimDataDir(folder, { cluster: 'c1', node: 'b' })).toThrow(
    'belongs to node a, not b: give --name a',
  )
  expect(() => claimDataDir(folder, { cluster: 'c2', node: 'a' })).toThrow('belongs to cluster c1')
  for (const damaged of ['', '{}', 'null', '{"formatVersion":2,"cluster":"c1","node":"a"}']) {
    writeFileSync(join(folder, 'node.json'), damaged)
    expect(() => claimDataDir(folder, { cluster: 'c1', node: 'a' })).toThrow(
      'is damaged or of a later version',
    )
  }
})
