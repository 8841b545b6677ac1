/** A container that writes numbered lines with fsync, and notes on its host's own disk which are durable. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Hopeless, waitUntil } from '../support/waiting.ts'
import type { DockerHost } from './docker-host.ts'

const PADDING = 'x'.repeat(4000)
/** A line is one write: a container that is killed leaves whole lines. */
const SCRIPT = `
trap 'exit 0' TERM
i=$(tail -n 1 /data/log 2>/dev/null | cut -c 1-8 | sed 's/^0*//'); i=\${i:-0}
while [ ! -e /acks/stop ]; do
  i=$((i + 1))
  if ! printf '%08d %s\\n' $i "$PADDING" | dd bs=8k of=/data/log oflag=append conv=notrunc,fsync 2>/acks/last; then
    echo "line $i: $(cat /acks/last)" >> /acks/error
    [ -n "$GO_ON" ] || exit 1
    sleep 0.2; i=$((i - 1)); continue
  fi
  read up rest < /proc/uptime
  echo "$i $up" >> /acks/written
done`

export interface WriterOptions {
  /** More arguments of `docker run`. */
  readonly arguments?: readonly string[]
  /** Tries the same line again after an error instead of ending. */
  readonly goOn?: boolean
}

export class ContainerWriter {
  readonly host: DockerHost
  readonly container: string
  readonly #acks: string

  private constructor(host: DockerHost, container: string, acks: string) {
    this.host = host
    this.container = container
    this.#acks = acks
  }

  /** Runs it on `host` with `volume`, which exists, at /data. */
  static async start(
    host: DockerHost,
    volume: string,
    options: WriterOptions = {},
  ): Promise<ContainerWriter> {
    const container = `writer-of-${volume}`
    const acks = join(host.folder, `acks-${volume}`)
    mkdirSync(acks, { recursive: true })
    const command = [
      ['run', '-d', '--name', container, '--network', 'none', ...(options.arguments ?? [])],
      ['-e', `PADDING=${PADDING}`, '-e', `GO_ON=${options.goOn === true ? 'yes' : ''}`],
      ['-v', `${acks}:/acks`, '-v', `${volume}:/data`],
      ['busybox', 'sh', '-c', SCRIPT],
    ].flat()
    await host.docker(command, 120_000)
    return new ContainerWriter(host, container, acks)
  }

  /** What it was told that could not be written; '' as long as everything could. */
  get errors(): string {
    return this.#read('error')
  }

  /** Last line that is durable. */
  get written(): number {
    return this.#lines().at(-1)?.number ?? 0
  }

  /** Longest time between two lines, in seconds. */
  get longestPause(): number {
    const times = this.#lines().map(({ time }) => time)
    return times.reduce((longest, time, i) => Math.max(longest, time - (times[i - 1] ?? time)), 0)
  }

  /** Resolves when `lines` more have become durable. */
  async progress(lines: number, ms = 60_000): Promise<void> {
    const goal = this.written + lines
    await waitUntil(`${lines} more lines`, ms, () => {
      if (this.errors !== '') throw new Hopeless(`the container could not write: ${this.errors}`)
      return this.written >= goal
    })
  }

  /** Lets it end by itself, and removes the container. */
  async stop(): Promise<void> {
    writeFileSync(join(this.#acks, 'stop'), '')
    await this.host.docker(['wait', this.container], 60_000)
    await this.host.docker(['rm', this.container])
  }

  /** Throws unless `log`, the file on the volume, holds every durable line once and in order. */
  check(log: string): void {
    const lines = log.trimEnd().split('\n')
    const { written } = this
    if (lines.length < written) throw new Error(`${written} lines were durable, ${lines.length} are there`)
    lines.forEach((line, index) => {
      const expected = `${String(index + 1).padStart(8, '0')} ${PADDING}`
      if (line !== expected) throw new Error(`line ${index + 1} is ${line.slice(0, 60)} (${line.length})`)
    })
  }

  #lines(): { readonly number: number; readonly time: number }[] {
    const lines = this.#read('written').split('\n').slice(0, -1)
    return lines.map((line) => {
      const [number, time] = line.split(' ')
      return { number: Number(number), time: Number(time) }
    })
  }

  #read(name: string): string {
    try {
      return readFileSync(join(this.#acks, name), 'utf8')
    } catch {
      return ''
    }
  }
}
