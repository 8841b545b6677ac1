/** What every command that asks a node has in common. */
import { ApiClient } from '@holdfast/api/client'
import { type Command, Option } from 'commander'
import type { Terminal } from './terminal.ts'

const DEFAULT_API = 'http://127.0.0.1:5705'

export interface ClientContext {
  readonly terminal: Terminal
  readonly client: ApiClient
  readonly json: boolean
}

/** Adds `-o` and `--api`. The root has them too, so that they may stand before the command. */
export function addClientOptions(command: Command): Command {
  return command
    .addOption(
      new Option('-o, --output <format>', 'table for people, json for scripts').choices([
        'table',
        'json',
      ]),
    )
    .option('--api <url>', `address of any node's API; or HOLDFAST_API (default ${DEFAULT_API})`)
}

/** @param command The one that runs; what it does not say, the root may. */
export function clientContext(terminal: Terminal, command: Command): ClientContext {
  let root = command
  while (root.parent !== null) root = root.parent
  const given = (name: string): string | undefined => {
    const value: unknown = command.opts()[name] ?? root.opts()[name]
    return typeof value === 'string' ? value : undefined
  }
  const { HOLDFAST_API: api, HOLDFAST_TOKEN: token } = terminal.env
  const url = given('api') ?? (api === undefined || api === '' ? DEFAULT_API : api)
  return { terminal, client: new ApiClient({ url, token }), json: given('output') === 'json' }
}
