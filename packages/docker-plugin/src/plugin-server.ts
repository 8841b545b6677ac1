/**
 * The volume plugin protocol on a unix socket: JSON in POST requests, failures as `{"Err": "a sentence"}`. Docker's own
 * socket is held by a process that outlives this one (`front-main.ts`) and leads here.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, existsSync, lstatSync, mkdirSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import { quoted } from '@holdfast/api/client'
import { type ClusterAdmin, type EventLog, HoldfastError, isHoldfastError, type VolumeMounts } from '@holdfast/base'
import { fastify, type FastifyInstance } from 'fastify'
import { defaultDriverSettings, Driver, type DriverSettings } from './driver.ts'

const CONTENT_TYPE = 'application/vnd.docker.plugins.v1.2+json'
const BODY_BYTES_MAX = 256 * 1024
const FRONT_RETRY_MS = 1_000

const bad = (message: string): HoldfastError => new HoldfastError('HF_BAD_REQUEST', message)

export interface DockerPluginOptions {
  /** Where Docker looks: `/run/docker/plugins/holdfast.sock`; the name of the file is the name of the driver. */
  readonly socketPath: string
  /** Where the node itself listens. */
  readonly nodeSocketPath: string
  /** Arguments for `node` to run a program that lies beside a module. */
  readonly programArguments: (name: string, from: string) => readonly string[]
  readonly admin: ClusterAdmin
  readonly mounts: VolumeMounts
  readonly events: EventLog
  /** Waits a little for a node that is starting. @throws HoldfastError HF_UNAVAILABLE when it takes long. */
  readonly ready: () => Promise<unknown>
  readonly settings?: Partial<DriverSettings> | undefined
}

interface Call {
  readonly name: string
  readonly id: string
  readonly options: Readonly<Record<string, string>>
}

export interface DockerPlugin {
  /** The process that holds Docker's socket now; it outlives this plugin. */
  readonly frontPid: number
  /** Stops answering. */
  close(): Promise<void>
}

/** @throws HoldfastError HF_CONFLICT when another process serves that socket; HF_IO. */
export async function startDockerPlugin(options: DockerPluginOptions): Promise<DockerPlugin> {
  const { socketPath, nodeSocketPath, admin, mounts, events, ready, settings } = options
  const driver = new Driver(admin, mounts, events, { ...defaultDriverSettings, ...settings })
  const app = createApp(driver, ready, events)
  makeFolder(socketPath)
  await makeRoom(nodeSocketPath)
  try {
    await app.listen({ path: nodeSocketPath })
    chmodSync(nodeSocketPath, 0o600)
    const front = await KeptFront.start(options)
    const close = async (): Promise<void> => {
      front.leave()
      // Removes the node's socket as well.
      await app.close()
    }
    return {
      get frontPid() {
        return front.pid
      },
      close,
    }
  } catch (error) {
    await app.close()
    throw new HoldfastError('HF_IO', `the Docker plugin can't listen on ${socketPath}: ${reasonOf(error)}`)
  }
}

function createApp(driver: Driver, ready: () => Promise<unknown>, events: EventLog): FastifyInstance {
  const app = fastify({ bodyLimit: BODY_BYTES_MAX, forceCloseConnections: true })
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'string' }, (_, body, done) => done(null, String(body)))
  app.setErrorHandler((error, request, reply) => {
    const tooLarge = isTooLarge(error)
    const long = `the call is longer than ${BODY_BYTES_MAX} bytes: leave out options`
    const reason = tooLarge ? long : reasonOf(error)
    if (!tooLarge && !isHoldfastError(error)) {
      events.event('error', 'a call of docker failed', { call: request.url, reason })
    }
    return reply.code(500).type(CONTENT_TYPE).send(JSON.stringify({ Err: reason }))
  })
  app.setNotFoundHandler((request) => {
    throw new HoldfastError('HF_NOT_FOUND', `the volume driver has no call ${request.url}`)
  })
  const on = (path: string, handle: (call: Call) => object | Promise<object>): void => {
    app.post(path, async (request, reply) => {
      const { body } = request
      const call = readCall(body)
      try {
        if (path.startsWith('/VolumeDriver.')) await ready()
      } catch (error) {
        // Docker takes a Get that fails for a volume that does not exist, and makes one on the local disk: no answer
        // at all it takes for what it is.
        if (path === '/VolumeDriver.Get') request.raw.socket.destroy()
        throw error
      }
      const answer = await handle(call)
      return reply.type(CONTENT_TYPE).send(JSON.stringify(answer))
    })
  }
  const done = { Err: '' }
  on('/Plugin.Activate', () => ({ Implements: ['VolumeDriver'] }))
  on('/VolumeDriver.Capabilities', () => ({ Capabilities: { Scope: 'global' } }))
  on('/VolumeDriver.Create', async ({ name, options }) => {
    await driver.create(name, options)
    return done
  })
  on('/VolumeDriver.Remove', async ({ name }) => {
    await driver.remove(name)
    return done
  })
  on('/VolumeDriver.Mount', async ({ name, id }) => ({ Mountpoint: await driver.mount(name, id), ...done }))
  on('/VolumeDriver.Unmount', async ({ name, id }) => {
    await driver.unmount(name, id)
    return done
  })
  on('/VolumeDriver.Path', ({ name }) => ({ Mountpoint: driver.path(name), ...done }))
  on('/VolumeDriver.Get', ({ name }) => ({ Volume: driver.get(name), ...done }))
  on('/VolumeDriver.List', () => ({ Volumes: driver.list(), ...done }))
  return app
}

