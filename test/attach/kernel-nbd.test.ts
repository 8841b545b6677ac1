/**
 * The kernel's own NBD client against a node that is killed and started again: a guest, since this kernel may
 * lack it.
 */
import { execFileSync, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { afterEach, describe, expect, it } from 'vitest'
import { sleep, waitUntil } from '../support/waiting.ts'
import { AttachBed } from './attach-bed.ts'
import { buildGuest, type Guest } from './guest-image.ts'

const SCRIPT = new URL('guest.mjs', import.meta.url).pathname

interface GuestResult {
  readonly codes: readonly number[]
  readonly lines: number
  readonly right: boolean
  readonly left: readonly string[]
  readonly fsck: number
  readonly errors: readonly string[]
  readonly longest: number
  readonly device: string
}

function whyNot(): string | undefined {
  if (process.arch !== 'x64') return 'the guest is for x64'
  for (const program of ['qemu-system-x86_64', 'apt-get', 'dpkg', 'ldd']) {
    if (!['/usr/bin', '/bin'].some((folder) => existsSync(`${folder}/${program}`)))
      return `${program} is not installed`
  }
  try {
    execFileSync('apt-cache', ['show', 'linux-image-cloud-amd64'], { stdio: 'ignore' })
  } catch {
    return 'apt knows no linux-image-cloud-amd64: run apt-get update'
  }
  return undefined
}

const reason = whyNot()
if (reason !== undefined) console.log(`the test of the kernel's nbd is skipped: ${reason}`)

let bed: AttachBed | undefined
let stopGuest: (() => Promise<void>) | undefined
afterEach(async () => {
  await stopGuest?.()
  stopGuest = undefined
  await bed?.close()
  bed = undefined
})

function startGuest(guest: Guest): { readonly output: () => string; readonly ended: Promise<void> } {
  const child = spawn(
    'timeout',
    [
      ...[
        '--signal=KILL',
        '240',
        'qemu-system-x86_64',
        '-accel',
        'tcg,thread=multi',
        '-cpu',
        'max',
        '-smp',
        '2',
      ],
      ...['-m', '1024', '-nographic', '-no-reboot', '-kernel', guest.kernel, '-initrd', guest.initramfs],
      ...['-append', 'console=ttyS0 quiet panic=-1', '-nic', 'user,model=virtio-net-pci'],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (text: Buffer) => {
      output += text.toString()
    })
  }
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  stopGuest = async () => {
    // `timeout` passes it on.
    child.kill('SIGTERM')
    await ended
  }
  return { output: () => output, ended }
}

describe.skipIf(reason !== undefined)('the nbd driver of the kernel', () => {
  it('takes kill -9 of the node for a pause', { timeout: 300_000 }, async () => {
    bed = await AttachBed.start()
    const { node } = bed
    await bed.createVolume('v')
    const port = /nbd:\/\/[^:]+:(\d+)\//.exec(node.uri('v'))?.[1] ?? ''
    const guest = startGuest(buildGuest(bed.folder, SCRIPT, [port]))
    for (const phase of [1, 2]) {
      await waitUntil(`phase ${phase} of the guest`, 120_000, () => {
        if (/GUEST-ENDS|GUEST failed/.test(guest.output())) throw new Error('the guest ended: look above')
        return guest.output().includes(`GUEST phase ${phase}`)
      }).catch((error: unknown) => {
        throw new Error(guest.output().slice(-4000), { cause: error })
      })
      await node.stop('SIGKILL')
      await sleep(1000)
      await node.start()
    }
    await guest.ended
    const text = /GUEST result (\{.*\})/.exec(guest.output())?.[1]
    if (text === undefined) throw new Error(guest.output())
    const result = JSON.parse(text) as GuestResult
    console.log(
      `${result.lines} writes on ${result.device}, longest pause ${(result.longest / 1000).toFixed(1)} s`,
    )
    expect(result).toMatchObject({ codes: [0, 0, 0], right: true, left: [], fsck: 0, errors: [] })
    expect(result.device).toMatch(/^\/dev\/nbd\d+$/)
    expect(result.longest).toBeGreaterThan(1000)
  })
})
