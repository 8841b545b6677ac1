/**
 * Several threads of one simulated process: an engine in each, what they tell each other on the way for a while, and now and
 * then one of them held up while the others go on.
 */
import type { MessagePort } from 'node:worker_threads'
import type { ClusterAdmin, EngineStatistics, ExportCatalog, VolumeId } from '@holdfast/base'
import { remoteCoordinator, SharedCoordinator } from '@holdfast/coordinator/shared'
import type { Coordinator } from '@holdfast/base'
import type { Engine } from '@holdfast/engine'
import type { Life, SeededRandom, World } from './world.ts'

type Listener = (message: unknown) => void

/** The coordinators of all threads of a process; the first one's is its own. */
export function threadCoordinators(
  world: World,
  random: SeededRandom,
  real: Coordinator,
  threads: readonly Life[],
): readonly Coordinator[] {
  const main = threads[0] as Life
  const shared = new SharedCoordinator(real, {
    every: (ms, task) => {
      let cancel = (): void => {}
      const again = (): void => {
        cancel = world.timer(ms, main, () => {
          again()
          task()
        })
      }
      again()
      return () => cancel()
    },
    soon: (task) => void world.schedule(0, main, task),
  })
  return threads.map((thread, index) => {
    if (index === 0) return shared.local()
    const [near, far] = channel(world, random, main, thread)
    shared.serve(near)
    return remoteCoordinator(far, shared.memory.buffer)
  })
}

/** Ordered in each direction; mostly fast, sometimes not. */
function channel(world: World, random: SeededRandom, a: Life, b: Life): readonly [MessagePort, MessagePort] {
  const listeners: [Listener | undefined, Listener | undefined] = [undefined, undefined]
  const readyAt = [0, 0]
  const lives = [a, b]
  const port = (side: 0 | 1): MessagePort => {
    const other = side === 0 ? 1 : 0
    const made = {
      postMessage: (message: unknown) => {
        const takes = random.chance(0.02) ? random.between(1, 120) : random.between(0.01, 0.3)
        const at = Math.max(readyAt[side] as number, world.now + takes)
        readyAt[side] = at
        world.scheduleAt(at, lives[other], () => listeners[other]?.(message))
      },
      on: (_event: 'message', listener: Listener) => {
        listeners[side] = listener
      },
      close: () => {},
    }
    return made as unknown as MessagePort
  }
  return [port(0), port(1)]
}

/** Holds one thread up, again and again, while `lasts`. */
export function stallThreads(world: World, random: SeededRandom, threads: readonly Life[], lasts: () => boolean): void {
  const next = (): void => {
    world.schedule(random.between(50, 2_000), threads[0], () => {
      if (!lasts()) return
      const thread = threads[random.below(threads.length)] as Life
      const ms = random.chance(0.1) ? random.between(300, 2_500) : random.between(1, 150)
      world.note(`a thread is held up for ${ms.toFixed(0)} ms`)
      thread.pausedUntil = Math.max(thread.pausedUntil, world.now + ms)
      next()
    })
  }
  next()
}

/** All engines of a process as the one that its clients and checkers see. */
export class ThreadedEngine implements Engine {
  readonly #engines: readonly Engine[]
  readonly exports: ExportCatalog

  constructor(engines: readonly Engine[]) {
    this.#engines = engines
    const home = (name: string): Engine => engines[this.#first.exports.away?.(name) ?? 0] as Engine
    this.exports = {
      list: () => this.#first.exports.list(),
      find: (name) => home(name).exports.find(name),
      open: (name, completion) => home(name).exports.open(name, completion),
    }
  }

  get #first(): Engine {
    return this.#engines[0] as Engine
  }

  get admin(): ClusterAdmin {
    return this.#first.admin
  }
  get attachments(): Engine['attachments'] {
    return this.#first.attachments
  }
  get replicas(): Engine['replicas'] {
    return {
      get: (volume: VolumeId) => this.#engines.map(({ replicas }) => replicas.get(volume)).find((one) => one !== undefined),
    } as Engine['replicas']
  }

  start(): void {
    for (const engine of this.#engines) engine.start()
  }

  statistics(): EngineStatistics {
    return this.#first.statistics()
  }

  stop(done: () => void): void {
    let left = this.#engines.length
    for (const engine of this.#engines) {
      engine.stop(() => {
        if (--left === 0) done()
      })
    }
  }
}