/** The process that holds Docker's socket, and another one where it ends before this node does. */
class KeptFront {
  readonly #options: DockerPluginOptions
  #front: ChildProcess
  #left = false
  #again: NodeJS.Timeout | undefined

  private constructor(options: DockerPluginOptions, front: ChildProcess) {
    this.#options = options
    this.#front = front
    this.#watch(front)
  }

  static async start(options: DockerPluginOptions): Promise<KeptFront> {
    return new KeptFront(options, await startFront(options))
  }

  get pid(): number {
    return this.#front.pid ?? 0
  }

  /** From now on it is on its own. */
  leave(): void {
    this.#left = true
    clearTimeout(this.#again)
  }

  #watch(front: ChildProcess): void {
    front.once('exit', (code, signal) => {
      const { events, socketPath } = this.#options
      // By itself it ends where another one has taken its place, or where it has had no answer from here for long.
      if (this.#left || (code === 0 && existsSync(socketPath))) return
      events.event('error', "the process that holds docker's socket has ended: another one is started", {
        socketPath,
        by: signal ?? `code ${code}`,
      })
      this.#later()
    })
  }

  #later(): void {
    this.#again = setTimeout(() => {
      startFront(this.#options).then(
        (front) => {
          this.#front = front
          if (this.#left) return
          this.#watch(front)
        },
        (error: unknown) => {
          this.#options.events.event('error', "docker's socket has no process", { reason: reasonOf(error) })
          if (!this.#left) this.#later()
        },
      )
    }, FRONT_RETRY_MS)
    this.#again.unref()
  }
}

/** Takes the place of the one that an earlier process of this node left. */
async function startFront({ socketPath, nodeSocketPath, programArguments }: DockerPluginOptions): Promise<ChildProcess> {
  const words = [...programArguments('front-main', import.meta.url), socketPath, nodeSocketPath]
  const front = spawn(process.execPath, words, {
    cwd: '/',
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NODE_OPTIONS: '' },
  })
  let said = ''
  front.stderr.on('data', (text: Buffer) => (said += text.toString()))
  await new Promise<void>((resolve, reject) => {
    front.stdout.once('data', () => resolve())
    front.once('error', reject)
    front.once('exit', () => reject(new Error(said.trim().slice(-300))))
  })
  for (const stream of [front.stdout, front.stderr]) {
    stream.removeAllListeners('data')
    stream.destroy()
  }
  front.removeAllListeners()
  front.unref()
  return front
}

function readCall(body: unknown): Call {
  let value: unknown = {}
  try {
    if (typeof body === 'string' && body.trim() !== '') value = JSON.parse(body)
  } catch {
    throw bad('the call is no JSON')
  }
  if (!isObject(value)) throw bad('the call is no JSON object')
  const { Name: name = '', ID: id = '', Opts: options } = value
  if (typeof name !== 'string' || typeof id !== 'string') throw bad('Name and ID of a call are texts')
  if (!isObject(options ?? {})) throw bad('Opts of a call is an object')
  const entries = Object.entries(options ?? {}).map(([key, text]): [string, string] => {
    if (typeof text === 'string') return [key, text]
    throw bad(`the option ${quoted(key)} is no text`)
  })
  return { name, id, options: Object.fromEntries(entries) }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** @throws HoldfastError HF_CONFLICT when something else than a socket lies there; HF_IO. */
function makeFolder(path: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true })
  } catch (error) {
    throw new HoldfastError('HF_IO', `the folder of ${path} can't be made: ${reasonOf(error)}`)
  }
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === false) {
    throw new HoldfastError('HF_CONFLICT', `${path} is no socket: move it away, or choose another path`)
  }
}

/** Removes what a killed process left; never the socket of one that lives. */
async function makeRoom(path: string): Promise<void> {
  makeFolder(path)
  if (!(await isLeftOver(path))) {
    throw new HoldfastError('HF_CONFLICT', `another process serves ${path}: stop it first`)
  }
  rmSync(path, { force: true })
}

/** Only a refusal says that nobody is there: one who is busy doesn't answer either. */
function isLeftOver(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(false)
    })
    socket.once('error', ({ code }: NodeJS.ErrnoException) => {
      resolve(code === 'ECONNREFUSED' || code === 'ENOENT')
    })
  })
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function isTooLarge(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'FST_ERR_CTP_BODY_TOO_LARGE'
}
