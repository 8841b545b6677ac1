/** Commands of the system, and what they say when they fail. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const execute = promisify(execFile)

/** Runs a command to its end; its stdout. Throws with what it said; never waits longer than `timeoutMs`. */
export async function sh(command: string, args: readonly string[], timeoutMs = 20_000): Promise<string> {
  try {
    const { stdout } = await execute(command, [...args], { timeout: timeoutMs, killSignal: 'SIGKILL' })
    return stdout.trim()
  } catch (error) {
    const { stderr = '', stdout = '', code } = error as { stderr?: string; stdout?: string; code?: number | string }
    const said = `${stdout.trim()} ${stderr.trim()}`.trim().slice(-1000)
    throw new Error(`${command} ${args.join(' ').slice(0, 200)} failed (${code}): ${said}`)
  }
}

export const message = (error: unknown): string => (error instanceof Error ? error.message : String(error))
