/** `holdfast node ls | inspect | drain` and `holdfast status`. */
import { HoldfastError } from '@holdfast/base'
import {
  type ApiClient,
  formatBytes,
  fullName,
  type NodeDetailObject,
  type NodeObject,
  type StatusObject,
} from '@holdfast/api/client'
import type { Command } from 'commander'
import { addClientOptions, type ClientContext, clientContext } from './client-options.ts'
import { parseSeconds } from './numbers.ts'
import { formatFields, formatLabels, formatTable, printJson } from './output.ts'
import { Progress } from './progress.ts'
import type { Terminal } from './terminal.ts'

const POLL_MS = 500

/** @param node The command `holdfast node`, which itself runs a node. */
export function addNodeCommands(node: Command, terminal: Terminal): void {
  addClientOptions(
    node.command('ls').alias('list').description('list the nodes of the cluster'),
  ).action(async (_: unknown, command: Command) => {
    const { client, json } = clientContext(terminal, command)
    const nodes = await client.nodes()
    if (json) printJson(terminal, nodes)
    else terminal.out(nodeTable(nodes))
  })
  addClientOptions(
    node.command('inspect <name>').description('show one node and its volumes'),
  ).action(async (name: string, _: unknown, command: Command) => {
    const { client, json } = clientContext(terminal, command)
    const found = await client.node(name)
    if (json) printJson(terminal, found)
    else terminal.out(nodeDetails(found))
  })
  addDrain(node, terminal)
}

interface DrainOptions {
  readonly undo?: boolean
  /** False for `--no-wait`. */
  readonly wait: boolean
  readonly timeout?: number | undefined
}

function addDrain(node: Command, terminal: Terminal): void {
  addClientOptions(
    node
      .command('drain <name>')
      .description('move everything off a node, and put nothing on it until --undo'),
  )
    .option('--undo', 'let the node take copies again')
    .option('--no-wait', 'do not wait until the node is empty')
    .option('--timeout <seconds>', 'how long to wait (default: as long as it takes)', parseSeconds)
    .action(async (name: string, options: DrainOptions, command: Command) => {
      const context = clientContext(terminal, command)
      const drain = options.undo !== true
      const marked = await context.client.setDraining(name, drain)
      const waits = drain && options.wait
      const result = waits ? await untilEmpty(context, marked, options.timeout) : marked
      if (context.json) printJson(terminal, result)
      else terminal.out(drainSentence(result))
    })
}

function drainSentence({ name, draining, volumeCount }: NodeObject): string {
  if (!draining) return `node ${name} takes copies again\n`
  if (volumeCount === 0) return `node ${name} is empty: it can be stopped\n`
  return `node ${name} is draining: ${copies(volumeCount)} left on it\n`
}

const copies = (count: number): string => (count === 1 ? '1 copy is' : `${count} copies are`)

async function untilEmpty(
  { client, terminal }: ClientContext,
  marked: NodeDetailObject,
  timeoutSeconds: number | undefined,
): Promise<NodeDetailObject> {
  const { name } = marked
  const deadlineMs = terminal.nowMs() + (timeoutSeconds ?? Number.POSITIVE_INFINITY) * 1000
  const progress = new Progress(terminal)
  let node = marked
  try {
    while (node.volumeCount > 0) {
      if (!node.draining) {
        throw new HoldfastError(
          'HF_CONFLICT',
          `someone has ended the draining of node ${name} with --undo`,
        )
      }
      progress.show(`draining ${name}: ${copies(node.volumeCount)} left (${namesOf(node)})`)
      await failIfStuck(client, node)
      if (terminal.nowMs() >= deadlineMs) {
        throw new HoldfastError(
          'HF_TIMEOUT',
          `node ${name} is not empty in time, it goes on draining: see holdfast node inspect ${name}; copies without another node to go to stay`,
        )
      }
      await terminal.sleep(POLL_MS)
      node = await client.node(name)
    }
    return node
  } finally {
    progress.end()
  }
}

