/** `holdfast volume …` */
import { HoldfastError, isHoldfastError } from '@holdfast/base'
import {
  checkReplicaCount,
  formatBytes,
  fullName,
  parseFailureMode,
  parseLabels,
  parseSize,
  parseVolumeName,
  type VolumeObject,
} from '@holdfast/api/client'
import type { Command } from 'commander'
import { addClientOptions, type ClientContext, clientContext } from './client-options.ts'
import { collect, parseCount, parseSeconds } from './numbers.ts'
import { formatFields, formatLabels, formatTable, printJson } from './output.ts'
import { Progress } from './progress.ts'
import type { Terminal } from './terminal.ts'

const CREATE_TIMEOUT_SECONDS = 60
const POLL_MS = 250
const NAMESPACE_HELP = 'namespace, where NAME does not say it as NAMESPACE/NAME'

interface NamespaceOption {
  readonly namespace?: string | undefined
}

export function addVolumeCommands(program: Command, terminal: Terminal): void {
  const volume = program.command('volume').description('create, show, move and remove volumes')
  addCreate(volume, terminal)
  addClientOptions(volume.command('ls').alias('list').description('list volumes'))
    .option('--namespace <ns>', 'only those of one namespace')
    .action(async ({ namespace }: NamespaceOption, command: Command) => {
      const { client, json } = clientContext(terminal, command)
      const volumes = await client.volumes(namespace)
      if (json) printJson(terminal, volumes)
      else terminal.out(volumes.length === 0 ? 'no volumes\n' : volumeTable(volumes))
    })
  addClientOptions(volume.command('inspect <name>').description('show one volume'))
    .option('--namespace <ns>', NAMESPACE_HELP)
    .action(async (name: string, { namespace }: NamespaceOption, command: Command) => {
      const { client, json } = clientContext(terminal, command)
      const found = await client.volume(parseVolumeName(name, namespace))
      if (json) printJson(terminal, found)
      else terminal.out(volumeDetails(found))
    })
  addRemove(volume, terminal)
  addMovePrimary(volume, terminal)
}

interface CreateOptions extends NamespaceOption {
  readonly size: string
  readonly replicas?: number | undefined
  readonly label?: readonly string[] | undefined
  readonly failureMode?: string | undefined
  readonly timeout: number
}

function addCreate(volume: Command, terminal: Terminal): void {
  addClientOptions(
    volume.command('create <name>').description('create a volume and wait until it serves'),
  )
    .requiredOption('--size <size>', 'such as 10GiB or 500MB; a bare number is bytes')
    .option(
      '--replicas <n>',
      "copies, the primary's included (default 2, or 1 in a cluster of one node)",
      parseCount,
    )
    .option('--namespace <ns>', NAMESPACE_HELP)
    .option('--label <key=value>', 'a label; may be given more than once', collect)
    .option(
      '--failure-mode <mode>',
      'when writes go on with copies missing: hard (never), threshold=N (while N are in sync), alwayson (while one is left); default alwayson for 1 or 2 copies, else threshold=2',
    )
    .option(
      '--timeout <seconds>',
      'how long to wait until it serves',
      parseSeconds,
      CREATE_TIMEOUT_SECONDS,
    )
    .action(async (given: string, options: CreateOptions, command: Command) => {
      const context = clientContext(terminal, command)
      const created = await createVolume(context, given, options)
      if (context.json) printJson(terminal, created)
      else {
        const copies = `${created.replicas.length} ${created.replicas.length === 1 ? 'copy' : 'copies'}`
        const where = `primary on ${created.primary ?? 'no node yet'}, ${copies} on ${created.replicas.join(', ')}`
        terminal.out(`created ${fullName(created)}: ${formatBytes(created.size)}, ${where}\n`)
      }
    })
}

/** Checks here what can be checked, so that bad usage is told without a node. */
async function createVolume(
  { client, terminal }: ClientContext,
  given: string,
  options: CreateOptions,
): Promise<VolumeObject> {
  const volume = parseVolumeName(given, options.namespace)
  const body = {
    ...volume,
    size: parseSize(options.size),
    replicas: options.replicas === undefined ? undefined : checkReplicaCount(options.replicas),
    labels: parseLabels(options.label ?? []),
    failureMode: options.failureMode,
  }
  if (body.failureMode !== undefined) parseFailureMode(body.failureMode)
  const deadlineMs = terminal.nowMs() + options.timeout * 1000
  const progress = new Progress(terminal)
  try {
    if (terminal.progress) progress.show(`creating ${fullName(volume)}`)
    return await client.createVolume(body).catch((error: unknown) => {
      // It exists, but its copies are not all there yet: that is waiting, not failing.
      if (!isHoldfastError(error) || error.code !== 'HF_TIMEOUT') throw error
      progress.show(`${fullName(volume)} is created; waiting until it serves`)
      return untilServing(() => client.volume(volume), terminal, deadlineMs)
    })
  } finally {
    progress.end()
  }
}

