/** What the state machines tell the world: events for people, numbers for graphs. */

export interface EventLog {
  /** `fields` hold ids and numbers, never contents. One line, lower case, no full stop. */
  event(
    level: 'debug' | 'info' | 'warn' | 'error',
    message: string,
    fields?: Readonly<Record<string, string | number | boolean | undefined>>,
  ): void
}
