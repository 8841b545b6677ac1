import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { native } from '@holdfast/addon'
import { expect, test } from 'vitest'
import { allocateAligned, widenSendBuffer } from './socket-memory.ts'

test('memory for replies begins with a cache line and has the size that was asked for', () => {
  for (const bytes of [1, 64, 4097, 256 * 1024 + 64, 1024 * 1024 + 64]) {
    const memory = allocateAligned(bytes)
    expect(memory.length).toBe(bytes)
    expect(native.addressRest(memory, 64)).toBe(0)
    if (bytes > 1) expect(native.addressRest(memory.subarray(1), 64)).toBe(1)
  }
})

test('a unix socket takes more at once than the system would have it, and one that is gone is left alone', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-reply-'))
  const server = createServer({ pauseOnConnect: true })
  try {
    const path = join(folder, 's')
    server.listen(path)
    await once(server, 'listening')
    const client = connect({ path })
    client.pause()
    const [accepted] = (await once(server, 'connection')) as [Socket]
    widenSendBuffer(accepted)
    // More than the default of 208 KiB, less than an ordinary user may have.
    accepted.write(Buffer.alloc(300 * 1024))
    expect(accepted.writableLength).toBe(0)
    client.destroy()
    accepted.destroy()
    expect(() => widenSendBuffer(accepted)).not.toThrow()
  } finally {
    server.close()
    rmSync(folder, { recursive: true, force: true })
  }
})
