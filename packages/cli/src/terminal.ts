/** All that the commands do to the world, so that tests can watch. */
import { createInterface } from 'node:readline/promises'

export interface Terminal {
  readonly env: Readonly<Record<string, string | undefined>>
  /** Someone may answer questions. */
  readonly interactive: boolean
  /** stderr shows progress lines that overwrite each other. */
  readonly progress: boolean
  out(text: string): void
  err(text: string): void
  ask(question: string): Promise<string>
  nowMs(): number
  sleep(ms: number): Promise<void>
}

export function processTerminal(): Terminal {
  const { stdin, stdout, stderr, env } = process
  return {
    env,
    interactive: stdin.isTTY === true && stderr.isTTY === true,
    progress: stderr.isTTY === true && env['TERM'] !== 'dumb',
    out: (text) => stdout.write(text),
    err: (text) => stderr.write(text),
    async ask(question) {
      const reader = createInterface({ input: stdin, output: stderr })
      try {
        // The end of the input is no answer; question() alone would wait for ever.
        const ended = new Promise<string>((resolve) => reader.once('close', () => resolve('')))
        return await Promise.race([reader.question(question), ended])
      } finally {
        reader.close()
      }
    },
    nowMs: () => performance.now(),
    sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
  }
}