/** Waiting helps nobody when every copy left has nowhere to go with the nodes that there are. */
async function failIfStuck(client: ApiClient, node: NodeDetailObject): Promise<void> {
  const [nodes, volumes] = await Promise.all([client.nodes(), client.volumes()])
  const takers = nodes.filter(({ state }) => state === 'up').length
  const left = volumes.filter(({ replicas }) => replicas.includes(node.name))
  const [first] = left
  if (first === undefined || left.some(({ replicaCount }) => replicaCount <= takers)) return
  const others = left.length === 1 ? '' : ` (and ${left.length - 1} more like it)`
  throw new HoldfastError(
    'HF_TOO_FEW_NODES',
    `node ${node.name} can't be emptied now: volume ${fullName(first)} wants ${first.replicaCount} copies${others}, and other nodes that are up and not draining number ${takers}; start another node, or holdfast node drain ${node.name} --undo`,
  )
}

function namesOf({ volumes }: NodeDetailObject): string {
  const names = volumes.slice(0, 3).map(fullName)
  return volumes.length > 3 ? `${names.join(', ')}, …` : names.join(', ')
}

export function addStatusCommand(program: Command, terminal: Terminal): void {
  addClientOptions(program.command('status').description('say how the cluster is')).action(
    async (_: unknown, command: Command) => {
      const { client, json } = clientContext(terminal, command)
      const status = await client.status()
      if (json) printJson(terminal, status)
      else terminal.out(statusText(status))
    },
  )
}

function space(freeBytes: number | undefined, totalBytes: number | undefined): string {
  if (freeBytes === undefined || totalBytes === undefined) return '-'
  return `${formatBytes(freeBytes)} of ${formatBytes(totalBytes)}`
}

const atPort = (host: string, port: number): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`

function nodeTable(nodes: readonly NodeObject[]): string {
  return formatTable(
    ['NAME', 'STATE', 'PEER ADDRESS', 'VOLUMES', 'PRIMARIES', 'FREE', 'LABELS'],
    nodes.map((node) => [
      node.name,
      node.state,
      atPort(node.host, node.peerPort),
      String(node.volumeCount),
      String(node.primaryCount),
      space(node.freeBytes, node.totalBytes),
      formatLabels(node.labels),
    ]),
  )
}

function nodeDetails(node: NodeDetailObject): string {
  const fields = formatFields({
    Name: node.name,
    State: node.state,
    Peer: atPort(node.host, node.peerPort),
    API: atPort(node.host, node.apiPort),
    NBD: atPort(node.host, node.nbdPort),
    'Disk free': space(node.freeBytes, node.totalBytes),
    Labels: formatLabels(node.labels),
    'Up since': node.since,
    Incarnation: node.incarnation,
    Volumes: `${node.volumeCount}, primary of ${node.primaryCount}`,
  })
  if (node.volumes.length === 0) return fields
  const rows = node.volumes.map(({ namespace, name, role, state }) => [
    namespace,
    name,
    role,
    state,
  ])
  return `${fields}\n${formatTable(['NAMESPACE', 'NAME', 'ROLE', 'VOLUME STATE'], rows)}`
}

function statusText(status: StatusObject): string {
  const { nodes, volumes } = status
  const states = (['healthy', 'degraded', 'unavailable', 'creating'] as const)
    .filter((state) => volumes[state] > 0)
    .map((state) => `${volumes[state]} ${state}`)
  const draining = nodes.draining > 0 ? `, ${nodes.draining} draining` : ''
  const fields = formatFields({
    Nodes: `${nodes.up} of ${nodes.total} up${draining}`,
    Volumes: [String(volumes.total), ...states].join(', '),
    'Disk free': space(status.freeBytes, status.totalBytes),
    'This node': `${status.node}, ${status.ready ? 'ready' : `not ready: ${status.reason}`}, version ${status.version}`,
  })
  if (status.attention.length === 0) return fields
  return `${fields}\n${status.attention.map((sentence) => `! ${sentence}\n`).join('')}`
}
