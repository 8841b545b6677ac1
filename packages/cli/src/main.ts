/** The program `holdfast`. */
import { runCommandLine } from './program.ts'
import { processTerminal } from './terminal.ts'

/** Returns the exit code of the process. */
export async function main(args: readonly string[]): Promise<number> {
  // A reader that has seen enough (`holdfast volume ls | head -1`) is no failure.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
  })
  return await runCommandLine(args, processTerminal())
}
