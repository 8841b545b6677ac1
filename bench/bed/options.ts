/** The options of a benchmark's command line. */
import { parseArgs, type ParseArgsConfig } from 'node:util'

/** Their values. What can't be understood is said in one line, and nothing is run. */
export function options<const T extends NonNullable<ParseArgsConfig['options']>>(
  known: T,
): ReturnType<typeof parseArgs<{ options: T }>>['values'] {
  try {
    return parseArgs({ options: known }).values
  } catch (error) {
    const names = Object.keys(known).map((name) => `--${name}`)
    const reason = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error)
    process.stderr.write(`${reason}\nthe options are ${names.join(', ')}\n`)
    process.exit(2)
  }
}
