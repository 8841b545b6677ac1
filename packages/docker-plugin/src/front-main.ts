/**
 * Holds Docker's socket while the node may be away, in a process of its own that outlives the node: a restart of the
 * node is a short wait for Docker, and a node that is down a sentence. Without a listener Docker tries each call for
 * 15 s, never repeats an Unmount that failed so, and leaves containers stopped that it should start at boot.
 *
 * Knows nothing of the calls but what to say in the node's absence. An Unmount is taken then, and done when the node is
 * back: a container must be able to stop, and its volume must not stay attached for ever. A Get of a volume that exists must not fail then:
 * Docker would take it for a volume that does not exist, and make one of that name on the local disk. So the names are
 * remembered; before they are known a Get is left without an answer, which Docker takes for what it is. The next node starts a newer one, which takes the
 * path of the socket over; this one sees that and goes.
 *
 * `front-main SOCKET NODE-SOCKET`
 */
import { chmodSync, renameSync, rmSync, statSync } from 'node:fs'
import { request } from 'node:http'
import { connect, createServer, type Socket } from 'node:net'

const [, , publicPath = '', nodePath = ''] = process.argv
/** How long a call waits for a node that was there a moment ago: two of them in a row stay below ten seconds. */
const WAIT_MS = 4_000
/** The longest that a call under way may still take when another process has taken the socket over. */
const LAST_CALL_MS = 120_000
const RETRY_MS = 100
const LOOK_MS = 1_000
const LIST_MS = 3_000
/** Nobody runs a node here any more. */
const ABANDONED_MS = 600_000
const ABSENT = 'the holdfast node of this host does not run: start it (systemctl start holdfast), then try again'

let nodeSeenAt = performance.now()

interface Answer {
  readonly status: string
  readonly body: object
}

/** As far as the node has said; undefined: it has not. */
let volumes: readonly { readonly Name: string }[] | undefined

/** Unmounts that Docker asked for in the node's absence, and will not ask for again. */
const missed: string[] = []

/** A call of our own; undefined without an answer. */
function ask(path: string, body: string): Promise<{ readonly ok: boolean; readonly text: string } | undefined> {
  return new Promise((resolve) => {
    const asking = request({ socketPath: nodePath, path, method: 'POST', agent: false }, (answer) => {
      let text = ''
      answer.on('data', (part: Buffer) => (text += part.toString()))
      answer.on('end', () => resolve({ ok: answer.statusCode === 200, text }))
      answer.on('error', () => resolve(undefined))
    })
    asking.on('error', () => resolve(undefined))
    asking.end(body)
  })
}

async function askForVolumes(): Promise<void> {
  const answer = await ask('/VolumeDriver.List', '')
  if (answer?.ok !== true) return
  nodeSeenAt = performance.now()
  const list = fieldOf(answer.text, 'Volumes')
  if (Array.isArray(list)) volumes = list.map((one: { Name: string }) => ({ ...one, Mountpoint: '', Status: {} }))
  await sendMissed()
}

async function sendMissed(): Promise<void> {
  for (const body of [...missed]) {
    const answer = await ask('/VolumeDriver.Unmount', body)
    if (answer === undefined) return
    forget(body)
  }
}

function forget(body: string): void {
  const at = missed.indexOf(body)
  if (at >= 0) missed.splice(at, 1)
}

/** What can be said without the node. */
function answerFor(path: string, body: string): Answer | undefined {
  const ok = (answer: object): Answer => ({ status: '200 OK', body: answer })
  if (path === '/VolumeDriver.Get' || path === '/VolumeDriver.List') {
    if (volumes === undefined) return undefined
    if (path === '/VolumeDriver.List') return ok({ Volumes: volumes, Err: '' })
    const name = fieldOf(body, 'Name')
    const known = volumes.find((volume) => volume.Name === name)
    if (known !== undefined) return ok({ Volume: known, Err: '' })
  }
  if (path === '/VolumeDriver.Unmount') {
    missed.push(body)
    return ok({ Err: '' })
  }
  if (path === '/Plugin.Activate') return ok({ Implements: ['VolumeDriver'] })
  if (path === '/VolumeDriver.Capabilities') return ok({ Capabilities: { Scope: 'global' } })
  return { status: '500 Internal Server Error', body: { Err: ABSENT } }
}

