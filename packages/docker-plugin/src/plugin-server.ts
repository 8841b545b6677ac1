/** The volume plugin protocol on a unix socket: JSON in POST requests, failures as `{"Err": "a sentence"}`. */
import { chmodSync, mkdirSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import { type ClusterAdmin, type EventLog, HoldfastError, isHoldfastError, type VolumeMounts } from '@holdfast/base'
import { fastify, type FastifyInstance } from 'fastify'
import { defaultDriverSettings, Driver, type DriverSettings } from './driver.ts'

const CONTENT_TYPE = 'application/vnd.docker.plugins.v1.2+json'
const BODY_BYTES_MAX = 256 * 1024

export interface DockerPluginOptions {
  /** Where Docker looks: `/run/docker/plugins/holdfast.sock`; the name of the file is the name of the driver. */
  readonly socketPath: string
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

/** @throws HoldfastError HF_CONFLICT when another process serves that socket; HF_IO. */
export async function startDockerPlugin(options: DockerPluginOptions): Promise<{ close(): Promise<void> }> {
  const { socketPath, admin, mounts, events, ready, settings } = options
  const driver = new Driver(admin, mounts, events, { ...defaultDriverSettings, ...settings })
  const app = createApp(driver, ready, events)
  await makeRoom(socketPath)
  try {
    await app.listen({ path: socketPath })
    chmodSync(socketPath, 0o600)
  } catch (error) {
    await app.close()
    throw new HoldfastError('HF_IO', `the Docker plugin can't listen on ${socketPath}: ${reasonOf(error)}`)
  }
  return {
    close: async () => {
      await app.close()
      rmSync(socketPath, { force: true })
    },
  }
}

function createApp(driver: Driver, ready: () => Promise<unknown>, events: EventLog): FastifyInstance {
  const app = fastify({ bodyLimit: BODY_BYTES_MAX, forceCloseConnections: true })
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'string' }, (_, body, done) => done(null, String(body)))
  app.setErrorHandler((error, request, reply) => {
    const known = isHoldfastError(error)
    if (!known) events.event('error', 'a call of docker failed', { call: request.url, reason: reasonOf(error) })
    return reply.code(500).type(CONTENT_TYPE).send(JSON.stringify({ Err: reasonOf(error) }))
  })
  app.setNotFoundHandler((request) => {
    throw new HoldfastError('HF_NOT_FOUND', `the volume driver has no call ${request.url}`)
  })
  const on = (path: string, handle: (call: Call) => object | Promise<object>): void => {
    app.post(path, async ({ body }, reply) => {
      const call = readCall(body)
      if (path.startsWith('/VolumeDriver.')) await ready()
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

function readCall(body: unknown): Call {
  let value: unknown = {}
  try {
    if (typeof body === 'string' && body.trim() !== '') value = JSON.parse(body)
  } catch {
    throw new HoldfastError('HF_BAD_REQUEST', 'the call is no JSON')
  }
  const { Name: name = '', ID: id = '', Opts: options } = (value ?? {}) as { Name?: unknown; ID?: unknown; Opts?: unknown }
  if (typeof name !== 'string' || typeof id !== 'string') {
    throw new HoldfastError('HF_BAD_REQUEST', 'Name and ID of a call are texts')
  }
  const entries = Object.entries(typeof options === 'object' && options !== null ? options : {})
  return { name, id, options: Object.fromEntries(entries.map(([key, text]) => [key, String(text)])) }
}

/** Removes what a killed process left; never the socket of one that lives. */
async function makeRoom(path: string): Promise<void> {
  mkdirSync(dirname(path), { recursive: true })
  const answers = await new Promise<boolean>((resolve) => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
  if (answers) {
    throw new HoldfastError('HF_CONFLICT', `another process serves ${path}: stop it, or choose another path with --docker-plugin`)
  }
  rmSync(path, { force: true })
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
