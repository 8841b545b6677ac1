/** `holdfast attach`, `detach`, `mount`, `unmount`: volumes as devices of the host whose node is asked. */
import { resolve } from 'node:path'
import { type AttachmentObject, fullName, parseVolumeName } from '@holdfast/api/client'
import type { Command } from 'commander'
import { addClientOptions, clientContext } from './client-options.ts'
import { collect } from './numbers.ts'
import { formatTable, printJson } from './output.ts'
import { Progress } from './progress.ts'
import type { Terminal } from './terminal.ts'

const NAMESPACE_HELP = 'namespace, where NAME does not say it as NAMESPACE/NAME'

interface AttachOptions {
  readonly namespace?: string | undefined
}

interface MountOptions extends AttachOptions {
  readonly fs?: string | undefined
  readonly mkfsOption?: readonly string[] | undefined
  readonly option?: readonly string[] | undefined
  readonly readOnly?: boolean | undefined
}

export function addAttachCommands(program: Command, terminal: Terminal): void {
  addClientOptions(
    program.command('attach [name]').description('make a volume a block device of this host; without a name, list them'),
  )
    .option('--namespace <ns>', NAMESPACE_HELP)
    .action(async (given: string | undefined, { namespace }: AttachOptions, command: Command) => {
      const { client, json } = clientContext(terminal, command)
      if (given === undefined) {
        const list = await client.attachments()
        if (json) printJson(terminal, list)
        else terminal.out(list.length === 0 ? 'nothing is attached to this host\n' : attachmentTable(list))
        return
      }
      const attached = await showing(terminal, `attaching ${given}`, client.attach(parseVolumeName(given, namespace)))
      if (json) printJson(terminal, attached)
      else terminal.out(`${attached.device}\n`)
    })
  addMount(program, terminal)
  addEnd(program, terminal, 'detach', 'let the block device of a volume go')
  addEnd(program, terminal, 'unmount', 'unmount what holdfast mount has mounted')
}

function addMount(program: Command, terminal: Terminal): void {
  addClientOptions(
    program
      .command('mount <name> <dir>')
      .description('mount a volume on this host; a blank one gets a filesystem, any other is left as it is'),
  )
    .option('--namespace <ns>', NAMESPACE_HELP)
    .option('--fs <type>', 'filesystem for a blank volume: ext4 or xfs (default ext4)')
    .option('--mkfs-option <word>', 'for mkfs; may be given more than once', collect)
    .option('-O, --option <option>', 'mount option; may be given more than once', collect)
    .option('--read-only', 'mount it read-only')
    .action(async (given: string, directory: string, options: MountOptions, command: Command) => {
      const { client, json } = clientContext(terminal, command)
      const body = {
        directory: resolve(directory),
        fileSystem: options.fs,
        mkfsOptions: options.mkfsOption,
        mountOptions: options.option,
        readOnly: options.readOnly,
      }
      const mounted = client.mount(parseVolumeName(given, options.namespace), body)
      const { path, ...rest } = await showing(terminal, `mounting ${given}`, mounted)
      if (json) printJson(terminal, { ...rest, path })
      else terminal.out(`${fullName(rest)} is mounted on ${path ?? directory}\n`)
    })
}

function addEnd(program: Command, terminal: Terminal, what: 'detach' | 'unmount', description: string): void {
  addClientOptions(program.command(`${what} <name>`).description(description))
    .option('--namespace <ns>', NAMESPACE_HELP)
    .action(async (given: string, { namespace }: AttachOptions, command: Command) => {
      const { client, json } = clientContext(terminal, command)
      const name = parseVolumeName(given, namespace)
      await showing(terminal, `${what}ing ${given}`, what === 'detach' ? client.detach(name) : client.unmount(name))
      if (json) printJson(terminal, { ...name, [`${what}ed`]: true })
      else terminal.out(`${what}ed ${fullName(name)}\n`)
    })
}

async function showing<T>(terminal: Terminal, what: string, work: Promise<T>): Promise<T> {
  const progress = new Progress(terminal)
  if (terminal.progress) progress.show(what)
  return work.finally(() => progress.end())
}

function attachmentTable(list: readonly AttachmentObject[]): string {
  return formatTable(
    ['NAMESPACE', 'NAME', 'DEVICE', 'MOUNTED ON', 'USERS'],
    list.map(({ namespace, name, device, path, users }) => [namespace, name, device, path ?? '-', String(users)]),
  )
}