async function untilServing(
  look: () => Promise<VolumeObject>,
  terminal: Terminal,
  deadlineMs: number,
): Promise<VolumeObject> {
  for (;;) {
    const volume = await look()
    if (volume.primary !== null && volume.state !== 'creating') return volume
    if (terminal.nowMs() >= deadlineMs) {
      const name = fullName(volume)
      throw new HoldfastError(
        'HF_TIMEOUT',
        `${name} is created but does not serve in time: see holdfast status and holdfast volume inspect ${name}`,
      )
    }
    await terminal.sleep(POLL_MS)
  }
}

function addRemove(volume: Command, terminal: Terminal): void {
  addClientOptions(
    volume
      .command('rm <name>')
      .alias('remove')
      .description('remove a volume and its data on every node'),
  )
    .option('--namespace <ns>', NAMESPACE_HELP)
    .option('-y, --yes', 'do not ask')
    .action(
      async (given: string, options: NamespaceOption & { yes?: boolean }, command: Command) => {
        const { client, json } = clientContext(terminal, command)
        const name = parseVolumeName(given, options.namespace)
        if (terminal.interactive && options.yes !== true) {
          const { size } = await client.volume(name)
          const question = `remove ${fullName(name)} (${formatBytes(size)}) and all its data, for good? [y/N] `
          const answer = (await terminal.ask(question)).trim().toLowerCase()
          if (answer !== 'y' && answer !== 'yes') {
            throw new HoldfastError('HF_CONFLICT', `${fullName(name)} is kept`)
          }
        }
        await client.removeVolume(name)
        if (json) printJson(terminal, { ...name, removed: true })
        else terminal.out(`removed ${fullName(name)}\n`)
      },
    )
}

function addMovePrimary(volume: Command, terminal: Terminal): void {
  addClientOptions(
    volume.command('move-primary <name>').description('let another in-sync node serve a volume'),
  )
    .option('--to <node>', 'the node (default: the best of the others)')
    .option('--namespace <ns>', NAMESPACE_HELP)
    .action(async (given: string, options: NamespaceOption & { to?: string }, command: Command) => {
      const { client, json } = clientContext(terminal, command)
      const name = parseVolumeName(given, options.namespace)
      const progress = new Progress(terminal)
      if (terminal.progress) progress.show(`moving the primary of ${fullName(name)}`)
      const moved = await client.movePrimary(name, options.to).finally(() => progress.end())
      if (json) printJson(terminal, moved)
      else terminal.out(`the primary of ${fullName(name)} is on ${moved.primary ?? 'no node'}\n`)
    })
}

function volumeTable(volumes: readonly VolumeObject[]): string {
  return formatTable(
    ['NAMESPACE', 'NAME', 'SIZE', 'STATE', 'IN SYNC', 'PRIMARY', 'REPLICAS'],
    volumes.map((volume) => [
      volume.namespace,
      volume.name,
      formatBytes(volume.size),
      volume.state,
      `${volume.inSync.length}/${volume.replicaCount}`,
      volume.primary ?? '-',
      volume.replicas.join(','),
    ]),
  )
}

function volumeDetails(volume: VolumeObject): string {
  const fields = formatFields({
    Name: volume.name,
    Namespace: volume.namespace,
    Id: volume.id,
    Size: `${formatBytes(volume.size)} (${volume.size} bytes)`,
    State: volume.state,
    Primary: volume.primary ?? '-',
    Epoch: String(volume.epoch),
    'In sync': `${volume.inSync.length} of ${volume.replicaCount}`,
    'Failure mode': volume.failureMode,
    Labels: formatLabels(volume.labels),
    Created: volume.createdAt,
    'NBD export': volume.export,
    'Attached to': volume.attachedTo ?? '-',
    Problem: volume.local?.problem,
  })
  const rows = volume.replicas.map((node) => {
    const role = node === volume.primary ? 'primary' : 'secondary'
    const member = volume.local?.members.find((candidate) => candidate.node === node)
    const state = member?.state ?? (volume.inSync.includes(node) ? 'in-sync' : 'not in sync')
    const lag =
      member === undefined || member.lagBytes === 0 ? '' : `${formatBytes(member.lagBytes)} behind`
    const progress =
      member !== undefined && member.progress < 1 ? `${Math.floor(member.progress * 100)} %` : ''
    return [node, role, state, [progress, lag].filter((part) => part !== '').join(', ')]
  })
  return `${fields}\n${formatTable(['REPLICA', 'ROLE', 'STATE', 'PROGRESS'], rows)}`
}
