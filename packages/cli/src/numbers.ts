/** Numbers given as options. */
import { InvalidArgumentError } from 'commander'

export function parseCount(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('it must be a whole number.')
}

export function parseSeconds(text: string): number {
  if (/^\d{1,9}(\.\d{1,6})?$/.test(text)) return Number(text)
  throw new InvalidArgumentError('it must be a number of seconds.')
}

/** For options that may be given more than once. */
export function collect(text: string, before: readonly string[] = []): readonly string[] {
  return [...before, text]
}
