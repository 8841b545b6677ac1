import { describe, expect, it } from 'vitest'
import { chooseBackend, type DeviceBackend } from './backend.ts'
import { isInstalled, run, runOrFail } from './command.ts'

const backend = (name: 'kernel-nbd' | 'nbdfuse', reason: string | undefined): DeviceBackend => ({
  name,
  usable: async () => reason,
  connect: () => Promise.reject(new Error('not here')),
  adopt: async () => undefined,
  disconnect: async () => undefined,
})

describe('the backend', () => {
  it('is the first that this host can use', async () => {
    const fuse = backend('nbdfuse', undefined)
    expect(await chooseBackend([backend('kernel-nbd', 'no module'), fuse])).toBe(fuse)
    const kernel = backend('kernel-nbd', undefined)
    expect(await chooseBackend([kernel, fuse])).toBe(kernel)
  })

  it('is an error that says what each one lacks, if there is none', async () => {
    const choosing = chooseBackend([
      backend('kernel-nbd', 'no module'),
      backend('nbdfuse', 'install libnbd-bin'),
    ])
    await expect(choosing).rejects.toMatchObject({
      code: 'HF_UNAVAILABLE',
      message: "volumes can't be attached here: kernel-nbd: no module; nbdfuse: install libnbd-bin",
    })
  })
})

describe('a program', () => {
  it('that is missing is named with its package', async () => {
    expect(await isInstalled('no-such-program')).toBe(false)
    expect(await isInstalled('sh')).toBe(true)
    await expect(run('no-such-program', [])).rejects.toMatchObject({ code: 'HF_UNAVAILABLE' })
  })

  it('that fails says what it said', async () => {
    expect(await run('sh', ['-c', 'echo out; exit 3'])).toEqual({ code: 3, stdout: 'out\n', stderr: '' })
    await expect(runOrFail('sh', ['-c', 'echo bad >&2; exit 3'])).rejects.toThrow(/failed: bad$/)
  })
})
