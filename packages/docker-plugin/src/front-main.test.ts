/** The process that holds Docker's socket, alone. */
import { once } from 'node:events'
import { spawn } from 'node:child_process'
import { createServer } from 'node:http'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { PluginBed } from './testing/plugin-bed.ts'

it('outlives a call that is broken while the node is away', { timeout: 30_000 }, async () => {
  const bed = new PluginBed()
  const program = fileURLToPath(new URL('./front-main.ts', import.meta.url))
  let asked = (): void => {}
  const listed = new Promise<void>((resolve) => (asked = resolve))
  // The next question comes over the same server only when the first has been answered and taken.
  let answers = 0
  const node = createServer((_, answer) => {
    answer.end(JSON.stringify({ Volumes: [{ Name: 'data' }], Err: '' }))
    if (++answers === 2) asked()
  })
  await bed.start()
  await bed.stop()
  node.listen(bed.nodeSocketPath)
  await once(node, 'listening')
  const words = ['--import', 'tsx', program, bed.socketPath, bed.nodeSocketPath]
  const front = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    await once(front.stdout, 'data')
    await listed
    node.closeAllConnections()
    await new Promise((resolve) => node.close(resolve))
    const get = (body: string) => bed.send('/VolumeDriver.Get', body, bed.socketPath)
    for (const broken of ['{"Name', 'null', '7']) {
      expect(await get(broken)).toMatchObject({ status: 500, Err: expect.stringContaining('does not run') as string })
    }
    expect(await get('{"Name":"data"}')).toMatchObject({ status: 200, Volume: { Name: 'data' } })
    expect(front.exitCode).toBe(null)
  } finally {
    front.kill('SIGKILL')
    node.close()
    await bed.close()
  }
})
