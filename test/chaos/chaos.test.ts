/** The short version of `npm run chaos`: real nodes in namespaces, three faults, everything checked. */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, it } from 'vitest'
import type { Report } from './report.ts'

const MAIN = new URL('main.ts', import.meta.url).pathname
const FAULTS = ['kill-primary', 'partition-host', 'partition-etcd']

let out: string | undefined
afterEach(() => {
  if (out !== undefined) rmSync(out, { recursive: true, force: true })
})

it('keeps every acknowledged write through a kill and two partitions', { timeout: 240_000 }, async () => {
  out = mkdtempSync(join(tmpdir(), 'holdfast-chaos-report-'))
  const options = ['--once', '--seed', '20', '--out', out, '--only', FAULTS.join(','), '--workloads', 'blocks,ext4']
  const child = spawn(
    process.execPath,
    ['--conditions=@holdfast/source', '--import', 'tsx', MAIN, ...options],
    { stdio: ['ignore', 'pipe', 'pipe'], cwd: new URL('../..', import.meta.url).pathname },
  )
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (part: Buffer) => (text += part.toString()))
  const code = await new Promise((resolve) => child.once('close', resolve))
  expect(code, text).toBe(0)
  const report = JSON.parse(readFileSync(join(out, 'report.json'), 'utf8')) as Report
  expect(report.violations).toEqual([])
  // Without root there are no namespaces, and the partitions are left out.
  const expected = FAULTS.length - report.leftOut.length
  expect(report.faults).toHaveLength(expected)
  for (const fault of report.faults) {
    expect(fault.wholeAt, fault.name).toBeDefined()
    // Operations went on, and the fault was felt.
    expect(fault.operations['blocks'], fault.name).toBeGreaterThan(200)
    expect(Math.max(fault.pauses['blocks']?.hit ?? 0, fault.pauses['blocks']?.others ?? 0)).toBeGreaterThan(500)
  }
  expect(report.blocks?.acknowledgedWrites).toBeGreaterThan(1000)
  expect(report.blocks?.reads).toBeGreaterThan(2000)
})
