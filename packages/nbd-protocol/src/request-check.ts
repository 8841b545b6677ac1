/**
 * What makes a request wrong and which error the protocol document names for it ("Error values" and
 * the sections of the request types). Checked completely before anything is done.
 */
import { type Errno, errno } from '@holdfast/base'
import * as nbd from './constants.ts'

export interface RequestRules {
  readonly sizeBytes: number
  readonly readOnly: boolean
  readonly structuredReplies: boolean
  readonly extendedHeaders: boolean
  readonly blockStatus: boolean
}

/** Flags valid for each request type; FUA is valid everywhere. */
const flagsOf: readonly number[] = [
  nbd.NBD_CMD_FLAG_FUA | nbd.NBD_CMD_FLAG_DF,
  nbd.NBD_CMD_FLAG_FUA,
  nbd.NBD_CMD_FLAG_FUA,
  nbd.NBD_CMD_FLAG_FUA,
  nbd.NBD_CMD_FLAG_FUA,
  nbd.NBD_CMD_FLAG_FUA,
  nbd.NBD_CMD_FLAG_FUA | nbd.NBD_CMD_FLAG_NO_HOLE | nbd.NBD_CMD_FLAG_FAST_ZERO,
  nbd.NBD_CMD_FLAG_FUA | nbd.NBD_CMD_FLAG_REQ_ONE,
]

/**
 * The error for a request, or OK. PAYLOAD_LEN is the parser's affair and not among `flags`. An
 * `offset` or `length` of 2^53 or more need not be exact: no export is that large.
 */
export function checkRequest(
  rules: RequestRules,
  type: number,
  flags: number,
  offset: number,
  length: number,
): Errno {
  const valid = flagsOf[type]
  if (valid === undefined || (flags & ~valid) !== 0) return errno.EINVAL
  const inside = offset + length <= rules.sizeBytes
  switch (type) {
    case nbd.NBD_CMD_READ:
      if (!inside) return errno.EINVAL
      if ((flags & nbd.NBD_CMD_FLAG_DF) !== 0 && !rules.structuredReplies) return errno.EINVAL
      if (length <= nbd.PAYLOAD_BYTES_MAX) return errno.OK
      return rules.structuredReplies ? errno.EOVERFLOW : errno.EINVAL
    case nbd.NBD_CMD_WRITE:
      if (rules.readOnly) return errno.EPERM
      if (length > nbd.PAYLOAD_BYTES_MAX) return errno.EINVAL
      return inside ? errno.OK : errno.ENOSPC
    case nbd.NBD_CMD_WRITE_ZEROES:
      if (rules.readOnly) return errno.EPERM
      return inside ? errno.OK : errno.ENOSPC
    case nbd.NBD_CMD_TRIM:
      if (rules.readOnly) return errno.EPERM
      return inside ? errno.OK : errno.EINVAL
    case nbd.NBD_CMD_FLUSH:
      return offset === 0 && length === 0 ? errno.OK : errno.EINVAL
    case nbd.NBD_CMD_BLOCK_STATUS:
      return rules.blockStatus && inside && length > 0 ? errno.OK : errno.EINVAL
    default:
      return inside ? errno.OK : errno.EINVAL
  }
}
