/**
 * Runs in the guest: mounts a volume of the host's node over the kernel's nbd, writes with fsync while the
 * node is killed and started again, and looks at what is there then. `guest.mjs PORT`
 */
import { execFile, spawn } from 'node:child_process'
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { connect, createServer } from 'node:net'
import { promisify } from 'node:util'
import { openVolumeMounts } from '@holdfast/attach'

const run = promisify(execFile)
const port = Number(process.argv[2])
const say = (...words) => console.log(['GUEST', ...words].join(' '))
const until = async (holds) => {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 50))
}

/** The node's unix socket is on the other side of the guest's network card. */
function forward(path) {
  const server = createServer((near) => {
    const far = connect(port, '10.0.2.2')
    near.pipe(far)
    far.pipe(near)
    for (const socket of [near, far]) {
      socket.on('error', () => undefined)
      socket.on('close', () => {
        near.destroy()
        far.destroy()
      })
    }
  })
  return new Promise((resolve) => server.listen(path, resolve))
}

const WRITER = `
const fs = require('node:fs')
const fd = fs.openSync(process.argv[1], 'a')
let longest = 0
for (let number = 1; !fs.existsSync('/run/stop'); number++) {
  const start = performance.now()
  fs.writeSync(fd, String(number).padStart(8, '0') + 'x'.repeat(20000) + '\\n')
  fs.fsyncSync(fd)
  longest = Math.max(longest, performance.now() - start)
  if (number % 10 === 0) fs.writeSync(1, number + '\\n')
}
fs.writeSync(1, 'longest ' + longest + '\\n')
`

const user = { namespace: 'default', name: 'v', mountId: 'one', mkfsOptions: [], mountOptions: [] }
const request = { ...user, fileSystem: 'ext4', readOnly: false }

function startWriters(path) {
  const writers = [1, 2, 3].map((number) => {
    const child = spawn('node', ['-e', WRITER, `${path}/log-${number}`], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const writer = { number, output: '', count: 0 }
    child.stdout.on('data', (text) => {
      writer.output += text
      writer.count = Number(/(\d+)\n$/.exec(writer.output)?.[1] ?? writer.count)
    })
    writer.ended = new Promise((resolve) => child.once('close', resolve))
    return writer
  })
  return { writers, total: () => writers.reduce((sum, { count }) => sum + count, 0) }
}

const keeperLog = () => `/data/state/keepers/${readdirSync('/data/state/keepers')[0]}/keeper.log`

/** Waits until the keeper has put new connections in the place of dead ones, `count` times since it began. */
function untilReplaced(count) {
  return until(() => {
    const log = existsSync(keeperLog()) ? readFileSync(keeperLog(), 'utf8') : ''
    return (log.match(/connections replaced/g) ?? []).length >= count
  })
}

function killKeeper() {
  // So that what the next keeper says is not taken for this one's.
  rmSync(keeperLog())
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
    if (line.includes('keeper-main')) process.kill(Number(pid), 'SIGKILL')
  }
}

/** The node is killed twice; in between the keeper is, and another takes its place. */
async function writeThroughOutages(path) {
  const { writers, total } = startWriters(path)
  const more = async (count) => {
    const start = total()
    await until(() => total() >= start + count)
  }
  await more(60)
  say('phase 1')
  await untilReplaced(1)
  await more(60)
  killKeeper()
  // The new one can't know whether a connection died meanwhile, and replaces them.
  await untilReplaced(1)
  await more(60)
  say('phase 2')
  await untilReplaced(2)
  await more(60)
  writeFileSync('/run/stop', '')
  const codes = await Promise.all(writers.map(({ ended }) => ended))
  const longest = Math.max(...writers.map(({ output }) => Number(/longest (\S+)/.exec(output)?.[1])))
  const files = writers.map(({ number }) =>
    readFileSync(`${path}/log-${number}`, 'utf8').trimEnd().split('\n'),
  )
  const right = files.every((lines) =>
    lines.every((line, i) => line.startsWith(String(i + 1).padStart(8, '0'))),
  )
  return { codes, longest, right, lines: files.flat().length }
}

async function systemErrors() {
  const { stdout } = await run('/bin/busybox', ['dmesg'])
  return stdout.split('\n').filter((line) => /I\/O error|EXT4-fs error|EXT4-fs warning/.test(line))
}

/** After `lost` there are errors, and the device can be let go. */
async function checkLost(mounts) {
  const { path } = await mounts.mount(request)
  mounts.lost('default', 'v')
  let failed = false
  await until(() => {
    try {
      const fd = openSync(`${path}/lost`, 'w')
      writeSync(fd, 'x')
      fsyncSync(fd)
      closeSync(fd)
    } catch {
      failed = true
    }
    return failed
  })
  await mounts.unmount('default', 'v', 'one')
  await until(() => mounts.list().length === 0)
}

const devices = () => readdirSync('/sys/block').filter((name) => existsSync(`/sys/block/${name}/pid`))

async function main() {
  mkdirSync('/data/state', { recursive: true })
  await forward('/run/nbd.sock')
  const mounts = await openVolumeMounts({
    desk: { claim: async () => undefined, release: async () => undefined, holder: () => undefined, rights: async () => [] },
    nbdSocket: '/run/nbd.sock',
    stateDir: '/data/state',
    mountRoot: '/data/mounts',
    bootId: 'guest',
    events: { event: (level, message, fields) => say('event', level, message, JSON.stringify(fields)) },
    timings: { lingerMs: 0, requestTimeoutSeconds: 3 },
  })
  const { path } = await mounts.mount(request)
  const { device } = mounts.list()[0]
  say('mounted', device)
  const seen = await writeThroughOutages(path)
  await mounts.unmount('default', 'v', 'one')
  await until(() => mounts.list().length === 0)
  const again = await mounts.attach('default', 'v')
  const fsck = await run('e2fsck', ['-f', '-n', again.device]).then(
    () => 0,
    (error) => error.code,
  )
  await mounts.detach('default', 'v')
  const errors = await systemErrors()
  await checkLost(mounts)
  const left = devices()
  say('result', JSON.stringify({ ...seen, fsck, errors, device, left }))
}

await main().catch((error) => say('failed', error.stack))
process.exit(0)
