/** Real etcd processes on loopback for tests and benches: free ports, data in a temp folder. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface EtcdTestMember {
  /** `host:port` for clients. */
  readonly endpoint: string
  /** Of the running process; undefined while stopped. */
  readonly pid: number | undefined
  /** SIGKILL, and waits for the end. The data stay. */
  stop(): Promise<void>
  /** Starts on the same data and ports; resolves when it serves (for a majority). */
  start(): Promise<void>
  signal(name: NodeJS.Signals): void
}

export interface EtcdTestCluster {
  /** `host:port` of each member. */
  readonly endpoints: readonly string[]
  /** For `--coordinator`. */
  readonly url: string
  readonly members: readonly EtcdTestMember[]
  /** Ends all processes and removes their data. */
  close(): Promise<void>
}

export interface EtcdTestOptions {
  readonly memberCount?: 1 | 3 | undefined
  /** Default 100. etcd's shortest lease is 1.5 election timeouts, in whole seconds. */
  readonly heartbeatMs?: number | undefined
  /** Default 500, so that a lease of 1 s is possible. */
  readonly electionMs?: number | undefined
}

const START_MS = 20_000

export async function startEtcdForTests(options: EtcdTestOptions = {}): Promise<EtcdTestCluster> {
  const { memberCount = 1, heartbeatMs = 100, electionMs = 500 } = options
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-etcd-'))
  const ports = await freePorts(memberCount * 2)
  const plans = Array.from({ length: memberCount }, (_, i) => ({
    name: `member${i}`,
    client: `127.0.0.1:${ports[2 * i]}`,
    peer: `127.0.0.1:${ports[2 * i + 1]}`,
  }))
  const cluster = plans.map(({ name, peer }) => `${name}=http://${peer}`).join(',')
  const members = plans.map(({ name, client, peer }) => {
    const args = [
      ['--name', name, '--data-dir', join(folder, name)],
      ['--listen-client-urls', `http://${client}`, '--advertise-client-urls', `http://${client}`],
      ['--listen-peer-urls', `http://${peer}`, '--initial-advertise-peer-urls', `http://${peer}`],
      ['--initial-cluster', cluster, '--initial-cluster-state', 'new'],
      ['--heartbeat-interval', String(heartbeatMs), '--election-timeout', String(electionMs)],
      ['--initial-cluster-token', folder, '--logger', 'zap', '--log-level', 'error'],
    ]
    return new EtcdProcess(client, args.flat())
  })
  const close = async (): Promise<void> => {
    await Promise.all(members.map((member) => member.stop()))
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    await Promise.all(members.map((member) => member.start()))
  } catch (error) {
    await close()
    throw error
  }
  const endpoints = plans.map(({ client }) => client)
  return { endpoints, url: `etcd://${endpoints.join(',')}`, members, close }
}

class EtcdProcess implements EtcdTestMember {
  readonly endpoint: string
  readonly #args: readonly string[]
  #child: ChildProcess | undefined
  #stderr = ''

  constructor(endpoint: string, args: readonly string[]) {
    this.endpoint = endpoint
    this.#args = args
  }

  get pid(): number | undefined {
    return this.#child?.pid
  }

  async start(): Promise<void> {
    if (this.#child !== undefined) return
    const child = spawn('etcd', this.#args, { stdio: ['ignore', 'ignore', 'pipe'] })
    this.#child = child
    child.on('error', (error) => {
      this.#stderr += error.message
    })
    child.stderr?.on('data', (text: Buffer) => {
      this.#stderr = (this.#stderr + text.toString()).slice(-4096)
    })
    // A test run that is killed must not leave its etcd behind.
    const killNow = (): void => void child.kill('SIGKILL')
    process.once('exit', killNow)
    child.once('exit', () => {
      process.removeListener('exit', killNow)
      if (this.#child === child) this.#child = undefined
    })
    await this.#ready(child)
  }

  async stop(): Promise<void> {
    const child = this.#child
    if (child === undefined) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGKILL')
    await ended
  }

  signal(name: NodeJS.Signals): void {
    this.#child?.kill(name)
  }

  async #ready(child: ChildProcess): Promise<void> {
    const giveUpAt = performance.now() + START_MS
    while (performance.now() < giveUpAt) {
      if (child.pid === undefined || child.exitCode !== null) break
      try {
        const answer = await fetch(`http://${this.endpoint}/health`, {
          signal: AbortSignal.timeout(1000),
        })
        if (answer.ok && ((await answer.json()) as { health?: string }).health === 'true') return
      } catch {
        // Not listening yet.
      }
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    throw new Error(`etcd does not start at ${this.endpoint}: ${this.#stderr}`)
  }
}

/** Ports that were free a moment ago, all different. */
async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer()
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      return server
    }),
  )
  const ports = servers.map((server) => {
    const address = server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  })
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}
