/** Loop devices over nbdfuse, for kernels without nbd and for hosts in a container. */
import { accessSync, constants } from 'node:fs'
import type { DeviceBackend } from './backend.ts'
import { isInstalled, notInstalled } from './command.ts'
import { KeptVolume, keeperFolder } from './kept-volume.ts'

export function fuseBackend(options: {
  readonly stateDir: string
  readonly nbdSocket: string
}): DeviceBackend {
  return {
    name: 'nbdfuse',
    async usable() {
      for (const program of ['nbdfuse', 'losetup', 'blkdiscard']) {
        if (!(await isInstalled(program))) return notInstalled(program).message
      }
      for (const device of ['/dev/fuse', '/dev/loop-control']) {
        try {
          accessSync(device, constants.R_OK | constants.W_OK)
        } catch {
          return `${device} can't be opened: run as root, and load the kernel modules fuse and loop`
        }
      }
      return undefined
    },
    connect: (namespace, name) =>
      KeptVolume.start(keeperFolder(options.stateDir, namespace, name), {
        backend: 'nbdfuse',
        namespace,
        name,
        nbdSocket: options.nbdSocket,
        connections: 1,
        requestTimeoutSeconds: 0,
        deadTimeoutSeconds: 0,
      }),
    adopt: (namespace, name) => KeptVolume.find(keeperFolder(options.stateDir, namespace, name)),
    disconnect: (volume, force) => volume.end(force),
  }
}
