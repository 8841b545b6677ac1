/**
 * As root a run gets process, mount and network namespaces of its own. Whatever happens to it, the kernel then ends
 * its processes and undoes its mounts, loop devices, veth pairs and inner namespaces; only one folder is left to remove.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const INSIDE = 'HOLDFAST_CHAOS_FOLDER'
const OWN_NAMESPACES = ['--pid', '--mount', '--net', '--mount-proc', '--propagation', 'private']

/** The folder of this run when this process is the run itself. */
export function runFolder(): string | undefined {
  return process.env[INSIDE]
}

/** Starts the run as another process, with the same arguments, and resolves with its exit code. `keep`: its data, when it fails. */
export async function launch(
  script: string,
  args: readonly string[],
  namespaces: boolean,
  keep: boolean,
): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-chaos-'))
  const command = [process.execPath, ...process.execArgv, script, ...args]
  if (namespaces) command.unshift('unshare', '--fork', '--kill-child', ...OWN_NAMESPACES)
  const [program = '', ...rest] = command
  // In a session of its own, so that Ctrl-C reaches only this process; the end of stdin tells the run to stop.
  const child = spawn(program, rest, {
    detached: true,
    stdio: ['pipe', 'inherit', 'inherit'],
    env: { ...process.env, [INSIDE]: folder, HOLDFAST_CHAOS_NAMESPACES: namespaces ? '1' : '0' },
  })
  const stop = (): void => void child.stdin.end()
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
  child.stdin.on('error', () => {})
  const code = await new Promise<number>((resolve) => {
    child.once('error', (error) => {
      process.stderr.write(`chaos: ${error.message}\n`)
      resolve(1)
    })
    child.once('exit', (status) => resolve(status ?? 1))
  })
  process.off('SIGINT', stop)
  process.off('SIGTERM', stop)
  if (keep && code !== 0) process.stdout.write(`kept: ${folder}\n`)
  else rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  return code
}
