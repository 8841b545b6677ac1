/** Each call answers before Docker gives up, and those that change one name take turns. */
import { HoldfastError } from '@holdfast/base'

/** @throws HoldfastError HF_TIMEOUT after `ms`; the work goes on. */
export async function inTime<T>(ms: number, work: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new HoldfastError('HF_TIMEOUT', `${what}: look at holdfast volume ls, then try again`))
    }, ms)
  })
  try {
    return await Promise.race([work, timeout])
  } finally {
    clearTimeout(timer)
  }
}

/** Runs tasks of the same key one after the other. */
export class Turns {
  readonly #last = new Map<string, Promise<unknown>>()

  /**
   * A task whose turn comes only when `ms` are over does not run: nobody expects it any more.
   * @throws HoldfastError HF_TIMEOUT after `ms`, waiting included; what the task throws.
   */
  async run(key: string, ms: number, what: string, task: () => Promise<void>): Promise<void> {
    let expected = true
    const before = this.#last.get(key) ?? Promise.resolve()
    const done = before.then(async () => (expected ? task() : undefined))
    const settled = done
      .catch(() => undefined)
      .then(() => {
        if (this.#last.get(key) === settled) this.#last.delete(key)
      })
    this.#last.set(key, settled)
    try {
      await inTime(ms, done, what)
    } finally {
      expected = false
    }
  }
}
