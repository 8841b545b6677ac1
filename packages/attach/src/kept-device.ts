/** What a keeper holds, whichever way it is made. */
import { closeSync, constants, openSync } from 'node:fs'
import { HoldfastError } from '@holdfast/base'
import { sleep } from './gate.ts'

/** A device that a keeper holds. */
export interface KeptDevice {
  /** Makes it; its path. */
  start(): Promise<string>
  /** Takes it away. @throws HoldfastError HF_CONFLICT if it is in use and `force` is false. */
  stop(force: boolean): Promise<void>
  /** Errors from now on. */
  fail(): void
  /** Resolves when the device has gone without `stop`. */
  readonly gone: Promise<void>
}

/**
 * @throws HoldfastError HF_CONFLICT if the device is mounted or held by anybody, in whatever mount namespace.
 */
export async function requireUnused(device: string): Promise<void> {
  // Others open devices for a moment, to look at them.
  for (let attempt = 0; attempt < 20; attempt++) {
    try {
      closeSync(openSync(device, constants.O_RDONLY | constants.O_EXCL))
      return
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EBUSY') return
    }
    await sleep(50)
  }
  throw new HoldfastError('HF_CONFLICT', `${device} is in use: unmount it everywhere first`)
}
