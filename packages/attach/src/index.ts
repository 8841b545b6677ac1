/** Volumes as devices and mounted filesystems of this host. */
import { resolve } from 'node:path'
import type { AttachmentDesk, EventLog, VolumeMounts } from '@holdfast/base'
import { DeviceTable } from './device-table.ts'
import { fuseBackend } from './fuse-backend.ts'
import { HostMounts } from './host-mounts.ts'
import { kernelBackend } from './kernel-backend.ts'
import { AttachmentState } from './state-file.ts'

export { programArguments } from './script.ts'

export interface VolumeMountsOptions {
  readonly desk: AttachmentDesk
  /** Unix socket of the node's NBD server; exports are named `namespace/name`. */
  readonly nbdSocket: string
  /** Where it keeps what it has to know after a restart. */
  readonly stateDir: string
  /** Volumes are mounted on `mountRoot/namespace/name`. */
  readonly mountRoot: string
  /** Changes when the host boots: nothing attached before is there then. */
  readonly bootId: string
  readonly events: EventLog
  readonly timings?:
    | {
        /** How long a volume stays mounted after its last user has left; 3000. */
        readonly lingerMs?: number | undefined
        /** How long a mount waits for another host to let go of the volume; 5000. */
        readonly claimPatienceMs?: number | undefined
        /**
         * How long the kernel's NBD client waits for an answer before it sends the request on another
         * connection, seconds; 20. So long can a restart of the node take for requests that were on their
         * way. More than a failover needs.
         */
        readonly requestTimeoutSeconds?: number | undefined
      }
    | undefined
}

export interface ClosableVolumeMounts extends VolumeMounts {
  /**
   * Lets go; what is in use stays mounted, and waits for the next node process, unless `keepMounted` is
   * false.
   */
  close(options?: { readonly keepMounted: boolean }): Promise<void>
  /** The right to the volume has gone: its device gives errors from now on. */
  lost(namespace: string, name: string): void
}

/** Opens the attachments of this host, and adopts those of the node process before. */
export async function openVolumeMounts(options: VolumeMountsOptions): Promise<ClosableVolumeMounts> {
  const stateDir = resolve(options.stateDir)
  const nbdSocket = resolve(options.nbdSocket)
  const requestTimeoutSeconds = options.timings?.requestTimeoutSeconds ?? 20
  const mountRoot = resolve(options.mountRoot)
  const { desk, events } = options
  const devices = new DeviceTable({
    desk,
    backends: [
      kernelBackend({ stateDir, nbdSocket, requestTimeoutSeconds }),
      fuseBackend({ stateDir, nbdSocket }),
    ],
    state: new AttachmentState(stateDir, options.bootId),
    stateDir,
    mountRoot,
    events,
    claimPatienceMs: options.timings?.claimPatienceMs ?? 5000,
  })
  const lingerMs = options.timings?.lingerMs ?? 3000
  const mounts = new HostMounts({ devices, mountRoot, events, lingerMs })
  await mounts.restore()
  return mounts
}
