/** `npm run chaos`: real nodes, real etcd, real clients, and faults in turn. See README.md. */
import { fileURLToPath } from 'node:url'
import { launch, runFolder } from './launcher.ts'
import { fakeTimeLibrary } from './nemeses/clocks.ts'
import { NEMESES } from './nemeses/index.ts'
import type { Nemesis } from './nemeses/nemesis.ts'
import { type Options, readOptions, USAGE } from './options.ts'
import { writeReport } from './report.ts'
import { Run } from './runner.ts'

const SCRIPT = fileURLToPath(import.meta.url)
const NEEDS_ROOT = 'needs namespaces and mounts of its own, so root'
const args = process.argv.slice(2)

async function main(): Promise<number> {
  const options = readOptions(args)
  if (options.help) process.stdout.write(USAGE)
  if (options.list) process.stdout.write(NEMESES.map(({ name }) => `${name}\n`).join(''))
  if (options.help || options.list) return 0
  const folder = runFolder()
  if (folder === undefined) {
    const namespaces = !options.loopback && process.getuid?.() === 0
    const told = ['--seed', String(options.seed), '--out', options.out]
    return await launch(SCRIPT, [...args, ...told], namespaces, options.keep)
  }
  return await inside(options, folder, process.env['HOLDFAST_CHAOS_NAMESPACES'] === '1')
}

async function inside(options: Options, folder: string, namespaces: boolean): Promise<number> {
  const { chosen, leftOut } = choose(options, namespaces)
  const workloads = options.workloads.filter((name) => namespaces || name === 'blocks')
  for (const name of options.workloads) if (!workloads.includes(name)) leftOut.push(`workload ${name}: ${NEEDS_ROOT}`)
  if (workloads.length === 0) throw new Error('no workload is left: run as root, or with blocks')
  const run = new Run({ ...options, workloads, namespaces, folder, nemeses: chosen })
  for (const text of leftOut) run.journal.say(`left out: ${text}`)
  const interrupted = new Promise<void>((resolve) => {
    process.stdin.once('end', resolve)
    process.stdin.once('close', resolve)
    process.stdin.resume()
  }).then(() => {
    run.stop()
    return 'interrupted' as const
  })
  let failure: unknown
  const ended = run.run().then(
    () => 'done' as const,
    (error: unknown) => {
      failure = error
      return 'failed' as const
    },
  )
  const how = await Promise.race([ended, interrupted])
  await run.close()
  if (how === 'failed') {
    process.stderr.write(`chaos: ${failure instanceof Error ? (failure.stack ?? failure.message) : failure}\n`)
    return 1
  }
  return writeReport(run, options, how === 'done', leftOut)
}

/** Which nemeses can be had here, and why the others can't. */
function choose(options: Options, namespaces: boolean): { chosen: Nemesis[]; leftOut: string[] } {
  const unknown = options.only.find((name) => !NEMESES.some((nemesis) => nemesis.name === name))
  if (unknown !== undefined) throw new Error(`there is no nemesis ${unknown}: see --list`)
  const wanted = NEMESES.filter(({ name }) => options.only.length === 0 || options.only.includes(name))
  const leftOut: string[] = []
  const chosen = wanted.filter(({ name, needs }) => {
    let why: string | undefined
    if (!namespaces && (needs === 'namespaces' || needs === 'disks')) why = NEEDS_ROOT
    if (needs === 'blocks' && !options.workloads.includes('blocks')) why = 'needs the workload blocks'
    if (needs === 'faketime' && fakeTimeLibrary() === undefined) why = 'needs the Debian package faketime'
    if (why !== undefined) leftOut.push(`${name}: ${why}`)
    return why === undefined
  })
  return { chosen, leftOut }
}

process.exit(
  await main().catch((error: unknown) => {
    process.stderr.write(`chaos: ${error instanceof Error ? error.message : String(error)}\n`)
    return 2
  }),
)
