/** Docker Compose with `driver: holdfast`. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { waitUntil } from './box.ts'
import { reasonToSkip } from './docker-bed.ts'
import { bedPerTest } from './one-bed.ts'

const reason = reasonToSkip('docker-compose')
const startBed = bedPerTest()

const FILE = `version: '3.7'
services:
  one:
    image: busybox
    network_mode: none
    command: sh -c 'echo start >> /data/starts && sync /data/starts && exec sleep 1000'
    volumes: ['data:/data']
  two:
    image: busybox
    network_mode: none
    command: sleep 1000
    volumes: ['data:/data']
volumes:
  data:
    driver: holdfast
    driver_opts:
      size: 128MiB
      replicas: '2'
      fs: ext4
      label.team: tests
`

describe.skipIf(reason !== undefined)('a project of Compose', () => {
  it('comes up, goes down, and finds its data again', { timeout: 180_000 }, async () => {
    const bed = await startBed({ hosts: ['a', 'b'] })
    const a = bed.host('a')
    const file = join(a.folder, 'docker-compose.yml')
    writeFileSync(file, FILE)
    const compose = async (...args: readonly string[]): Promise<void> => {
      const { code, stderr } = await a.compose(['-p', 'project', '-f', file, ...args])
      if (code !== 0) throw new Error(stderr)
    }
    for (const round of [1, 2]) {
      await compose('up', '-d')
      const expected = 'start\n'.repeat(round).trim()
      await waitUntil('the service', 10_000, async () => {
        return (await a.docker(['exec', 'project_two_1', 'cat', '/data/starts'])) === expected
      })
      expect((await a.volume('project_data')).replicas.length).toBe(2)
      await compose('down', '-t', '1')
      await waitUntil('the unmount', 15_000, () => a.volumeMounts().length === 0)
    }
    expect(await a.volumes()).toEqual(['project_data'])
    await compose('down', '--volumes')
    expect(await a.volumes()).toEqual([])
  })
})
