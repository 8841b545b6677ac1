/**
 * The keeper: one process per attached volume, outside the node process. It holds the device, keeps it alive
 * while the node restarts, and ends when the device goes. `keeper-main.js FOLDER`; the folder has
 * `spec.json`.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { FuseDevice } from './fuse-device.ts'
import { Gate } from './gate.ts'
import { KeeperServer } from './keeper-server.ts'
import { CONTROL_SOCKET, type KeeperSpec, SPEC_FILE } from './keeper-protocol.ts'
import { KernelDevice } from './kernel-device.ts'

const log = (text: string): void => void process.stdout.write(`${new Date().toISOString()} ${text}\n`)

/** A device must not die of the memory that its own writers use. */
function protectFromMemoryPressure(): void {
  try {
    writeFileSync('/proc/self/oom_score_adj', '-1000')
  } catch (error) {
    log(`not protected from the OOM killer: ${String(error)}`)
  }
}

async function main(folder: string): Promise<void> {
  process.chdir(folder)
  for (const signal of ['SIGHUP', 'SIGINT'] as const) process.on(signal, () => undefined)
  protectFromMemoryPressure()
  const spec = JSON.parse(readFileSync(SPEC_FILE, 'utf8')) as KeeperSpec
  const gate = new Gate()
  const Device = spec.backend === 'kernel-nbd' ? KernelDevice : FuseDevice
  const device = new Device(spec, gate, log)
  const server = new KeeperServer(device, gate, log)
  rmSync(CONTROL_SOCKET, { force: true })
  await server.listen(CONTROL_SOCKET)
  log(`keeper of ${spec.namespace}/${spec.name} runs, process ${process.pid}`)
  process.on('SIGTERM', () => void server.detach(false).catch((error: Error) => log(error.message)))
  const isGone = await Promise.race([server.ended, device.gone.then(() => true)])
  if (isGone === true) await device.stop(true)
  await server.close()
  log('keeper ends')
  for (const file of [CONTROL_SOCKET, SPEC_FILE]) rmSync(file, { force: true })
  process.exit(0)
}

await main(process.argv[2] ?? '.').catch((error: unknown) => {
  log(`keeper failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`)
  process.exit(1)
})
