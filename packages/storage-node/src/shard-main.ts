/** A shard that is not the first: the main program of its thread. */
import { parentPort, workerData } from 'node:worker_threads'
import { assert } from '@holdfast/base'
import { remoteCoordinator } from '@holdfast/coordinator/shared'
import { nativeChecksum, openDisk } from '@holdfast/disk'
import { createEngine, type Engine, type EngineSelf } from '@holdfast/engine'
import { type NbdServer, startNbdServer } from '@holdfast/nbd-server'
import { createShardNetwork, type ShardNetwork } from '@holdfast/peer-link'
import { nbdLimits, openKeepAwake } from './adapters.ts'
import type { KeepAwake } from './keep-awake.ts'
import { createLog } from './logger.ts'
import { cryptoRandom, systemClock, systemScheduler } from './production-ports.ts'
import type { FromShard, ShardBirth, ToShard } from './shard-protocol.ts'

const READY_POLL_MS = 10

interface Running {
  readonly engine: Engine
  readonly network: ShardNetwork
  readonly nbd: NbdServer
  readonly keepAwake: KeepAwake | undefined
}

const birth = workerData as ShardBirth
const events = createLog(birth.logLevel, birth.node, birth.shard.index)
let starting: Promise<Running> | undefined

async function start(self: EngineSelf): Promise<Running> {
  const { shard, node, cluster, bootId, settings, dataDir } = birth
  const network = createShardNetwork({ self: { node, incarnation: self.incarnation, cluster }, events, shard })
  const scheduler = systemScheduler
  const engine = createEngine({
    self,
    bootId,
    shard,
    ports: {
      clock: systemClock,
      scheduler,
      random: cryptoRandom,
      disk: openDisk(dataDir, shard),
      checksum: nativeChecksum,
      network,
      coordinator: remoteCoordinator(birth.coordinator, birth.leaseMemory),
      events,
    },
    settings,
  })
  engine.start()
  const nbd = await startNbdServer({
    catalog: engine.exports,
    listeners: [],
    limits: nbdLimits(shard),
    events,
    adoptedClosed: () => say({ kind: 'nbd-closed' }),
  })
  const look = (): void => {
    if (engine.admin.readiness().ready) say({ kind: 'ready' })
    else scheduler.after(READY_POLL_MS, look)
  }
  look()
  const work = (): number => nbd.counters.requests + network.received
  const keepAwake = birth.keepAwake ? openKeepAwake(shard, work, scheduler, events) : undefined
  return { engine, network, nbd, keepAwake }
}

function say(message: FromShard): void {
  parentPort?.postMessage(message)
}

function report({ engine, nbd, keepAwake }: Running, id: number): void {
  const replicas = new Map([...engine.replicas].map(([volume, replica]) => [volume, replica.view()]))
  const awake = keepAwake?.awake ?? false
  say({ kind: 'report', id, report: { statistics: engine.statistics(), replicas, nbd: { ...nbd.counters }, awake } })
}

/** In the order of the messages, whatever each of them has to wait for: a rejection is a bug and ends the process. */
async function take(message: ToShard): Promise<void> {
  if (message.kind === 'start') {
    starting = start(message.self)
    await starting
    return
  }
  assert(starting !== undefined, 'a shard is told to start first')
  const running = await starting
  switch (message.kind) {
    case 'nbd':
      running.nbd.adopt(message.handed)
      break
    case 'peer':
      running.network.adopt(message.handed)
      break
    case 'report':
      report(running, message.id)
      break
    case 'close-nbd':
      await running.nbd.close()
      say({ kind: 'nbd-closed-all' })
      break
    case 'stop':
      await running.nbd.close()
      await new Promise<void>((done) => running.engine.stop(done))
      await running.network.close()
      running.keepAwake?.close()
      say({ kind: 'stopped' })
      parentPort?.close()
      break
  }
}

parentPort?.on('message', (message: ToShard) => void take(message))
