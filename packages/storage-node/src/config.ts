/**
 * The configuration of a node: flags, over a file, over defaults. The keys of the file are the names of
 * the flags, so there is one vocabulary.
 */
import { readFileSync } from 'node:fs'
import { availableParallelism, homedir, hostname } from 'node:os'
import { join, resolve } from 'node:path'
import { HoldfastError, type NodeId, nodeId } from '@holdfast/base'
import { type CoordinatorUrl, parseCoordinatorUrl } from '@holdfast/coordinator'
import { parse as parseYaml } from 'yaml'
import { z } from 'zod'
import { isWildcard, type ListenAddress, parseAddress } from './address.ts'

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

/** When a node keeps the processors of its machine awake. */
const KEEP_AWAKE = ['busy', 'never'] as const

export interface NodeConfig {
  readonly name: NodeId
  /** Absolute. */
  readonly dataDir: string
  readonly coordinator: CoordinatorUrl
  readonly nbd: ListenAddress
  /** Absolute path of a unix socket that serves NBD as well. */
  readonly nbdSocket: string | undefined
  /** Absolute path of the unix socket that devices of this host use: `nbdSocket`, or one in the data directory. */
  readonly deviceSocket: string
  /** Absolute path of the Docker volume driver's socket; undefined: there is no driver. */
  readonly dockerPlugin: string | undefined
  readonly api: ListenAddress
  readonly peer: ListenAddress
  /** The host name or address under which other nodes reach this one. */
  readonly advertise: string
  readonly labels: Readonly<Record<string, string>>
  readonly leaseTtlMs: number
  /** A node away for longer has its copies replaced. */
  readonly replaceAfterMs: number
  /** Threads that the volumes are spread over; 1: all in the main thread. */
  readonly shardCount: number
  /** While it is busy, this machine's processors are kept from falling asleep. */
  readonly keepAwake: boolean
  readonly logLevel: LogLevel
  /** What the API wants as a bearer token; undefined: nothing. */
  readonly apiToken: string | undefined
}

const bad = (message: string): HoldfastError => new HoldfastError('HF_BAD_REQUEST', message)

/** Lanes are dealt out to shards: with many more than this some would have none. */
const SHARDS_MAX = 64
/** A thread costs some 15 MiB and a part of every cache; more than these one network and disk seldom feed. */
const SHARDS_DEFAULT_MAX = 8

function defaultShardCount(): number {
  return Math.min(SHARDS_DEFAULT_MAX, availableParallelism())
}

/** sun_path of unix(7), without its end. */
export const SOCKET_PATH_MAX = 107

const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/
/** YAML takes `zone: 1` for a number; people mean the text. */
const text = z.union([z.string(), z.number(), z.boolean()], 'must be text').transform(String)
const seconds = (min: number, max: number) =>
  z.coerce
    .number('must be a number of seconds')
    .min(min, `must be at least ${min} s`)
    .max(max, `must be at most ${max} s`)

const socketPath = z
  .string()
  .min(1, 'must be a path')
  .max(SOCKET_PATH_MAX, 'must be at most 107 characters: the system allows no longer socket paths')

const settings = z.strictObject({
  name: text
    .pipe(
      z
        .string()
        .regex(
          NAME,
          "must be 1 to 63 letters, digits, '_', '.' or '-', beginning with a letter or digit",
        )
        .refine((name) => !name.includes('..'), "must not contain '..'"),
    )
    .optional(),
  'data-dir': z.string().min(1, 'must name a directory').optional(),
  coordinator: z.string().optional(),
  nbd: text.optional(),
  'nbd-socket': socketPath.optional(),
  'docker-plugin': socketPath.optional(),
  api: text.optional(),
  peer: text.optional(),
  advertise: z.string().min(1, 'must be a host name or address').optional(),
  labels: z.record(z.string(), text).optional(),
  'lease-ttl': seconds(0.5, 300).optional(),
  'replace-after': seconds(1, 30 * 86_400).optional(),
  shards: z.coerce
    .number('must be a number')
    .int('must be a whole number')
    .min(1, 'must be at least 1')
    .max(SHARDS_MAX, `must be at most ${SHARDS_MAX}`)
    .optional(),
  'keep-awake': z.enum(KEEP_AWAKE, `must be one of ${KEEP_AWAKE.join(', ')}`).optional(),
  'log-level': z.enum(LOG_LEVELS, `must be one of ${LOG_LEVELS.join(', ')}`).optional(),
  'api-token': z.string().min(8, 'must have at least 8 characters').optional(),
})

