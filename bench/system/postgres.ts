/** A PostgreSQL server on a folder, and what pgbench measures on it. */
import { chownSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type Host, until } from '../bed/host.ts'

const INSTALLED = '/usr/lib/postgresql'
/** What a checkpoint of everything that a benchmark has written may take. */
const STOP_MS = 60_000
/** It refuses to run as root. */
const AS_POSTGRES = ['--reuid=postgres', '--regid=postgres', '--clear-groups']

export interface PgbenchFigures {
  readonly transactionsPerSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly maxMs: number
}

/** Where Debian puts the programs of the newest version; undefined when there are none. */
export function postgresPrograms(): string | undefined {
  if (!existsSync(INSTALLED)) return undefined
  const newest = readdirSync(INSTALLED).sort((a, b) => Number(b) - Number(a))[0]
  const folder = join(INSTALLED, newest ?? '', 'bin')
  return existsSync(join(folder, 'pgbench')) ? folder : undefined
}

export class Postgres {
  readonly #host: Host
  readonly #programs: string
  readonly #folder: string
  readonly #data: string

  private constructor(host: Host, programs: string, folder: string) {
    this.#host = host
    this.#programs = programs
    this.#folder = folder
    this.#data = join(folder, 'data')
  }

  /** Makes a database of about 16 MiB for each of `scale` in this folder; the server is stopped. */
  static async create(host: Host, programs: string, folder: string, scale: number): Promise<Postgres> {
    const server = new Postgres(host, programs, join(folder, 'postgres'))
    const id = Number((await host.do('id', ['-u', 'postgres'])).trim())
    const group = Number((await host.do('id', ['-g', 'postgres'])).trim())
    mkdirSync(server.#folder)
    chownSync(server.#folder, id, group)
    // initdb's own fsync of everything is of no interest; the checkpoint of the first stop does it.
    await server.#run('initdb', ['-D', server.#data, '-A', 'trust', '-U', 'postgres', '--no-sync'])
    await server.running(async () => {
      await server.#run('pgbench', ['-i', '-q', '-s', String(scale), ...server.#connection])
    })
    return server
  }

  get #connection(): readonly string[] {
    return ['-h', this.#folder, '-U', 'postgres', 'postgres']
  }

  /** Starts the server for as long as `body` takes. Its stop is a checkpoint: nothing is left to be done. */
  async running<Result>(body: () => Promise<Result>): Promise<Result> {
    const settings = ['listen_addresses=', `unix_socket_directories=${this.#folder}`, 'max_wal_size=512MB']
    const args = ['-D', this.#data, ...settings.flatMap((setting) => ['-c', setting])]
    const server = this.#host.run('setpriv', [...AS_POSTGRES, '--pdeathsig', 'KILL', join(this.#programs, 'postgres'), ...args])
    // "Fast": it ends its sessions, makes a checkpoint and leaves the volume, which can be unmounted then.
    const stop = (): Promise<void> => server.end('SIGINT', STOP_MS)
    this.#host.defer(stop)
    const ready = `${this.#folder}/.s.PGSQL.5432`
    await until('PostgreSQL', () => existsSync(ready) && this.#answers(), server)
    try {
      return await body()
    } finally {
      await stop()
    }
  }

  /** Whether the server takes connections. */
  async #answers(): Promise<boolean> {
    return this.#run('psql', [...this.#connection, '-q', '-c', 'select 1']).then(() => true, () => false)
  }

  async pgbench(args: readonly string[], seconds: number): Promise<PgbenchFigures> {
    const logs = join(this.#folder, 'transactions')
    mkdirSync(logs)
    await this.#run('chown', ['postgres', logs], [])
    await this.#run('psql', [...this.#connection, '-q', '-c', 'checkpoint'])
    const logging = ['--log', `--log-prefix=${logs}/log`]
    const run = ['-n', '-M', 'prepared', '-T', String(seconds), ...args, ...logging]
    const output = await this.#run('pgbench', [...run, ...this.#connection])
    const times = readdirSync(logs)
      .flatMap((file) => readFileSync(join(logs, file), 'latin1').trim().split('\n'))
      .map((line) => Number(line.split(' ')[2]) / 1000)
      .sort((a, b) => a - b)
    rmSync(logs, { recursive: true })
    const at = (part: number): number => times[Math.floor(times.length * part)] ?? Number.NaN
    return {
      transactionsPerSecond: Number(/^tps = ([\d.]+)/m.exec(output)?.[1]),
      p50Ms: at(0.5),
      p99Ms: at(0.99),
      maxMs: times.at(-1) ?? Number.NaN,
    }
  }

  #run(program: string, args: readonly string[], as: readonly string[] = AS_POSTGRES): Promise<string> {
    const own = join(this.#programs, program)
    return this.#host.do('setpriv', [...as, existsSync(own) ? own : program, ...args])
  }
}
