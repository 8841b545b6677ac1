/** Real `holdfast node` processes and a real etcd on loopback, for one test; everything is gone afterwards. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type EtcdTestCluster, startEtcdForTests } from '@holdfast/coordinator/testing'
import { Hopeless, waitUntil } from '../support/waiting.ts'

const run = promisify(execFile)
const PROGRAM = new URL('../../packages/cli/bin/holdfast.js', import.meta.url).pathname

export interface ClusterOptions {
  readonly nodes: readonly string[]
  /** Without etcd each node is alone, with its embedded coordinator. */
  readonly etcd?: boolean
  readonly leaseTtlSeconds?: number
  /** Puts the data of a node elsewhere: a small filesystem, say. */
  readonly dataDir?: (node: string) => string | undefined
  /** Further arguments of a node. */
  readonly more?: (node: string) => readonly string[]
}

export interface VolumeObject {
  readonly id: string
  readonly state: string
  readonly epoch: number
  readonly primary?: string
  readonly inSync: readonly string[]
  readonly replicas: readonly string[]
  /** What the node that was asked knows of its own copy. */
  readonly local?: { readonly role: string }
}

export class TestNode {
  readonly name: string
  readonly #arguments: readonly string[]
  readonly #log: string[] = []
  #process: ChildProcess | undefined
  #addresses = new Map<string, string>()

  constructor(name: string, args: readonly string[]) {
    this.name = name
    this.#arguments = args
  }