/** What may be given as a flag or in the file, by the same names. Texts come from flags. */
export type NodeSettings = z.input<typeof settings>

/** Defaults that differ between `holdfast node` and `holdfast up`. */
export interface ConfigDefaults {
  readonly dataDir?: string | undefined
  readonly logLevel: LogLevel
}

/**
 * @param flags Absent or undefined: not given.
 * @param file Path of a YAML or JSON file.
 * @param token What the environment gives as the API's token.
 * @throws HoldfastError HF_BAD_REQUEST with a sentence that names the flag or the key.
 */
export function readConfig(options: {
  readonly flags: Readonly<Record<string, unknown>>
  readonly file?: string | undefined
  readonly token?: string | undefined
  readonly defaults: ConfigDefaults
}): NodeConfig {
  const { flags, file, token, defaults } = options
  const fromFlags = check(withoutUndefined(flags), (key) => `--${key}`)
  const fromFile = file === undefined ? {} : check(readFile(file), (key) => `${file}: ${key}`)
  const labels = { ...fromFile.labels, ...fromFlags.labels }
  const given = { ...fromFile, ...fromFlags, labels }
  const dataDir = given['data-dir'] ?? defaults.dataDir
  if (dataDir === undefined) {
    throw bad('no data directory is given: say where the node keeps its data with --data-dir DIR')
  }
  const peer = parseAddress('peer', given.peer ?? '127.0.0.1:5710')
  const { 'nbd-socket': nbdSocket, 'docker-plugin': dockerPlugin } = given
  return {
    name: nodeId(given.name ?? defaultName()),
    dataDir: resolve(dataDir),
    coordinator: parseCoordinatorUrl(given.coordinator ?? 'embedded'),
    nbd: parseAddress('nbd', given.nbd ?? '127.0.0.1:10809'),
    nbdSocket: nbdSocket === undefined ? undefined : resolve(nbdSocket),
    deviceSocket: resolve(nbdSocket ?? join(dataDir, 'nbd.sock')),
    dockerPlugin: dockerPlugin === undefined ? undefined : resolve(dockerPlugin),
    api: parseAddress('api', given.api ?? '127.0.0.1:5705'),
    peer,
    advertise: given.advertise ?? (isWildcard(peer.host) ? '127.0.0.1' : peer.host),
    labels,
    leaseTtlMs: (given['lease-ttl'] ?? 10) * 1000,
    replaceAfterMs: (given['replace-after'] ?? 600) * 1000,
    shardCount: given.shards ?? defaultShardCount(),
    keepAwake: given['keep-awake'] !== 'never',
    logLevel: given['log-level'] ?? defaults.logLevel,
    apiToken: given['api-token'] ?? (token === '' ? undefined : token),
  }
}

/** `~/.local/share/holdfast`, or where XDG_DATA_HOME says. */
export function defaultDataDir(env: Readonly<Record<string, string | undefined>>): string {
  const { XDG_DATA_HOME: data } = env
  return join(
    data === undefined || data === '' ? join(homedir(), '.local', 'share') : data,
    'holdfast',
  )
}

function withoutUndefined(flags: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(flags).filter(([, value]) => value !== undefined))
}

function check(value: unknown, place: (key: string) => string): z.output<typeof settings> {
  const { success, data, error } = settings.safeParse(value)
  if (success) return data
  const [issue] = error.issues
  const key = issue?.path.join('.') ?? ''
  if (issue?.code === 'unrecognized_keys') {
    const known = Object.keys(settings.shape).join(', ')
    throw bad(`${place(issue.keys.join(', '))} is not known: the settings are ${known}`)
  }
  const message = issue?.message ?? 'is not right'
  const wrong = key === '' ? 'it must be a map of settings, such as "name: a"' : message
  throw bad(
    `${place(key)}${key === '' ? '' : ' '}${wrong.startsWith('Invalid') ? `has a value of the wrong kind: ${wrong}` : wrong}`,
  )
}

function readFile(path: string): unknown {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw bad(`the configuration ${path} can't be read: ${(error as Error).message}`)
  }
  try {
    // JSON is YAML.
    return parseYaml(text) ?? {}
  } catch (error) {
    const [line] = (error as Error).message.split('\n')
    throw bad(`the configuration ${path} is neither YAML nor JSON: ${line}`)
  }
}

function defaultName(): string {
  const name = hostname()
  if (NAME.test(name) && !name.includes('..')) return name
  throw bad('the name of this host is no node name: give one with --name NAME')
}
