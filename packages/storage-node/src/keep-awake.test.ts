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
  const begin = (limit: (wanted: boolean) => void, failed: (error: unknown) => void = () => {}) => {
    const timer = new OneTimer()
    let work = 1_000_000
    let closed = 0
    const latency = { limit, close: () => closed++ }
    const keeper = new KeepAwake({ latency, work: () => work, scheduler: timer, failed })
    /** Returns how long that was, in ms; undefined: nobody looks any more. */
    const pass = (perSecond: number): number | undefined => {
      let ms: number | undefined
      timer.pass((waited) => {
        ms = waited
        work += Math.round((perSecond * waited) / 1000)
      })
      return ms
    }
    return { keeper, pass, closed: () => closed }
  }

  it('asks when work comes often enough, once, and no longer than it does', () => {
    const said: boolean[] = []
    const { keeper, pass, closed } = begin((wanted) => said.push(wanted))
    // What came before it began is no work now.
    expect([pass(0), pass(180), said, keeper.awake]).toEqual([100, 100, [], false])
    for (let i = 0; i < 5; i++) pass(200)
    expect([said, keeper.awake]).toEqual([[true], true])
    for (let i = 0; i < 5; i++) pass(160)
    expect([said, keeper.awake]).toEqual([[true, false], false])
    pass(100_000)
    expect(keeper.awake).toBe(true)
    keeper.close()
    expect([said, keeper.awake, closed()]).toEqual([[true, false, true], false, 1])
    expect(pass(100_000)).toBeUndefined()
  })

  it('looks less often where nothing happens, until something does', () => {
    const { pass } = begin(() => {})
    const waits = Array.from({ length: 60 }, () => pass(0))
    expect([waits[0], waits[49], waits[50], waits[59]]).toEqual([100, 100, 200, 200])
    expect([pass(10), pass(0)]).toEqual([200, 100])
  })

  it('says that the kernel takes no wish, and gives up', () => {
    const errors: unknown[] = []
    const refuse = (): void => {
      throw new Error('EPERM')
    }
    const { keeper, pass, closed } = begin(refuse, (error) => errors.push(error))
    pass(1000)
    expect([errors.map(String), keeper.awake, closed(), pass(1000)]).toEqual([['Error: EPERM'], false, 1, undefined])
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
    const virtual = 'processor\t: 0\nflags\t\t: fpu hypervisor sse2\n'
    const arm = 'processor\t: 0\nFeatures\t: fp asimd\n'
    expect([real, virtual, arm].map(wantedLatencyUs)).toEqual([2, 0, 0])
  })
})
