/** The typed client of the REST API, over `fetch`. */
import { type ErrorCode, errorTraits, HoldfastError } from '@holdfast/base'
import type {
  AttachmentObject,
  CreateVolumeBody,
  MountBody,
  NodeDetailObject,
  NodeObject,
  StatusObject,
  VolumeObject,
} from './objects.ts'

export type * from './objects.ts'
export * from './values.ts'
export { fullName } from './present.ts'
export { version } from './version.ts'

export interface ApiClientOptions {
  /** `http://host:port`; a bare `host:port` is taken as http. */
  readonly url: string
  readonly token?: string | undefined
  /** For tests. */
  readonly fetch?: typeof fetch | undefined
}

interface VolumeName {
  readonly namespace: string
  readonly name: string
}

/** Every failure is a HoldfastError: the server's own, or HF_UNAVAILABLE where none answers. */
export class ApiClient {
  readonly url: string
  readonly #token: string | undefined
  readonly #fetch: typeof fetch

  /** Throws HF_BAD_REQUEST for what is no URL. */
  constructor({ url, token, fetch: fetchFunction = fetch }: ApiClientOptions) {
    this.url = checkUrl(url)
    this.#token = token === '' ? undefined : token
    this.#fetch = fetchFunction
  }

  volumes(namespace?: string): Promise<readonly VolumeObject[]> {
    const query = namespace === undefined ? '' : `?namespace=${encodeURIComponent(namespace)}`
    return this.#call('GET', `/v1/volumes${query}`)
  }

  volume(name: VolumeName): Promise<VolumeObject> {
    return this.#call('GET', volumePath(name))
  }

  /** Answers once the volume serves; HF_TIMEOUT when it is created but does not yet. */
  createVolume(body: CreateVolumeBody): Promise<VolumeObject> {
    return this.#call('POST', '/v1/volumes', body)
  }

  async removeVolume(name: VolumeName): Promise<void> {
    await this.#call<unknown>('DELETE', volumePath(name))
  }

  movePrimary(name: VolumeName, to?: string): Promise<VolumeObject> {
    return this.#call('POST', `${volumePath(name)}/move-primary`, { to })
  }

  /** Makes the volume a device of the host that answers, for it alone. */
  attach(name: VolumeName): Promise<AttachmentObject> {
    return this.#call('POST', `${volumePath(name)}/attach`)
  }

  async detach(name: VolumeName): Promise<void> {
    await this.#call<unknown>('POST', `${volumePath(name)}/detach`)
  }

  mount(name: VolumeName, body: MountBody): Promise<AttachmentObject> {
    return this.#call('POST', `${volumePath(name)}/mount`, body)
  }

  async unmount(name: VolumeName): Promise<void> {
    await this.#call<unknown>('POST', `${volumePath(name)}/unmount`)
  }

  /** What is attached to the host that answers. */
  attachments(): Promise<readonly AttachmentObject[]> {
    return this.#call('GET', '/v1/attachments')
  }

  nodes(): Promise<readonly NodeObject[]> {
    return this.#call('GET', '/v1/nodes')
  }

  node(name: string): Promise<NodeDetailObject> {
    return this.#call('GET', `/v1/nodes/${encodeURIComponent(name)}`)
  }

  setDraining(name: string, draining: boolean): Promise<NodeDetailObject> {
    return this.#call('POST', `/v1/nodes/${encodeURIComponent(name)}/drain`, { draining })
  }

  status(): Promise<StatusObject> {
    return this.#call('GET', '/v1/status')
  }

  async #call<Answer>(method: string, path: string, body?: unknown): Promise<Answer> {
    const headers: Record<string, string> = { accept: 'application/json' }
    if (this.#token !== undefined) headers['authorization'] = `Bearer ${this.#token}`
    if (body !== undefined) headers['content-type'] = 'application/json'
    let status: number
    let text: string
    try {
      const payload = body === undefined ? null : JSON.stringify(body)
      const response = await this.#fetch(`${this.url}${path}`, { method, headers, body: payload })
      status = response.status
      text = await response.text()
    } catch (error) {
      throw unreachableApi(this.url, error)
    }
    const answer = parseAnswer(text)
    if (status >= 200 && status < 300) {
      if (text !== '' && answer === undefined) throw notOurs(this.url, status)
      return answer as Answer
    }
    throw answeredError(answer) ?? notOurs(this.url, status)
  }
}

function checkUrl(text: string): string {
  const full = /^[a-z]+:\/\//i.test(text) ? text : `http://${text}`
  const { protocol, host, pathname } = URL.canParse(full) ? new URL(full) : new URL('none://')
  if ((protocol === 'http:' || protocol === 'https:') && host !== '') {
    return `${protocol}//${host}${pathname.replace(/\/+$/, '')}`
  }
  throw new HoldfastError(
    'HF_BAD_REQUEST',
    `${JSON.stringify(text)} is no API address: write http://HOST:PORT, as in http://127.0.0.1:5705`,
  )
}

function volumePath({ namespace, name }: VolumeName): string {
  return `/v1/volumes/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`
}

function parseAnswer(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function answeredError(answer: unknown): HoldfastError | undefined {
  const { error } = (answer ?? {}) as {
    error?: { code?: unknown; message?: unknown; details?: unknown }
  }
  const code = String(error?.code)
  if (error === undefined || typeof error.message !== 'string' || !isErrorCode(code))
    return undefined
  const details = (error.details ?? {}) as Record<string, string | number | boolean>
  return new HoldfastError(code, error.message, details)
}

const isErrorCode = (code: string): code is ErrorCode => Object.hasOwn(errorTraits, code)

function unreachableApi(url: string, error: unknown): HoldfastError {
  const { code, message } = ((error as Error).cause ?? error) as { code?: string; message?: string }
  return new HoldfastError(
    'HF_UNAVAILABLE',
    `no node answers at ${url} (${code ?? message ?? 'no reason given'}): start one, or name another with --api URL or HOLDFAST_API`,
    {},
    { cause: error },
  )
}

function notOurs(url: string, status: number): HoldfastError {
  return new HoldfastError(
    'HF_UNAVAILABLE',
    `what answers at ${url} is no Holdfast API (status ${status}): check --api or HOLDFAST_API`,
  )
}
