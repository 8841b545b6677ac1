import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type BootInstant, bootInstant, type EventLog } from '@holdfast/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { coordinatorContract, recordLease, transactOf, valuesOf } from '../contract.ts'
import { type FileCoordinator, openEmbeddedCoordinator } from './file-coordinator.ts'

const quiet: EventLog = { event: () => undefined }
const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms))
const now = (): BootInstant => bootInstant(performance.now())
const closed = (one: FileCoordinator): Promise<void> => new Promise((done) => one.close(done))

coordinatorContract('embedded', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-embedded-'))
  const opened: FileCoordinator[] = []
  return {
    clientCountMax: 1,
    leaseTtlMs: 300,
    now,
    elapse: sleep,
    open: () => {
      const one = openEmbeddedCoordinator({ file: join(folder, 'c.journal'), events: quiet })
      opened.push(one)
      return one
    },
    crash: async () => {
      await Promise.all(opened.map((one) => closed(one)))
    },
    close: async () => {
      await Promise.all(opened.map((one) => closed(one)))
      rmSync(folder, { recursive: true })
    },
  }
})

describe('embedded coordinator', () => {
  let folder: string
  let file: string
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'holdfast-embedded-'))
    file = join(folder, 'c.journal')
  })
  afterEach(() => rmSync(folder, { recursive: true }))
  const open = (): FileCoordinator => openEmbeddedCoordinator({ file, events: quiet })

  it('survives a cut at any byte: a prefix of what was written, with all that was answered', async () => {
    const one = open()
    recordLease(one, 1000)
    await sleep(1)
    /** Size of the file when the n-th transaction was answered. */
    const answeredAt: number[] = []
    for (let i = 1; i <= 8; i++) {
      const leased = i === 3
      const result = await transactOf(one, [
        { op: 'put', key: `k/${i}`, value: `v${i}`, leased },
        { op: 'put', key: 'count', value: `${i}` },
      ])
      expect(result.kind).toBe('ok')
      answeredAt.push(readFileSync(file).length)
    }
    const whole = readFileSync(file)
    await closed(one)
    const first = (answeredAt[0] ?? 0) - 1
    // Below the first record there is only what a rename put there as a whole.
    const start = whole.indexOf(Buffer.from([0xc0, 0x0d, 0x1e, 0x01]), 40)
    expect(start).toBeLessThanOrEqual(first)
    for (let cut = start; cut <= whole.length; cut++) {
      writeFileSync(file, whole.subarray(0, cut))
      const again = open()
      const values = await valuesOf(again, '')
      const count = Number(values['count'] ?? 0)
      expect(count).toBe(answeredAt.filter((bytes) => bytes <= cut).length)
      for (let i = 1; i <= 8; i++) {
        expect(values[`k/${i}`]).toBe(i <= count && i !== 3 ? `v${i}` : undefined)
      }
      await closed(again)
    }
  })

  it('goes on counting revisions after a restart, and never gives one out twice', async () => {
    const revisions: number[] = []
    for (let round = 0; round < 3; round++) {
      const one = open()
      recordLease(one, 1000)
      await sleep(1)
      const result = await transactOf(one, [{ op: 'put', key: 'k', value: 'x', leased: true }])
      revisions.push(result.kind === 'ok' ? result.revision : -1)
      await closed(one)
    }
    expect(revisions[1]).toBeGreaterThan(revisions[0] ?? 0)
    expect(revisions[2]).toBeGreaterThan(revisions[1] ?? 0)
  })

  it('calls a flipped bit before good records damage, wherever it is', async () => {
    const one = open()
    for (const key of ['a', 'b', 'c']) await transactOf(one, [{ op: 'put', key, value: key }])
    const whole = readFileSync(file)
    await closed(one)
    const lastRecord = whole.lastIndexOf(Buffer.from([0xc0, 0x0d, 0x1e, 0x01]))
    for (let at = 0; at < lastRecord; at++) {
      const bytes = Buffer.from(whole)
      bytes.writeUInt8(bytes.readUInt8(at) ^ 0x10, at)
      writeFileSync(file, bytes)
      expect(open, `byte ${at}`).toThrow(/damaged/)
    }
    expect(existsSync(`${file}.lock`)).toBe(false)
  })

  it('writes the journal anew when it has grown, and loses nothing by it', async () => {
    const one = open()
    const value = 'x'.repeat(100_000)
    for (let i = 0; i < 40; i++) {
      expect((await transactOf(one, [{ op: 'put', key: `k${i % 3}`, value: value + i }])).kind).toBe('ok')
    }
    expect(readFileSync(file).length).toBeLessThan(2_500_000)
    await closed(one)
    const again = open()
    const values = await valuesOf(again, '')
    expect(values).toEqual({ k0: `${value}39`, k1: `${value}37`, k2: `${value}38` })
    await closed(again)
  })

  it('answers unknown when the file cannot be written, and goes on when it can again', async () => {
    const one = open()
    rmSync(folder, { recursive: true })
    expect((await transactOf(one, [{ op: 'put', key: 'k', value: '1' }])).kind).toBe('unknown')
    expect(await valuesOf(one, '')).toEqual({})
    const { mkdirSync } = await import('node:fs')
    mkdirSync(folder)
    expect((await transactOf(one, [{ op: 'put', key: 'k', value: '2' }])).kind).toBe('ok')
    await closed(one)
  })

  it('names the process that holds the file', async () => {
    const one = open()
    expect(open).toThrow(new RegExp(`held by process ${process.pid}:`))
    await closed(one)
    await closed(open())
  })

  it('takes over the lock of a dead process, and of one whose number was reused', async () => {
    const child = spawn(process.execPath, ['-e', ''])
    await new Promise((done) => child.once('exit', done))
    writeFileSync(`${file}.lock`, `${child.pid} 1@other\n`)
    await closed(open())
    writeFileSync(`${file}.lock`, `${process.pid} 1@other\n`)
    await closed(open())
    writeFileSync(`${file}.lock`, '')
    await closed(open())
  })
})
