/**
 * `npm run bench`: fio over NBD against Holdfast and its peers, side by side, rounds interleaved.
 *
 * Every target is prefilled, speaks over a unix socket and acknowledges from the page cache of each copy;
 * the row with a flush after each write makes all of them durable alike.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type EtcdTestCluster, startEtcdForTests } from '@holdfast/coordinator/testing'

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '3' },
    size: { type: 'string', default: '512M' },
    targets: { type: 'string', default: 'nbdkit,holdfast-1,quorum-2,holdfast-2' },
  },
})
const PROGRAM = new URL('../../packages/cli/bin/holdfast.js', import.meta.url).pathname
const folder = mkdtempSync(join(tmpdir(), 'holdfast-bench-'))
const children = new Set<ChildProcess>()
let etcd: EtcdTestCluster | undefined

interface Row {
  readonly name: string
  readonly args: readonly string[]
  readonly unit: 'IOPS' | 'MB/s'
}
const row = (name: string, unit: Row['unit'], ...args: string[]): Row => ({ name, unit, args })
const ROWS: readonly Row[] = [
  row('4k random write, depth 1', 'IOPS', '--rw=randwrite', '--bs=4k', '--iodepth=1'),
  row('4k random write, depth 32', 'IOPS', '--rw=randwrite', '--bs=4k', '--iodepth=32'),
  row('4k random read, depth 1', 'IOPS', '--rw=randread', '--bs=4k', '--iodepth=1'),
  row('4k random read, depth 32', 'IOPS', '--rw=randread', '--bs=4k', '--iodepth=32'),
  row('1 MiB write, depth 8', 'MB/s', '--rw=write', '--bs=1M', '--iodepth=8'),
  row('1 MiB read, depth 8', 'MB/s', '--rw=read', '--bs=1M', '--iodepth=8'),
  row('4k random write + flush each', 'IOPS', '--rw=randwrite', '--bs=4k', '--iodepth=1', '--fsync=1'),
]

interface Target {
  readonly name: string
  readonly uri: string
}

function run(command: string, args: readonly string[]): ChildProcess {
  const child = spawn(command, args, { cwd: folder, stdio: ['ignore', 'pipe', 'ignore'] })
  children.add(child)
  child.on('error', (error) => {
    process.stderr.write(`${command} can't be started: ${error.message}\n`)
    process.exitCode = 1
  })
  return child
}

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 30_000
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

async function nbdkit(name: string): Promise<string> {
  const image = join(folder, `${name}.img`)
  const socket = join(folder, `${name}.sock`)
  writeFileSync(image, '')
  truncateSync(image, 1024 ** 3)
  run('nbdkit', ['-f', '-U', socket, 'file', image])
  await until(name, () => existsSync(socket))
  return socket
}

async function quorum(): Promise<string> {
  const socket = join(folder, 'quorum.sock')
  const sockets = [await nbdkit('child-0'), await nbdkit('child-1')]
  const nodes = sockets.flatMap((path, i) => [
    '--blockdev',
    `driver=nbd,node-name=c${i},server.type=unix,server.path=${path}`,
  ])
  const pair = 'driver=quorum,node-name=q,vote-threshold=2,children.0=c0,children.1=c1'
  run('qemu-storage-daemon', [
    ...nodes,
    ...['--blockdev', pair],
    ...['--nbd-server', `addr.type=unix,addr.path=${socket}`],
    ...['--export', 'type=nbd,id=e,node-name=q,name=q,writable=on'],
  ])
  await until('quorum', () => existsSync(socket))
  return socket
}

async function holdfast(name: string, args: readonly string[], socket: string): Promise<string> {
  const child = run(process.execPath, [
    PROGRAM,
    ...['node', '--name', name, '--data-dir', join(folder, name), '--nbd', '127.0.0.1:0'],
    ...['--api', '127.0.0.1:0', '--peer', '127.0.0.1:0', '--nbd-socket', socket, ...args],
  ])
  let output = ''
  child.stdout?.on('data', (text: Buffer) => {
    output += text.toString()
  })
  await until(`node ${name}`, () => /^ready /m.test(output))
  return `http://${/api=(\S+)/.exec(output)?.[1]}`
}

function create(api: string, name: string, replicas: number): void {
  const size = ['--size', '1GiB', '--replicas', String(replicas)]
  execFileSync(process.execPath, [PROGRAM, 'volume', 'create', name, ...size, '--api', api])
}

const socketUri = (socket: string, name = ''): string => `nbd+unix:///${name}?socket=${socket}`

const START: Record<string, () => Promise<string>> = {
  nbdkit: async () => socketUri(await nbdkit('nbdkit')),
  'quorum-2': async () => socketUri(await quorum(), 'q'),
  'holdfast-1': async () => {
    const socket = join(folder, 'one.sock')
    create(await holdfast('one', ['--coordinator', 'embedded'], socket), 'v', 1)
    return socketUri(socket, 'v')
  },
  'holdfast-2': async () => {
    etcd = await startEtcdForTests()
    const socket = join(folder, 'two-a.sock')
    const args = ['--coordinator', etcd.url]
    const api = await holdfast('two-a', args, socket)
    await holdfast('two-b', args, join(folder, 'two-b.sock'))
    await until('two nodes', async () => {
      const nodes = (await (await fetch(`${api}/v1/nodes`)).json()) as unknown
      return JSON.stringify(nodes).includes('two-b')
    })
    create(api, 'v', 2)
    return socketUri(socket, 'v')
  },
}

interface Sample {
  readonly value: number
  readonly p50: number
  readonly p99: number
  readonly p999: number
  readonly longestMs: number
}

interface Side {
  readonly iops: number
  readonly bw_bytes: number
  readonly clat_ns: { readonly max: number; readonly percentile?: Readonly<Record<string, number>> }
}

async function fio(uri: string, args: readonly string[], unit: Row['unit']): Promise<Sample> {
  const base = ['--name=bench', '--ioengine=nbd', `--uri=${uri}`, `--size=${values.size}`, '--output-format=json']
  const child = run('fio', [...base, ...args])
  let output = ''
  child.stdout?.on('data', (text: Buffer) => {
    output += text.toString()
  })
  await new Promise((resolve) => child.once('close', resolve))
  children.delete(child)
  const { jobs } = JSON.parse(output.slice(output.indexOf('{'))) as {
    jobs: { error: number; read: Side; write: Side }[]
  }
  const job = jobs[0]
  if (job === undefined || job.error !== 0) throw new Error(`fio failed on ${uri}: ${job?.error}`)
  const side = job.read.iops > 0 ? job.read : job.write
  const at = (key: string): number => Math.round((side.clat_ns.percentile?.[key] ?? 0) / 1000)
  return {
    value: Math.round(unit === 'IOPS' ? side.iops : side.bw_bytes / 1e6),
    p50: at('50.000000'),
    p99: at('99.000000'),
    p999: at('99.900000'),
    longestMs: Math.round(side.clat_ns.max / 1e6),
  }
}

const median = (numbers: readonly number[]): number =>
  [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0

async function bench(): Promise<void> {
  const targets: Target[] = []
  for (const name of values.targets.split(',')) {
    const start = START[name]
    if (start === undefined) throw new Error(`no target ${name}: there are ${Object.keys(START).join(', ')}`)
    targets.push({ name, uri: await start() })
  }
  for (const { name, uri } of targets) {
    process.stderr.write(`filling ${name}\n`)
    await fio(uri, ['--rw=write', '--bs=1M', '--iodepth=8'], 'MB/s')
  }
  const samples = new Map<string, Sample[]>()
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const { name: rowName, args, unit } of ROWS) {
      for (const { name, uri } of targets) {
        const timed = [...args, '--time_based', `--runtime=${values.seconds}`]
        const sample = await fio(uri, timed, unit)
        const key = `${rowName}|${name}`
        samples.set(key, [...(samples.get(key) ?? []), sample])
        process.stderr.write(`round ${round + 1}: ${rowName}: ${name}: ${sample.value} ${unit}\n`)
      }
    }
  }
  report(targets, samples)
}

function report(targets: readonly Target[], samples: ReadonlyMap<string, readonly Sample[]>): void {
  const names = targets.map(({ name }) => name)
  const value = (rowName: string, name: string): number =>
    median((samples.get(`${rowName}|${name}`) ?? []).map((sample) => sample.value))
  const ratio = (rowName: string, ours: string, theirs: string): string => {
    const pairs = (samples.get(`${rowName}|${ours}`) ?? []).map(
      (sample, i) => sample.value / (samples.get(`${rowName}|${theirs}`)?.[i]?.value ?? Number.NaN),
    )
    if (pairs.length === 0 || pairs.some(Number.isNaN)) return ''
    return `${median(pairs).toFixed(2)} (${Math.min(...pairs).toFixed(2)}–${Math.max(...pairs).toFixed(2)})`
  }
  const lines = [
    `| row | ${names.join(' | ')} | 1 copy ÷ nbdkit | 2 copies ÷ quorum |`,
    `| --- |${' --- |'.repeat(names.length + 2)}`,
    ...ROWS.map(({ name, unit }) => {
      const figures = names.map((target) => `${value(name, target)}`).join(' | ')
      const one = ratio(name, 'holdfast-1', 'nbdkit')
      return `| ${name} (${unit}) | ${figures} | ${one} | ${ratio(name, 'holdfast-2', 'quorum-2')} |`
    }),
  ]
  process.stdout.write(`${lines.join('\n')}\n`)
  const results = new URL('../results/', import.meta.url).pathname
  mkdirSync(results, { recursive: true })
  const commit = execFileSync('git', ['rev-parse', 'HEAD'], { encoding: 'utf8' }).trim()
  const machine = { cpu: cpus()[0]?.model ?? '', cores: cpus().length, node: process.version }
  const file = join(results, `${new Date().toISOString().replaceAll(':', '-')}.json`)
  const settings = { rounds: values.rounds, seconds: values.seconds, size: values.size }
  writeFileSync(file, JSON.stringify({ commit, machine, settings, samples: Object.fromEntries(samples) }, null, 1))
  process.stderr.write(`raw samples: ${file}\n`)
}

async function cleanUp(): Promise<void> {
  const ended = [...children]
    .filter((child) => child.exitCode === null && child.signalCode === null)
    .map((child) => new Promise((resolve) => child.once('exit', resolve)))
  for (const child of children) child.kill('SIGKILL')
  await Promise.all(ended)
  await etcd?.close()
  rmSync(folder, { recursive: true, force: true })
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void cleanUp().then(() => process.exit(1)))
}
try {
  await bench()
} finally {
  await cleanUp()
}
