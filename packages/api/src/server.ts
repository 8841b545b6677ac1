/** The HTTP server of a node: routes, authorization, errors, metrics. */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import type { ClusterAdmin, EngineStatistics, EventLog, VolumeMounts } from '@holdfast/base'
import { HoldfastError } from '@holdfast/base'
import { fastify, type FastifyInstance, type FastifyRequest } from 'fastify'
import { collectDefaultMetrics, Histogram, Registry } from 'prom-client'
import { errorReply } from './error-reply.ts'
import { engineMetrics } from './metrics.ts'
import { formatMetrics, type MetricFamily } from './metrics-text.ts'
import { addRoutes } from './routes.ts'

/** Larger than any request of ours. */
const BODY_BYTES_MAX = 64 * 1024

/** What watches a node has no token; these say nothing that must be hidden. */
const OPEN_ROUTES: ReadonlySet<string> = new Set(['/metrics', '/healthz', '/readyz'])
/** Answers with what the node's own copies of volumes do. */
const SHOWS_COPIES = /^\/(metrics$|v1\/volumes)/

export interface ApiOptions {
  readonly host: string
  /** 0: any free port; `ApiHandle.port` says which. */
  readonly port: number
  readonly admin: ClusterAdmin
  /** The devices and mounts of the host. */
  readonly mounts: VolumeMounts
  readonly statistics: () => EngineStatistics
  /** Metrics of other parts of the node, asked for at each scrape. */
  readonly extraMetrics?: (() => readonly MetricFamily[]) | undefined
  /** Brings up to date what of the above is known only elsewhere; awaited before a request to read is answered. */
  readonly refresh?: (() => Promise<void>) | undefined
  readonly events: EventLog
  /** When set, all but metrics and probes want it as `Authorization: Bearer`. */
  readonly token?: string | undefined
}

export interface ApiHandle {
  readonly host: string
  readonly port: number
  /** Refuses new connections, lets requests under way end. */
  close(): Promise<void>
}

/** Rejects with HF_CONFLICT where the address is taken, HF_IO for other failures to listen. */
export async function startApi(options: ApiOptions): Promise<ApiHandle> {
  const app = createApi(options)
  try {
    await app.listen({ host: options.host, port: options.port })
  } catch (error) {
    await app.close()
    throw listenError(error, options)
  }
  const { port } = app.server.address() as AddressInfo
  return { host: options.host, port, close: () => app.close() }
}

function listenError(error: unknown, { host, port }: ApiOptions): HoldfastError {
  const code = (error as NodeJS.ErrnoException).code ?? 'unknown'
  const options = { cause: error }
  if (code === 'EADDRINUSE') {
    const message = `the API can't listen on ${host}:${port}, it is in use: choose another address with --api`
    return new HoldfastError('HF_CONFLICT', message, { port }, options)
  }
  const message = `the API can't listen on ${host}:${port}: ${code}`
  return new HoldfastError('HF_IO', message, { port }, options)
}

/** The server without a socket: what tests inject requests into. */
export function createApi(options: ApiOptions): FastifyInstance {
  const { admin, mounts, statistics, events, token } = options
  const app = fastify({
    bodyLimit: BODY_BYTES_MAX,
    forceCloseConnections: 'idle',
    routerOptions: { ignoreTrailingSlash: true },
  })
  // A browser can send text/plain anywhere without asking; it is not for us.
  app.removeContentTypeParser('text/plain')
  acceptEmptyJson(app)
  app.setErrorHandler((error, request, reply) => {
    const { status, body } = errorReply(error, `${request.method} ${request.url}`, events)
    void reply.code(status).send(body)
  })
  app.setNotFoundHandler((request) => {
    throw new HoldfastError(
      'HF_NOT_FOUND',
      `there is no ${request.method} ${pathOf(request)}: the API is at /v1/volumes, /v1/nodes and /v1/status`,
    )
  })
  if (token !== undefined) {
    app.addHook('onRequest', async (request) => {
      // By the route that matched: a path can be spelt in many ways.
      if (!OPEN_ROUTES.has(request.routeOptions.url ?? '')) authorize(request, token)
    })
  }
  const { refresh } = options
  if (refresh !== undefined) {
    app.addHook('preHandler', async (request) => {
      if (request.method === 'GET' && SHOWS_COPIES.test(pathOf(request))) await refresh()
    })
  }
  const registry = new Registry()
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: LOOP_LAG_SAMPLE_MS })
  countRequests(app, registry)
  addRoutes(app, admin, mounts)
  app.get('/metrics', async (_, reply) => {
    const families = [...engineMetrics(admin, statistics()), ...(options.extraMetrics?.() ?? [])]
    void reply.type(registry.contentType)
    return formatMetrics(families) + (await registry.metrics())
  })
  return app
}

/** How often the lag of the event loop is sampled. The library's 10 ms would be most of what wakes an idle node up. */
const LOOP_LAG_SAMPLE_MS = 200

/** Scripts send the header whether or not there is a body. */
function acceptEmptyJson(app: FastifyInstance): void {
  const parser = app.getDefaultJsonParser('error', 'error')
  app.removeContentTypeParser('application/json')
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') done(null, undefined)
    else parser(request, String(body), done)
  })
}

function pathOf(request: FastifyRequest): string {
  return request.url.split('?', 1)[0] ?? ''
}

function authorize(request: FastifyRequest, token: string): void {
  const given = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1]
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
  if (given !== undefined && timingSafeEqual(digest(given), digest(token))) return
  const problem = given === undefined ? 'no token was sent' : 'the token sent is not right'
  throw new HoldfastError(
    'HF_UNAUTHORIZED',
    `${problem}: set HOLDFAST_TOKEN to the token of the cluster`,
  )
}

function countRequests(app: FastifyInstance, registry: Registry): void {
  const durations = new Histogram({
    name: 'holdfast_api_request_duration_seconds',
    help: 'Time that requests to the REST API took',
    labelNames: ['method', 'route', 'status'],
    buckets: [0.001, 0.01, 0.1, 1, 10],
    registers: [registry],
  })
  app.addHook('onResponse', async (request, reply) => {
    // The pattern, not the path: names of volumes would be endless label values.
    const route = request.routeOptions.url ?? 'none'
    const labels = { method: request.method, route, status: reply.statusCode }
    durations.observe(labels, reply.elapsedTime / 1000)
  })
}
