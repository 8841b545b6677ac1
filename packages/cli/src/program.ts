/** The commands and how they fail. */
import { isHoldfastError } from '@holdfast/base'
import { version } from '@holdfast/api/client'
import { Command, CommanderError } from 'commander'
import { addAttachCommands } from './attach-commands.ts'
import { addClientOptions } from './client-options.ts'
import { addNodeCommands, addStatusCommand } from './node-commands.ts'
import { addNodeCommand, addUpCommand } from './run-commands.ts'
import type { Terminal } from './terminal.ts'
import { addVolumeCommands } from './volume-commands.ts'

export const exitCode = { ok: 0, failed: 1, usage: 2 } as const

/** Runs one command line (without the program's name). Returns the exit code; throws only bugs. */
export async function runCommandLine(args: readonly string[], terminal: Terminal): Promise<number> {
  let code: number = exitCode.ok
  const program = createProgram(terminal, (given) => {
    code = given
  })
  try {
    await program.parseAsync(args, { from: 'user' })
    return code
  } catch (error) {
    if (error instanceof CommanderError) return commanderExit(error)
    if (!isHoldfastError(error)) throw error
    terminal.err(`holdfast: ${error.message}\n`)
    return error.code === 'HF_BAD_REQUEST' ? exitCode.usage : exitCode.failed
  }
}

/** Commander has printed already. Help that was asked for is no error; help instead of a command is. */
function commanderExit({ code, exitCode: given }: CommanderError): number {
  const asked = code === 'commander.helpDisplayed' || code === 'commander.version'
  return asked || (code === 'commander.help' && given === 0) ? exitCode.ok : exitCode.usage
}

function createProgram(terminal: Terminal, setExitCode: (code: number) => void): Command {
  const program = new Command('holdfast')
  addClientOptions(program)
    .description('A synchronously replicated block store for containers')
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'show help')
    .enablePositionalOptions()
    .exitOverride()
    .showHelpAfterError('add --help to see what it takes')
    .configureOutput({
      writeOut: (text) => terminal.out(text),
      writeErr: (text) => terminal.err(text),
      outputError: (text, write) => write(text.replace(/^error: /, 'holdfast: ')),
    })
  addUpCommand(program, terminal, setExitCode)
  addNodeCommands(addNodeCommand(program, terminal, setExitCode), terminal)
  addVolumeCommands(program, terminal)
  addAttachCommands(program, terminal)
  addStatusCommand(program, terminal)
  return program
}
