/** The routes under /v1, and the two probes. */
import {
  type ClusterAdmin,
  HoldfastError,
  type NodeView,
  nodeId,
  type VolumeMounts,
  type VolumeView,
} from '@holdfast/base'
import type { FastifyInstance } from 'fastify'
import type { AttachmentObject } from './objects.ts'
import {
  attachmentObject,
  fullName,
  nodeDetailObject,
  nodeObject,
  sortedNodes,
  sortedVolumes,
  statusObject,
  volumeObject,
} from './present.ts'
import { readCreateVolume, readDrain, readMount, readMovePrimary } from './requests.ts'
import { checkName, DEFAULT_NAMESPACE } from './values.ts'

/** The one user of a mount that was asked for here. */
const API_MOUNT = 'api'

/** A volume's path is its name, or namespace and name. */
interface VolumePath {
  readonly first: string
  readonly second?: string | undefined
}
interface NodePath {
  readonly name: string
}

export function addRoutes(app: FastifyInstance, admin: ClusterAdmin, mounts: VolumeMounts): void {
  addVolumeRoutes(app, admin)
  addAttachmentRoutes(app, admin, mounts)
  addNodeRoutes(app, admin)
  app.get('/v1/status', () => statusObject(admin))
  app.get('/healthz', () => ({ status: 'alive' }))
  app.get('/readyz', (_, reply) => {
    const readiness = admin.readiness()
    return reply.code(readiness.ready ? 200 : 503).send(readiness)
  })
}

function addVolumeRoutes(app: FastifyInstance, admin: ClusterAdmin): void {
  app.get<{ Querystring: { namespace?: string } }>('/v1/volumes', ({ query: { namespace } }) => {
    if (namespace !== undefined) checkName('namespace', namespace)
    const volumes = admin.volumes().filter(({ record }) => {
      return namespace === undefined || record.namespace === namespace
    })
    return sortedVolumes(volumes).map(volumeObject)
  })
  app.post('/v1/volumes', async ({ body }, reply) => {
    const created = await admin.createVolume(readCreateVolume(body, replicasDefault(admin)))
    return reply.code(201).send(volumeObject(created))
  })
  for (const path of ['/v1/volumes/:first', '/v1/volumes/:first/:second']) {
    app.get<{ Params: VolumePath }>(path, ({ params }) => volumeObject(findVolume(admin, params)))
    app.delete<{ Params: VolumePath }>(path, async ({ params }, reply) => {
      const { record } = findVolume(admin, params)
      await admin.removeVolume(record.namespace, record.name)
      return reply.code(204).send()
    })
    app.post<{ Params: VolumePath }>(`${path}/move-primary`, async ({ params, body }) => {
      const to = readMovePrimary(body)
      const { record } = findVolume(admin, params)
      const target = to === undefined ? undefined : findNode(admin, to).record.name
      return volumeObject(await admin.movePrimary(record.namespace, record.name, target))
    })
  }
}

/** Devices and mounts of the host that answers. */
function addAttachmentRoutes(app: FastifyInstance, admin: ClusterAdmin, mounts: VolumeMounts): void {
  app.get('/v1/attachments', () => mounts.list().map(attachmentObject))
  for (const path of ['/v1/volumes/:first', '/v1/volumes/:first/:second']) {
    app.post<{ Params: VolumePath }>(`${path}/attach`, async ({ params }) => {
      const { namespace, name } = findVolume(admin, params).record
      await mounts.attach(namespace, name)
      return findAttachment(mounts, namespace, name)
    })
    app.post<{ Params: VolumePath }>(`${path}/detach`, async ({ params }, reply) => {
      const { namespace, name } = attachedName(admin, mounts, params)
      await mounts.detach(namespace, name)
      return reply.code(204).send()
    })
    app.post<{ Params: VolumePath }>(`${path}/mount`, async ({ params, body }) => {
      const { namespace, name } = findVolume(admin, params).record
      await mounts.mount({ namespace, name, mountId: API_MOUNT, ...readMount(body) })
      return findAttachment(mounts, namespace, name)
    })
    app.post<{ Params: VolumePath }>(`${path}/unmount`, async ({ params }, reply) => {
      const { namespace, name } = attachedName(admin, mounts, params)
      await mounts.unmount(namespace, name, API_MOUNT)
      return reply.code(204).send()
    })
  }
}

function findAttachment(mounts: VolumeMounts, namespace: string, name: string): AttachmentObject {
  const found = mounts.list().find((one) => one.namespace === namespace && one.name === name)
  if (found !== undefined) return attachmentObject(found)
  throw new HoldfastError('HF_IO', `volume ${fullName({ namespace, name })} was let go again at once: look at the node's log`)
}

/** What is attached here can be let go although the volume is gone. */
function attachedName(admin: ClusterAdmin, mounts: VolumeMounts, path: VolumePath): { namespace: string; name: string } {
  const namespace = path.second === undefined ? DEFAULT_NAMESPACE : path.first
  const name = path.second ?? path.first
  const attached = mounts.list().find((one) => one.namespace === namespace && one.name === name)
  return attached ?? findVolume(admin, path).record
}

function addNodeRoutes(app: FastifyInstance, admin: ClusterAdmin): void {
  app.get('/v1/nodes', () => sortedNodes(admin.nodes()).map(nodeObject))
  app.get<{ Params: NodePath }>('/v1/nodes/:name', ({ params }) => {
    return nodeDetailObject(findNode(admin, params.name), admin.volumes())
  })
  app.post<{ Params: NodePath }>('/v1/nodes/:name/drain', async ({ params, body }) => {
    const draining = readDrain(body)
    const { record } = findNode(admin, params.name)
    return nodeDetailObject(await admin.setDraining(record.name, draining), admin.volumes())
  })
}

/** Two copies where a second node exists: one copy must be asked for, except on a laptop. */
function replicasDefault(admin: ClusterAdmin): number {
  return admin.nodes().length > 1 ? 2 : 1
}

function findVolume(admin: ClusterAdmin, { first, second }: VolumePath): VolumeView {
  const namespace = checkName('namespace', second === undefined ? DEFAULT_NAMESPACE : first)
  const name = checkName('volume name', second ?? first)
  const view = admin.volume(namespace, name)
  if (view !== undefined) return view
  throw new HoldfastError(
    'HF_NOT_FOUND',
    `there is no volume ${fullName({ namespace, name })}: see holdfast volume ls`,
  )
}

function findNode(admin: ClusterAdmin, name: string): NodeView {
  const view = admin.nodes().find(({ record }) => record.name === nodeId(name))
  if (view !== undefined) return view
  throw new HoldfastError('HF_NOT_FOUND', `there is no node ${name}: see holdfast node ls`)
}
