/** Events as JSON lines on stderr. */
import type { EventLog } from '@holdfast/base'
import { destination, type Logger, pino, stdTimeFunctions } from 'pino'
import type { LogLevel } from './config.ts'

export interface NodeLog extends EventLog {
  /** An error with its stack, where one is handled. */
  failure(level: 'error' | 'warn', message: string, error: unknown): void
}

/** Synchronous: the lines before an end that nobody foresaw are those that matter most. */
export function createLog(level: LogLevel, node: string, shard?: number): NodeLog {
  const logger: Logger = pino(
    {
      level,
      base: shard === undefined ? { node } : { node, shard },
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    destination({ fd: 2, sync: true }),
  )
  return {
    event(eventLevel, message, fields) {
      if (fields === undefined) logger[eventLevel](message)
      else logger[eventLevel](fields, message)
    },
    failure(eventLevel, message, error) {
      const err = error instanceof Error ? error : new Error(String(error))
      logger[eventLevel]({ err }, message)
    },
  }
}
