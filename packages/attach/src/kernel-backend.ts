/** Devices of the kernel's own NBD client. */
import { accessSync, constants, existsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { basename } from 'node:path'
import type { DeviceBackend } from './backend.ts'
import { run } from './command.ts'
import type { KeeperSpec } from './keeper-protocol.ts'
import { KeptVolume, keeperFolder, removeKeeperFolder } from './kept-volume.ts'

export interface KernelBackendOptions {
  readonly stateDir: string
  readonly nbdSocket: string
  readonly requestTimeoutSeconds: number
}

/**
 * The device waits that long for a node before it gives errors: until somebody says that the volume is lost.
 */
const DEAD_TIMEOUT_SECONDS = 30 * 24 * 3600
const CONNECTIONS_MAX = 4

export function kernelBackend(options: KernelBackendOptions): DeviceBackend {
  const spec = (namespace: string, name: string): KeeperSpec => ({
    backend: 'kernel-nbd',
    namespace,
    name,
    nbdSocket: options.nbdSocket,
    connections: Math.max(2, Math.min(CONNECTIONS_MAX, availableParallelism())),
    requestTimeoutSeconds: options.requestTimeoutSeconds,
    deadTimeoutSeconds: DEAD_TIMEOUT_SECONDS,
  })
  return {
    name: 'kernel-nbd',
    usable: () => whyUnusable(),
    connect: (namespace, name) =>
      KeptVolume.start(keeperFolder(options.stateDir, namespace, name), spec(namespace, name)),
    async adopt(namespace, name, device) {
      const folder = keeperFolder(options.stateDir, namespace, name)
      const kept = await KeptVolume.find(folder)
      if (kept !== undefined) return kept
      await removeKeeperFolder(folder)
      // The kernel has kept it; only its keeper has to be replaced.
      if (!existsSync(`/sys/block/${basename(device)}/pid`)) return undefined
      return KeptVolume.start(folder, { ...spec(namespace, name), adoptDevice: device })
    },
    disconnect: (volume, force) => volume.end(force),
  }
}

async function whyUnusable(): Promise<string | undefined> {
  try {
    accessSync('/sys/module/nbd', constants.R_OK)
  } catch {
    await run('modprobe', ['nbd']).catch(() => undefined)
  }
  try {
    // Only here: a host without the addon's kernel parts can still use the other backend.
    const { NbdControl } = await import('./nbd-netlink.ts')
    const control = await NbdControl.open()
    await control.close()
    return undefined
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error)
    return `the kernel module nbd is not there or not for this network namespace (modprobe nbd): ${said}`
  }
}
