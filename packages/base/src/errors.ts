/**
 * Operating errors: one class, a closed list of codes, the traits of each code in one table.
 * NBD, REST, the command line and the log level read the table; nobody matches message text.
 */

/** Linux errno values that NBD may carry (NBD protocol, "Error values"). */
export const errno = {
  OK: 0,
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const
export type Errno = (typeof errno)[keyof typeof errno]

interface ErrorTraits {
  readonly retry: 'never' | 'later' | 'after-failover'
  readonly errno: Errno
  readonly http: number
  readonly level: 'info' | 'warn' | 'error'
}

export const errorTraits = {
  HF_BAD_REQUEST: { retry: 'never', errno: errno.EINVAL, http: 400, level: 'info' },
  HF_NOT_FOUND: { retry: 'never', errno: errno.EINVAL, http: 404, level: 'info' },
  HF_CONFLICT: { retry: 'never', errno: errno.EINVAL, http: 409, level: 'info' },
  HF_NOT_PRIMARY: { retry: 'after-failover', errno: errno.EIO, http: 409, level: 'info' },
  HF_UNAUTHORIZED: { retry: 'never', errno: errno.EPERM, http: 401, level: 'info' },
  HF_READ_ONLY: { retry: 'never', errno: errno.EPERM, http: 403, level: 'info' },
  HF_TOO_FEW_REPLICAS: { retry: 'later', errno: errno.EIO, http: 503, level: 'warn' },
  HF_TOO_FEW_NODES: { retry: 'later', errno: errno.EINVAL, http: 409, level: 'warn' },
  HF_NO_SPACE: { retry: 'never', errno: errno.ENOSPC, http: 507, level: 'error' },
  HF_DAMAGED: { retry: 'never', errno: errno.EIO, http: 500, level: 'error' },
  HF_IO: { retry: 'later', errno: errno.EIO, http: 500, level: 'error' },
  HF_UNAVAILABLE: { retry: 'later', errno: errno.EIO, http: 503, level: 'warn' },
  HF_TIMEOUT: { retry: 'later', errno: errno.EIO, http: 504, level: 'warn' },
} as const satisfies Record<string, ErrorTraits>

export type ErrorCode = keyof typeof errorTraits

/** `details` hold ids and numbers, never block contents or keys. */
export class HoldfastError extends Error {
  override readonly name = 'HoldfastError'
  readonly code: ErrorCode
  readonly details: Readonly<Record<string, string | number | boolean>>
  constructor(
    code: ErrorCode,
    message: string,
    details: Readonly<Record<string, string | number | boolean>> = {},
    options?: { cause?: unknown },
  ) {
    super(message, options)
    this.code = code
    this.details = details
  }
}

/** True for any HoldfastError, across copies of this module. */
export function isHoldfastError(error: unknown): error is HoldfastError {
  return error instanceof Error && error.name === 'HoldfastError' && 'code' in error
}
