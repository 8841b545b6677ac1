/** Request bodies: what is accepted, and for everything else a sentence that says what to send. */
import { type CreateVolume, FILE_SYSTEMS, type FileSystem, HoldfastError } from '@holdfast/base'
import {
  checkLabels,
  checkName,
  checkNodeName,
  checkReplicaCount,
  checkSize,
  DEFAULT_NAMESPACE,
  parseFailureMode,
  parseSize,
  quoted,
} from './values.ts'

type Kind = 'string' | 'number' | 'boolean' | 'object' | 'array'
type Fields = Readonly<Record<string, { readonly is: readonly Kind[]; readonly example: string }>>

const bad = (message: string): HoldfastError => new HoldfastError('HF_BAD_REQUEST', message)

function kindOf(value: unknown): string {
  if (value === null) return 'null'
  return Array.isArray(value) ? 'array' : typeof value
}

/** The body as an object that has no other fields than these, each of the right kind. */
function readObject(body: unknown, fields: Fields): Readonly<Record<string, unknown>> {
  if (kindOf(body) !== 'object') {
    throw bad(
      `the body is ${body === undefined ? 'missing' : `of type ${kindOf(body)}`}: send a JSON object`,
    )
  }
  const object = Object.fromEntries(Object.entries(body as object))
  for (const [name, value] of Object.entries(object)) {
    const field = Object.hasOwn(fields, name) ? fields[name] : undefined
    if (field === undefined) {
      throw bad(
        `${quoted(name)} is not known here: the fields are ${Object.keys(fields).join(', ')}`,
      )
    }
    if (!field.is.some((kind) => kind === kindOf(value))) {
      throw bad(
        `${name} is of type ${kindOf(value)}: it must be of type ${field.is.join(' or ')}, such as ${field.example}`,
      )
    }
  }
  return object
}

const createFields: Fields = {
  name: { is: ['string'], example: '"data"' },
  namespace: { is: ['string'], example: '"default"' },
  size: { is: ['number', 'string'], example: '"10GiB"' },
  replicas: { is: ['number'], example: '2' },
  labels: { is: ['object'], example: '{"tier": "fast"}' },
  failureMode: { is: ['string'], example: '"threshold=2"' },
}

/** @param replicasDefault Copies where the request does not say. */
export function readCreateVolume(body: unknown, replicasDefault: number): CreateVolume {
  const { name, namespace, size, replicas, labels, failureMode } = readObject(body, createFields)
  if (typeof name !== 'string') throw bad('name is missing: say what the volume is called')
  if (size === undefined) throw bad('size is missing: say how large the volume is, as in "10GiB"')
  return {
    name: checkName('volume name', name),
    namespace: checkName(
      'namespace',
      typeof namespace === 'string' ? namespace : DEFAULT_NAMESPACE,
    ),
    sizeBytes: typeof size === 'string' ? parseSize(size) : checkSize(Number(size)),
    replicaCount: checkReplicaCount(typeof replicas === 'number' ? replicas : replicasDefault),
    labels: readLabels(labels),
    failureMode: typeof failureMode === 'string' ? parseFailureMode(failureMode) : undefined,
  }
}

function readLabels(labels: unknown): Record<string, string> {
  const read: Record<string, string> = {}
  for (const [key, value] of Object.entries(labels ?? {})) {
    if (typeof value !== 'string')
      throw bad(`the label ${quoted(key)} is no text: put it in quotes`)
    read[key] = value
  }
  return checkLabels(read)
}

/** The node to move to, if the request names one. No body is fine. */
export function readMovePrimary(body: unknown): string | undefined {
  if (body === undefined || body === null) return undefined
  const { to } = readObject(body, { to: { is: ['string'], example: '"node-b"' } })
  return typeof to === 'string' ? checkNodeName(to) : undefined
}

const mountFields: Fields = {
  directory: { is: ['string'], example: '"/mnt/data"' },
  fileSystem: { is: ['string'], example: '"ext4"' },
  mkfsOptions: { is: ['array'], example: '["-m", "0"]' },
  mountOptions: { is: ['array'], example: '["noatime"]' },
  readOnly: { is: ['boolean'], example: 'true' },
}

export interface MountOptions {
  readonly directory: string
  readonly fileSystem: FileSystem
  readonly mkfsOptions: readonly string[]
  readonly mountOptions: readonly string[]
  readonly readOnly: boolean
}

export function readMount(body: unknown): MountOptions {
  const { directory, fileSystem = 'ext4', mkfsOptions, mountOptions, readOnly } = readObject(body, mountFields)
  if (typeof directory !== 'string') throw bad('directory is missing: say where to mount the volume')
  const known = FILE_SYSTEMS.find((one) => one === fileSystem)
  if (known === undefined) throw bad(`${quoted(String(fileSystem))} is no filesystem for volumes: use ${FILE_SYSTEMS.join(' or ')}`)
  const options = { mkfsOptions: readTexts('mkfsOptions', mkfsOptions), mountOptions: readTexts('mountOptions', mountOptions) }
  return { directory, fileSystem: known, ...options, readOnly: readOnly === true }
}

function readTexts(field: string, value: unknown): readonly string[] {
  if (value === undefined) return []
  if (Array.isArray(value) && value.every((text) => typeof text === 'string')) return value
  throw bad(`${field} holds something else than texts: send a list of texts`)
}

/** No body means: drain. */
export function readDrain(body: unknown): boolean {
  if (body === undefined || body === null) return true
  const { draining } = readObject(body, { draining: { is: ['boolean'], example: 'true' } })
  return draining !== false
}