  get pid(): number {
    if (this.#process?.pid === undefined) throw new Error(`node ${this.name} does not run`)
    return this.#process.pid
  }
  get running(): boolean {
    return this.#process !== undefined && this.#process.exitCode === null && this.#process.signalCode === null
  }
  get api(): string {
    return `http://${this.#addresses.get('api')}`
  }
  /** What the node logged, all its lives together. */
  get log(): string {
    return this.#log.join('')
  }

  uri(volume: string): string {
    return `nbd://${this.#addresses.get('nbd')}/${volume}`
  }

  /** Resolves when the node has printed its line `ready`. */
  async start(): Promise<void> {
    const child = spawn(process.execPath, [PROGRAM, ...this.#arguments], { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#process = child
    let output = ''
    child.stderr.on('data', (text: Buffer) => this.#log.push(text.toString()))
    child.stdout.on('data', (text: Buffer) => {
      output += text.toString()
    })
    await waitUntil(`node ${this.name} to be ready`, 30_000, () => {
      if (child.exitCode !== null) throw new Hopeless(`node ${this.name} ended: ${this.log.slice(-2000)}`)
      return /^ready .*$/m.test(output)
    })
    const line = /^ready (.*)$/m.exec(output)?.[1] ?? ''
    this.#addresses = new Map(line.split(' ').map((part) => part.split('=') as [string, string]))
    // The same ports again after a restart: clients are still there.
  }

  signal(signal: NodeJS.Signals): void {
    this.#process?.kill(signal)
  }

  /** SIGKILL, or SIGTERM for a clean stop; resolves when the process is gone. */
  async stop(signal: 'SIGKILL' | 'SIGTERM' = 'SIGKILL'): Promise<void> {
    const child = this.#process
    if (child === undefined || !this.running) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGCONT')
    child.kill(signal)
    await ended
  }
}

export class TestCluster {
  readonly folder: string
  readonly nodes = new Map<string, TestNode>()
  readonly #children = new Set<ChildProcess>()
  etcd: EtcdTestCluster | undefined

  private constructor(folder: string) {
    this.folder = folder
  }

  static async start(options: ClusterOptions): Promise<TestCluster> {
    const cluster = new TestCluster(mkdtempSync(join(tmpdir(), 'holdfast-e2e-')))
    try {
      if (options.etcd !== false) cluster.etcd = await startEtcdForTests({})
      const ports = await freePorts(options.nodes.length * 3)
      options.nodes.forEach((name, index) => {
        const port = (offset: number): string => `127.0.0.1:${ports[index * 3 + offset]}`
        const args = [
          ['node', '--name', name, '--data-dir', options.dataDir?.(name) ?? join(cluster.folder, name)],
          ['--coordinator', cluster.etcd?.url ?? 'embedded'],
          ['--nbd', port(0), '--api', port(1), '--peer', port(2)],
          ['--lease-ttl', String(options.leaseTtlSeconds ?? 2)],
          options.more?.(name) ?? [],
        ]
        cluster.nodes.set(name, new TestNode(name, args.flat()))
      })
      await Promise.all([...cluster.nodes.values()].map((node) => node.start()))
      return cluster
    } catch (error) {
      await cluster.close()
      throw error
    }
  }

  node(name: string): TestNode {
    const node = this.nodes.get(name)
    if (node === undefined) throw new Error(`no node ${name} in this test`)
    return node
  }

  /** Runs the command line against a node that runs; its JSON. */
  async cli(args: readonly string[], via?: string): Promise<unknown> {
    const node = via === undefined ? [...this.nodes.values()].find((one) => one.running) : this.node(via)
    if (node === undefined) throw new Error('no node runs')
    const { stdout } = await run(process.execPath, [PROGRAM, ...args, '-o', 'json', '--api', node.api])
    return stdout.trim() === '' ? undefined : JSON.parse(stdout)
  }

  async volume(name: string, via?: string): Promise<VolumeObject> {
    const node = via === undefined ? [...this.nodes.values()].find((one) => one.running) : this.node(via)
    const response = await fetch(`${node?.api}/v1/volumes/${name}`)
    return (await response.json()) as VolumeObject
  }

  /** Waits until every copy is in sync and somebody serves. */
  async healthy(name: string, via?: string, ms = 30_000): Promise<VolumeObject> {
    let last: VolumeObject | undefined
    try {
      await waitUntil(`volume ${name} to be healthy`, ms, async () => {
        last = await this.volume(name, via)
        return last.state === 'healthy'
      })
    } catch (error) {
      const logs = [...this.nodes.values()].map((node) => `${node.name}: ${node.log.slice(-1500)}`)
      throw new Error([String(error), JSON.stringify(last), ...logs].join('\n'), { cause: error })
    }
    return last as VolumeObject
  }

  /** Starts fio in the background; resolves with its results. */
  fio(args: readonly string[]): Promise<FioResult> {
    const child = spawn('fio', ['--name=job', '--output-format=json', '--ioengine=nbd', ...args], {
      cwd: this.folder,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#children.add(child)
    let output = ''
    let errors = ''
    child.stdout.on('data', (text: Buffer) => {
      output += text.toString()
    })
    child.stderr.on('data', (text: Buffer) => {
      errors += text.toString()
    })
    return new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (code) => {
        this.#children.delete(child)
        const start = output.indexOf('{')
        if (start < 0) {
          reject(new Error(`fio printed no result: ${output}${errors}`))
          return
        }
        const { jobs } = JSON.parse(output.slice(start)) as { jobs: FioJob[] }
        const job = jobs[0] as FioJob
        const slowest = Math.max(job.read.clat_ns.max, job.write.clat_ns.max, job.sync?.lat_ns?.max ?? 0)
        resolve({
          code: code ?? -1,
          error: job.error,
          writes: job.write.total_ios,
          reads: job.read.total_ios,
          pauseMs: slowest / 1e6,
          text: output.slice(0, start) + errors,
        })
      })
    })
  }

  async close(): Promise<void> {
    for (const child of this.#children) child.kill('SIGKILL')
    await Promise.all([...this.nodes.values()].map((node) => node.stop()))
    await this.etcd?.close()
    rmSync(this.folder, { recursive: true, force: true })
  }
}

interface FioSide {
  readonly total_ios: number
  readonly clat_ns: { readonly max: number }
}
interface FioJob {
  readonly error: number
  readonly read: FioSide
  readonly write: FioSide
  readonly sync?: { readonly lat_ns?: { readonly max: number } }
}

export interface FioResult {
  readonly code: number
  readonly error: number
  readonly writes: number
  readonly reads: number
  /** Longest time that one request took. */
  readonly pauseMs: number
  readonly text: string
}

async function freePorts(count: number): Promise<number[]> {
  const { createServer } = await import('node:net')
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<import('node:net').Server>((resolve, reject) => {
          const server = createServer()
          server.once('error', reject)
          server.listen(0, '127.0.0.1', () => resolve(server))
        }),
    ),
  )
  const ports = servers.map((server) => (server.address() as import('node:net').AddressInfo).port)
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}

/** Resident memory of a process, bytes. */
export function residentBytes(pid: number): number {
  const line = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
  return Number(line?.[1] ?? 0) * 1024
}
