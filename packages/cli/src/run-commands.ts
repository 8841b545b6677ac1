/** `holdfast up` and `holdfast node` without a further word: run a node in this process. */
import { parseLabels } from '@holdfast/api/client'
import type { NodeConfig } from '@holdfast/storage-node'
import { type Command, Option } from 'commander'
import { collect } from './numbers.ts'
import type { Terminal } from './terminal.ts'

interface RunOptions {
  readonly config?: string
  readonly name?: string
  readonly dataDir?: string
  readonly coordinator?: string
  readonly nbd?: string
  readonly nbdSocket?: string
  readonly dockerPlugin?: string
  readonly api?: string
  readonly peer?: string
  readonly advertise?: string
  readonly label?: readonly string[]
  readonly leaseTtl?: string
  readonly replaceAfter?: string
  readonly shards?: string
  readonly keepAwake?: string
  readonly logLevel?: string
}

/** What the node's process left with. */
export type SetExitCode = (code: number) => void

function addRunOptions(command: Command): Command {
  return command
    .option('--name <name>', 'name of the node, unique in the cluster (default: the host name)')
    .option('--data-dir <dir>', 'where it keeps its data')
    .option('--nbd <host:port>', 'where it serves NBD (default 127.0.0.1:10809)')
    .option('--nbd-socket <path>', 'a unix socket that serves NBD as well')
    .option('--docker-plugin <path>', "socket of the Docker volume driver, as /run/docker/plugins/holdfast.sock")
    .option('--api <host:port>', 'where it serves the REST API (default 127.0.0.1:5705)')
    .option('--peer <host:port>', 'where it takes links of other nodes (default 127.0.0.1:5710)')
    .option('--advertise <host>', 'under which other nodes reach it (default: the host of --peer)')
    .option('--label <key=value>', 'a label such as zone=a; may be given more than once', collect)
    .option('--shards <number>', 'threads that its volumes are spread over (default: one per core, 8 at most)')
    .option('--keep-awake <when>', 'when it keeps the processors of this machine from sleeping: busy or never (default busy)')
    .addOption(new Option('--log-level <level>', 'debug, info, warn or error'))
}

export function addUpCommand(program: Command, terminal: Terminal, setExitCode: SetExitCode): void {
  const up = program
    .command('up')
    .description('run one node with its own coordinator: all you need on a laptop')
  addRunOptions(up).action(async (options: RunOptions) => {
    const { defaultDataDir, readConfig, runStorageNode } = await import('@holdfast/storage-node')
    const { HOLDFAST_TOKEN: token } = terminal.env
    const defaults = { dataDir: defaultDataDir(terminal.env), logLevel: 'warn' } as const
    const config = readConfig({
      flags: { ...flagsOf(options), coordinator: 'embedded' },
      token,
      defaults,
    })
    setExitCode(
      await runStorageNode(config, (addresses) => terminal.out(whatNext(config, addresses))),
    )
  })
}

/** Returns the command, for `node ls` and its like. */
export function addNodeCommand(
  program: Command,
  terminal: Terminal,
  setExitCode: SetExitCode,
): Command {
  const node = program
    .command('node')
    .description('run a storage node; or list, show and drain nodes')
    // Else this command would take the --api of `node ls --api URL` for its own.
    .enablePositionalOptions()
    .option('--config <file>', 'YAML or JSON; its keys are the names of these options')
    .option(
      '--coordinator <url>',
      'etcd://HOST:PORT[,HOST:PORT…], or embedded for a cluster of one node (default embedded)',
    )
    .option(
      '--lease-ttl <seconds>',
      'how long the node may be silent before another takes over (default 10)',
    )
    .option(
      '--replace-after <seconds>',
      'how long a node may be away before its copies are made anew elsewhere (default 600)',
    )
  return addRunOptions(node).action(async (options: RunOptions) => {
    const { readConfig, runStorageNode } = await import('@holdfast/storage-node')
    const { HOLDFAST_TOKEN: token } = terminal.env
    const flags = flagsOf(options)
    const config = readConfig({
      flags,
      file: options.config,
      token,
      defaults: { logLevel: 'info' },
    })
    setExitCode(await runStorageNode(config, () => {}))
  })
}

/** By the names of the settings. */
function flagsOf(options: RunOptions): Record<string, unknown> {
  const {
    config: _,
    dataDir,
    nbdSocket,
    dockerPlugin,
    label,
    leaseTtl,
    replaceAfter,
    keepAwake,
    logLevel,
    ...rest
  } = options
  return {
    ...rest,
    'data-dir': dataDir,
    'nbd-socket': nbdSocket,
    'docker-plugin': dockerPlugin,
    labels: label === undefined ? undefined : parseLabels(label),
    'lease-ttl': leaseTtl,
    'replace-after': replaceAfter,
    'keep-awake': keepAwake,
    'log-level': logLevel,
  }
}

function whatNext(config: NodeConfig, { api, nbd }: { api: string; nbd: string }): string {
  const standard = api === '127.0.0.1:5705'
  const at = standard ? '' : ` --api http://${api}`
  const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(nbd) ?? []
  const nbdPort = port === '10809' ? '' : ` ${port}`
  return `
Holdfast runs; its data are in ${config.dataDir}. In another terminal:

  holdfast volume create data --size 1GiB${at}

and then, as root, attach it where the kernel has nbd:

  modprobe nbd && nbd-client -N data ${host}${nbdPort} /dev/nbd0
  mkfs.ext4 /dev/nbd0 && mount /dev/nbd0 /mnt

or where it has not (package libnbd-bin or nbdfuse):

  mkdir -p /run/data && nbdfuse /run/data nbd://${nbd}/data &
  mkfs.ext4 /run/data/nbd && mount -o loop /run/data/nbd /mnt

Ctrl-C stops it; nothing is lost.
`
}
