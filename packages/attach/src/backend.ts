/** Ways to make a volume a block device of this host. */
import { HoldfastError } from '@holdfast/base'
import { isInstalled } from './command.ts'
import type { BackendName } from './keeper-protocol.ts'
import type { KeptVolume } from './kept-volume.ts'

export interface DeviceBackend {
  readonly name: BackendName
  /** Why this host can't use it; undefined if it can. */
  usable(): Promise<string | undefined>
  /** Makes the device. @throws HoldfastError */
  connect(namespace: string, name: string): Promise<KeptVolume>
  /** Finds it again after a restart of the node; undefined if it has gone. Not confirmed yet. */
  adopt(namespace: string, name: string, device: string): Promise<KeptVolume | undefined>
  /** Takes the device away. @throws HoldfastError HF_CONFLICT if it is in use and `force` is false. */
  disconnect(volume: KeptVolume, force: boolean): Promise<void>
}

/** What every backend needs on the host. */
const PROGRAMS = ['blkid', 'mount', 'umount']

/** The first of them that works here. @throws HoldfastError HF_UNAVAILABLE that says what each one lacks. */
export async function chooseBackend(backends: readonly DeviceBackend[]): Promise<DeviceBackend> {
  const missing: string[] = []
  for (const program of PROGRAMS) if (!(await isInstalled(program))) missing.push(program)
  if (missing.length > 0) {
    const programs = `${missing.join(', ')} (Debian: mount, util-linux)`
    const message = `volumes can't be attached here: install ${programs}`
    throw new HoldfastError('HF_UNAVAILABLE', message)
  }
  const reasons: string[] = []
  for (const backend of backends) {
    const reason = await backend.usable()
    if (reason === undefined) return backend
    reasons.push(`${backend.name}: ${reason}`)
  }
  throw new HoldfastError('HF_UNAVAILABLE', `volumes can't be attached here: ${reasons.join('; ')}`)
}
