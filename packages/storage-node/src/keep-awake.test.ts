import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { KeepAwake } from './keep-awake.ts'
import { openProcessorLatency, wantedLatencyUs } from './processor-latency.ts'

/** Holds what is due until `pass`. */
class OneTimer {
  #due: { readonly ms: number; readonly task: () => void } | undefined

  readonly after = (ms: number, task: () => void): (() => void) => {
    const due = { ms, task }
    this.#due = due
    return () => {
      if (this.#due === due) this.#due = undefined
    }
  }

  /** @param work Is told how many ms have gone by. Returns false where nothing was due. */
  pass(work: (ms: number) => void): boolean {
    const due = this.#due
    if (due === undefined) return false
    work(due.ms)
    this.#due = undefined
    due.task()
    return true
  }
}

describe('KeepAwake', () => {
  it('asks when work comes often enough, once, and no longer than it does', () => {
    const said: (boolean | 'closed')[] = []
    const timer = new OneTimer()
    let work = 1_000_000
    const latency = { limit: (wanted: boolean) => said.push(wanted), close: () => said.push('closed') }
    const keeper = new KeepAwake(latency, () => work, timer)
    const pass = (perSecond: number): boolean =>
      timer.pass((ms) => {
        work += Math.round((perSecond * ms) / 1000)
      })
    // What came before it began is no work now.
    expect([pass(0), pass(180), said, keeper.awake]).toEqual([true, true, [], false])
    for (let i = 0; i < 5; i++) pass(200)
    expect([said, keeper.awake]).toEqual([[true], true])
    for (let i = 0; i < 5; i++) pass(160)
    expect([said, keeper.awake]).toEqual([[true, false], false])
    pass(100_000)
    keeper.close()
    expect([said, keeper.awake]).toEqual([[true, false, true, 'closed'], false])
    expect(pass(100_000)).toBe(false)
  })
})

describe('the latency of processors', () => {
  let folder: string
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'holdfast-awake-'))
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  it('is asked for as the kernel wants it, and never again after the end', () => {
    const device = join(folder, 'device')
    writeFileSync(device, '')
    const latency = openProcessorLatency(device, 2)
    latency.limit(true)
    latency.limit(false)
    latency.close()
    latency.close()
    latency.limit(true)
    const written = readFileSync(device)
    expect([written.length, written.readInt32LE(0), written.readInt32LE(4)]).toEqual([8, 2, 2_000_000_000])
    expect(() => openProcessorLatency(join(folder, 'none'), 2)).toThrow(/ENOENT/)
  })

  it('is no sleep at all in a virtual machine, and a light one on a real one', () => {
    const real = 'processor\t: 0\nflags\t\t: fpu vme sse2\n'
    expect([wantedLatencyUs(real), wantedLatencyUs(`${real}flags\t\t: fpu hypervisor sse2\n`), wantedLatencyUs('')]).toEqual([2, 0, 2])
  })
})
