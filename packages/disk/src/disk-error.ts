/** Errors of the kernel to those of the Disk port: the one conversion. */
import type { DiskError } from '@holdfast/base'

const NO_SPACE = new Set(['ENOSPC', 'EDQUOT', 'EFBIG'])

export function diskError(error: unknown): DiskError {
  const code =
    typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : ''
  const message = error instanceof Error ? error.message : String(error)
  if (NO_SPACE.has(code)) return { kind: 'no-space', message }
  return { kind: code === 'ENOENT' ? 'absent' : 'io', message }
}

/** For callbacks that get an error or nothing. */
export function diskErrorOrNone(error: unknown): DiskError | undefined {
  return error === undefined || error === null ? undefined : diskError(error)
}