/** Of what is no JSON there is none: this process must outlive it. */
function fieldOf(text: string, name: string): unknown {
  try {
    return (JSON.parse(text) as Readonly<Record<string, unknown>> | null)?.[name]
  } catch {
    return undefined
  }
}

const waitFor = (path: string): number =>
  path.startsWith('/VolumeDriver.') && path !== '/VolumeDriver.Capabilities' ? WAIT_MS : 0

/** Resolves with a connection to the node, or undefined when none comes until then. */
async function dial(until: number): Promise<Socket | undefined> {
  for (;;) {
    const socket = await new Promise<Socket | undefined>((resolve) => {
      const attempt = connect(nodePath)
      attempt.once('connect', () => resolve(attempt))
      attempt.once('error', () => resolve(undefined))
    })
    if (socket !== undefined) {
      nodeSeenAt = performance.now()
      return socket
    }
    if (performance.now() >= until) return undefined
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
  }
}

/** The body of a request whose beginning has come. */
async function bodyOf(client: Socket, first: Buffer): Promise<string> {
  let bytes = first
  const missing = (): number => {
    const text = bytes.toString('latin1')
    const length = Number(/^content-length: *(\d+)/im.exec(text)?.[1] ?? 0)
    return text.indexOf('\r\n\r\n') + 4 + length - bytes.length
  }
  client.resume()
  while (missing() > 0 && !client.destroyed) {
    await new Promise<void>((resolve) => {
      client.once('data', (more: Buffer) => {
        bytes = Buffer.concat([bytes, more])
        resolve()
      })
      client.once('close', resolve)
    })
  }
  return bytes.subarray(bytes.indexOf('\r\n\r\n') + 4).toString()
}

async function serve(client: Socket): Promise<void> {
  client.on('error', () => client.destroy())
  const first = await new Promise<Buffer>((resolve) => client.once('data', resolve))
  client.pause()
  const path = /^[A-Z]+ (\S+) HTTP/.exec(first.toString('latin1', 0, 256))?.[1] ?? ''
  const node = await dial(Math.max(nodeSeenAt + waitFor(path), performance.now()))
  if (client.destroyed) {
    node?.destroy()
  } else if (node === undefined) {
    const answer = answerFor(path, await bodyOf(client, first))
    if (answer === undefined) {
      client.destroy()
      return
    }
    const { status } = answer
    const text = JSON.stringify(answer.body)
    const head = `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}`
    client.end(`${head}\r\nConnection: close\r\n\r\n${text}`)
  } else {
    for (const [one, other] of [
      [client, node],
      [node, client],
    ] as const) {
      one.on('error', () => other.destroy())
      one.on('close', () => other.destroy())
    }
    node.write(first)
    client.pipe(node)
    node.pipe(client)
  }
}

const server = createServer((client) => void serve(client))
const own = `${publicPath}.${process.pid}`

server.listen(own, () => {
  chmodSync(own, 0o600)
  // In one step: there is no moment without a socket.
  renameSync(own, publicPath)
  const { ino } = statSync(publicPath)
  process.stdout.write('listens\n')
  setInterval(() => void askForVolumes(), LIST_MS)
  void askForVolumes()
  setInterval(() => {
    const isOurs = statSync(publicPath, { throwIfNoEntry: false })?.ino === ino
    const abandoned = performance.now() - nodeSeenAt > ABANDONED_MS
    if ((isOurs && !abandoned) || missed.length > 0) return
    if (isOurs) rmSync(publicPath, { force: true })
    server.close(() => process.exit(0))
    // A connection that is kept alive and idle must not keep us; one that works is given time.
    setTimeout(() => process.exit(0), LAST_CALL_MS).unref()
  }, LOOK_MS)
})
