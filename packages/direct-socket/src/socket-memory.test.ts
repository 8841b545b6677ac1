import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { widenSendBuffer } from './socket-memory.ts'

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
