/** Every error as `{error: {code, message, details}}` with the status that its traits name. */
import {
  type ErrorCode,
  type EventLog,
  errorTraits,
  InvariantError,
  isHoldfastError,
} from '@holdfast/base'
import type { ErrorBody } from './objects.ts'

export interface ErrorReply {
  readonly status: number
  readonly body: ErrorBody
}

/** @param where Method and path, for the log. */
export function errorReply(error: unknown, where: string, events: EventLog): ErrorReply {
  if (isHoldfastError(error)) {
    const { http, level } = errorTraits[error.code]
    if (level !== 'info')
      events.event(level, `request failed: ${error.message}`, { request: where, code: error.code })
    const { code, message, details } = error
    return { status: http, body: { error: { code, message, details } } }
  }
  if (error instanceof InvariantError) {
    // The process must end; an answered request must not hide that. Thrown where nobody catches it.
    setImmediate(() => {
      throw error
    })
  }
  const { statusCode = 500, message = String(error) } = error as {
    statusCode?: number
    message?: string
  }
  if (statusCode >= 400 && statusCode < 500)
    return reply(statusCode, 'HF_BAD_REQUEST', sentence(statusCode, message))
  events.event('error', `request failed: ${message}`, { request: where })
  return reply(500, 'HF_IO', 'the node failed to answer: its log says why')
}

function reply(status: number, code: ErrorCode, message: string): ErrorReply {
  return { status, body: { error: { code, message, details: {} } } }
}

/** What the HTTP framework refused, in our words. */
function sentence(statusCode: number, message: string): string {
  if (statusCode === 413) return 'the body is too large: no request needs more than 64 KiB'
  if (statusCode === 415) return 'the body must be JSON: send Content-Type: application/json'
  return `the request can't be read: ${message.charAt(0).toLowerCase()}${message.slice(1)}`
}
