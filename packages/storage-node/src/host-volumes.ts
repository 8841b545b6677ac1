/**
 * The volumes of this host as devices and mounts, and Docker's way to them. Both servers that lead there listen before
 * the engine runs, so that nobody finds a socket missing; who comes early waits.
 */
import { join } from 'node:path'
import { type ClosableVolumeMounts, openVolumeMounts } from '@holdfast/attach'
import {
  type EventLog,
  HoldfastError,
  type MountedVolume,
  type MountRequest,
  type VolumeMounts,
} from '@holdfast/base'
import type { Engine } from '@holdfast/engine'
import { type NodeConfig, SOCKET_PATH_MAX } from './config.ts'

/** An engine that reaches its coordinator is ready long before. Docker asks twice, and shall have its answer in 10 s. */
const EARLY_MS = 4_000

/** Stands for the mounts of this host until they are open. */
export class LateMounts implements VolumeMounts {
  #mounts: ClosableVolumeMounts | undefined
  readonly #waiting: (() => void)[] = []

  set(mounts: ClosableVolumeMounts): void {
    this.#mounts = mounts
    for (const go of this.#waiting.splice(0)) go()
  }

  /** @throws HoldfastError HF_UNAVAILABLE when the node does not become ready soon. */
  async ready(): Promise<ClosableVolumeMounts> {
    if (this.#mounts === undefined) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, EARLY_MS)
        this.#waiting.push(() => {
          clearTimeout(timer)
          resolve()
        })
      })
    }
    if (this.#mounts !== undefined) return this.#mounts
    const message = 'this node does not reach its coordinator: look at its log, and at holdfast status'
    throw new HoldfastError('HF_UNAVAILABLE', message)
  }

  async mount(request: MountRequest): Promise<{ readonly path: string }> {
    return (await this.ready()).mount(request)
  }
  async unmount(namespace: string, name: string, mountId: string): Promise<void> {
    return (await this.ready()).unmount(namespace, name, mountId)
  }
  async attach(namespace: string, name: string): Promise<{ readonly device: string }> {
    return (await this.ready()).attach(namespace, name)
  }
  async detach(namespace: string, name: string): Promise<void> {
    return (await this.ready()).detach(namespace, name)
  }
  list(): readonly MountedVolume[] {
    return this.#mounts?.list() ?? []
  }
}

/** Finds again what an earlier process attached. The NBD server has to listen already. */
export async function openHostVolumes(
  { dataDir, deviceSocket }: NodeConfig,
  engine: Engine,
  bootId: string,
  events: EventLog,
): Promise<ClosableVolumeMounts> {
  const { attachments } = engine
  const mounts = await openVolumeMounts({
    desk: {
      claim: async (namespace, name) => {
        if (deviceSocket.length > SOCKET_PATH_MAX) {
          const message = `${deviceSocket} is too long for a socket: give a shorter one with --nbd-socket`
          throw new HoldfastError('HF_BAD_REQUEST', message)
        }
        return await attachments.claim(namespace, name)
      },
      reconfirm: (namespace, name, right) => attachments.reconfirm(namespace, name, right),
      rights: () => attachments.rights(),
      release: (namespace, name) => attachments.release(namespace, name),
      holder: (namespace, name) => attachments.holder(namespace, name),
    },
    nbdSocket: deviceSocket,
    stateDir: join(dataDir, 'attach'),
    mountRoot: join(dataDir, 'mounts'),
    bootId,
    events,
  })
  attachments.onLost((namespace, name) => mounts.lost(namespace, name))
  return mounts
}
