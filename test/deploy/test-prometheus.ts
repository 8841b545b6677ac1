/** A real Prometheus on loopback, for one test. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { Hopeless, waitUntil } from '../support/waiting.ts'

export type Labels = Readonly<Record<string, string | undefined>>

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

export class TestPrometheus {
  readonly #url: string
  readonly #process: ChildProcess
  #log = ''

  private constructor(url: string, process: ChildProcess) {
    this.#url = url
    this.#process = process
    process.stderr?.on('data', (text: Buffer) => (this.#log += text.toString()))
  }

  /** Resolves when it has scraped every target with success. */
  static async start(folder: string, targets: readonly string[], rules: string): Promise<TestPrometheus> {
    mkdirSync(folder, { recursive: true })
    const config = join(folder, 'prometheus.yml')
    const scrape = { job_name: 'holdfast', static_configs: [{ targets }] }
    const global = { scrape_interval: '1s', scrape_timeout: '1s', evaluation_interval: '1s' }
    // JSON is YAML too.
    writeFileSync(config, JSON.stringify({ global, rule_files: [rules], scrape_configs: [scrape] }))
    const listen = `127.0.0.1:${await freePort()}`
    const args = [`--config.file=${config}`, `--storage.tsdb.path=${folder}/data`, `--web.listen-address=${listen}`]
    const child = spawn('prometheus', args, { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] })
    const prometheus = new TestPrometheus(`http://${listen}`, child)
    try {
      await waitUntil('Prometheus to see every node', 20_000, async () => {
        if (child.exitCode !== null) throw new Hopeless(`Prometheus ended: ${prometheus.#log.slice(-2000)}`)
        return (await prometheus.query('up == 1').catch(() => [])).length === targets.length
      })
      return prometheus
    } catch (error) {
      await prometheus.close()
      throw error
    }
  }

  async #get(path: string): Promise<unknown> {
    const answer = await fetch(`${this.#url}/api/v1/${path}`)
    const { data, error } = (await answer.json()) as { readonly data?: unknown; readonly error?: string }
    if (error !== undefined) throw new Hopeless(`${path}: ${error}`)
    return data
  }

  /** The labels of each series of an instant query. */
  async query(expression: string): Promise<Labels[]> {
    const data = await this.#get(`query?query=${encodeURIComponent(expression)}`)
    return (data as { readonly result: readonly { readonly metric: Labels }[] }).result.map(({ metric }) => metric)
  }

  /** The same, once there is an answer: a rate needs two scrapes. */
  async untilAnswered(what: string, expression: string): Promise<Labels[]> {
    let found: Labels[] = []
    await waitUntil(what, 10_000, async () => {
      found = await this.query(expression)
      return found.length > 0
    })
    return found
  }

  /** Names of the alerts that fire, or will if it goes on like this. */
  async alerts(): Promise<string[]> {
    const { alerts } = (await this.#get('alerts')) as { readonly alerts: readonly { readonly labels: Labels }[] }
    return alerts.map(({ labels }) => labels['alertname'] ?? '')
  }

  async close(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return
    const ended = once(this.#process, 'exit')
    this.#process.kill('SIGKILL')
    await ended
  }
}
