/** Small things that the whole harness needs. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const execute = promisify(execFile)

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

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

/** Polls until `holds`; an Error that says what was waited for, after `ms`. */
export async function waitUntil(
  what: string,
  ms: number,
  holds: () => boolean | Promise<boolean>,
  pauseMs = 100,
): Promise<void> {
  const end = performance.now() + ms
  let problem: unknown
  for (;;) {
    try {
      if (await holds()) return
      problem = undefined
    } catch (error) {
      problem = error
    }
    if (performance.now() > end) {
      const why = problem instanceof Error ? `: ${problem.message}` : ''
      throw new Error(`waited ${ms} ms in vain for ${what}${why}`)
    }
    await sleep(pauseMs)
  }
}

export const message = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** The same victims for the same seed (mulberry32). */
export class Dice {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  below(bound: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let t = this.#state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) % bound
  }

  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new Error('nothing to choose from')
    return items[this.below(items.length)] as T
  }
}
