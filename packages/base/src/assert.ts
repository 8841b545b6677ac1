/** An invariant of our own was broken: the process must end and recover from its log. */
export class InvariantError extends Error {
  override readonly name = 'InvariantError'
  readonly details: Readonly<Record<string, unknown>>
  constructor(message: string, details: Readonly<Record<string, unknown>> = {}) {
    const text = Object.entries(details)
      .map(([key, value]) => `${key}=${String(value)}`)
      .join(' ')
    super(text === '' ? message : `${message} (${text})`)
    this.details = details
  }
}

/** On in production. Never provoked by input: input gets a refusal or a HoldfastError. */
export function assert(
  condition: unknown,
  message: string,
  details?: Readonly<Record<string, unknown>>,
): asserts condition {
  if (!condition) throw new InvariantError(message, details)
}

/** Ends an exhaustive switch. */
export function unreachable(value: never): never {
  throw new InvariantError('unreachable value', { value: JSON.stringify(value) })
}

/** The value, or an InvariantError where it is absent. */
export function must<T>(value: T | undefined | null, message: string): T {
  if (value === undefined || value === null) throw new InvariantError(message)
  return value
}
