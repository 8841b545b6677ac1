/** In processes of their own: how a process or a thread ends is part of it. */
import { execFile, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'

const folder = mkdtempSync(join(tmpdir(), 'holdfast-sync-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const PRELUDE = `
  const { openSync, readdirSync, readFileSync, writeSync } = require('node:fs')
  const addon = require(${JSON.stringify(fileURLToPath(new URL('../../../native/build/Release/holdfast.node', import.meta.url)))})
  const begin = (done) => {
    const fd = openSync(${JSON.stringify(join(folder, 'file'))}, 'w')
    writeSync(fd, Buffer.alloc(1 << 20, 1))
    addon.datasync(fd, 0, 0, done)
  }
  const nameOf = (id) => {
    try {
      return readFileSync('/proc/self/task/' + id + '/comm', 'utf8').trim()
    } catch {
      return 'ended'
    }
  }
  const threads = () => readdirSync('/proc/self/task').filter((id) => nameOf(id) === 'holdfast-flush').length
`

interface Ended {
  readonly code: unknown
  readonly stdout: string
  readonly stderr: string
}

function run(program: string): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(process.execPath, ['-e', PRELUDE + program], { timeout: 60_000 }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : error.code, stdout, stderr }),
    )
  })
}

/** A program that ends a thread of JavaScript right behind `calls`, twenty times, and says how many of ours are left. */
function endedThreads(calls: string): string {
  return `
    const { Worker } = require('node:worker_threads')
    const source = ${JSON.stringify(`${PRELUDE};${calls};require('node:worker_threads').parentPort.postMessage('begun')`)}
    const turn = (left) => {
      if (left === 0) return console.log('left', threads())
      const worker = new Worker(source, { eval: true })
      worker.once('message', () => worker.terminate().then(() => turn(left - 1)))
    }
    turn(20)
  `
}

describe('threads that wait for the disk', () => {
  it('are begun as they are needed, three at most, and each call is answered once, whatever it begins', async () => {
    const program = `
      let ended = 0
      console.log('at rest', threads())
      begin(() => {
        console.log('one', threads())
        for (let i = 0; i < 10; i++) begin((error) => {
          if (error) throw error
          begin(() => { if (++ended === 10) console.log('many', threads()) })
        })
      })
      process.on('exit', () => console.log('exit', ended))
    `
    // The process ends by itself: what is under way keeps it alive, an idle thread does not.
    expect(await run(program)).toEqual({ code: 0, stdout: 'at rest 0\none 1\nmany 3\nexit 10\n', stderr: '' })
  })

  it('end with the thread that they work for, also in the middle of a call', async () => {
    expect(await run(endedThreads('for (let i = 0; i < 5; i++) begin(() => {})'))).toEqual({ code: 0, stdout: 'left 0\n', stderr: '' })
  })

  it('end quietly where nobody is left to be told of an error', async () => {
    const pipe = join(folder, 'pipe')
    spawnSync('mkfifo', [pipe])
    const failing = `
      const pipe = openSync(${JSON.stringify(pipe)}, 'r+')
      for (let i = 0; i < 5; i++) addon.datasync(pipe, 0, 0, () => {})
    `
    expect(await run(endedThreads(failing))).toEqual({ code: 0, stdout: 'left 0\n', stderr: '' })
  })

  it('hold up no exit', async () => {
    expect(await run(`for (let i = 0; i < 5; i++) begin(() => console.log('ended')); process.exit(7)`)).toEqual({ code: 7, stdout: '', stderr: '' })
  })

  it('let what is thrown at the end of a call be seen', async () => {
    const { code, stderr } = await run(`begin(() => { throw new Error('an invariant does not hold') })`)
    expect(code).toBe(1)
    expect(stderr).toContain('an invariant does not hold')
  })
})
