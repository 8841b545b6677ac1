/** The node as a process: the `ready` line, signals, exit codes. */
import { InvariantError, isHoldfastError } from '@holdfast/base'
import type { NodeConfig } from './config.ts'
import { collectLessOften } from './garbage-collection.ts'
import { createLog, type NodeLog } from './logger.ts'
import { type NodeAddresses, openStorageNode } from './node.ts'

/** EX_SOFTWARE of sysexits.h: a bug of ours. The supervisor starts the node again, the log recovers. */
export const EXIT_BUG = 70
const EXIT_FAILED = 1
/** A clean stop that takes longer is not going to end: a peer or the coordinator does not answer. */
const STOP_TIMEOUT_MS = 30_000
const SIGNALS = ['SIGTERM', 'SIGINT'] as const

/**
 * Runs a node until a signal ends it. Returns the exit code of the process; throws the HoldfastError that
 * kept the node from starting.
 *
 * @param ready Called when the node serves, after the `ready` line was printed.
 */
export async function runStorageNode(
  config: NodeConfig,
  ready: (addresses: NodeAddresses) => void,
): Promise<number> {
  const log = createLog(config.logLevel, config.name)
  exitOnBugs(log)
  collectLessOften()
  const signals = new Signals(log)
  const node = openStorageNode(config, log)
  void signals.first.then(() => node.close())
  try {
    await node.serving
    process.stdout.write(`${readyLine(config, node.addresses())}\n`)
    ready(node.addresses())
  } catch (error) {
    if (!isHoldfastError(error) || !signals.received) {
      await node.close()
      signals.end()
      throw error
    }
  }
  await signals.first
  const late = setTimeout(() => {
    log.event('error', 'the stop takes too long and is cut off: the log recovers at the next start')
    process.exit(EXIT_FAILED)
  }, STOP_TIMEOUT_MS)
  await node.close()
  clearTimeout(late)
  log.event('info', 'stopped')
  signals.end()
  return 0
}

/** `ready` and what a script wants to know, as `key=value`. */
export function readyLine(config: NodeConfig, addresses: NodeAddresses): string {
  const socket = config.nbdSocket === undefined ? '' : ` nbd-socket=${config.nbdSocket}`
  const { nbd, api, peer } = addresses
  return `ready node=${config.name} nbd=${nbd}${socket} api=${api} peer=${peer}`
}

/** The first signal asks for a clean stop, the second ends the process. */
class Signals {
  readonly first: Promise<void>
  readonly #log: NodeLog
  readonly #handler: (signal: NodeJS.Signals) => void
  #received = false

  constructor(log: NodeLog) {
    this.#log = log
    let resolve = (): void => {}
    this.first = new Promise((done) => {
      resolve = done
    })
    this.#handler = (signal) => this.#signal(signal, resolve)
    for (const signal of SIGNALS) process.on(signal, this.#handler)
  }

  get received(): boolean {
    return this.#received
  }

  end(): void {
    for (const signal of SIGNALS) process.off(signal, this.#handler)
  }

  #signal(signal: NodeJS.Signals, first: () => void): void {
    if (this.#received) {
      this.#log.event('warn', 'forced to stop by a second signal', { signal })
      process.exit(EXIT_FAILED)
    }
    this.#received = true
    this.#log.event('info', 'stopping: a second signal forces it', { signal })
    first()
  }
}

// A rejected promise that nobody awaits arrives here too; so does what the engine's callbacks throw.
function exitOnBugs(log: NodeLog): void {
  process.on('uncaughtException', (error) => endOnBug(log, error))
  process.on('unhandledRejection', (error) => endOnBug(log, error))
}

/** Nothing is saved: what the broken state would write is worth less than what the log has. */
function endOnBug(log: NodeLog, error: unknown): never {
  const what =
    error instanceof InvariantError ? 'an invariant is broken' : 'an error was not handled'
  log.failure('error', `${what}: the process ends so that it can recover from its log`, error)
  process.exit(EXIT_BUG)
}
