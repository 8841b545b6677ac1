/** Waiting for what is not there yet, in tests by the clock of the machine. */
export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** Thrown by a condition that can't come true any more: nobody waits for it. */
export class Hopeless extends Error {}

/** Polls until `holds`; after `ms` an Error that says what was waited for and what was in the way last. */
export async function waitUntil(
  what: string,
  ms: number,
  holds: () => boolean | Promise<boolean>,
  pauseMs = 25,
): Promise<void> {
  const end = performance.now() + ms
  let problem: unknown
  for (;;) {
    try {
      if (await holds()) return
      problem = undefined
    } catch (error) {
      if (error instanceof Hopeless) throw error
      problem = error
    }
    if (performance.now() > end) {
      const why = problem instanceof Error ? `: ${problem.message}` : ''
      throw new Error(`waited ${ms} ms in vain for ${what}${why}`, { cause: problem })
    }
    await sleep(pauseMs)
  }
}
