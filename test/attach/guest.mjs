/**
 * Runs in the guest: mounts a volume of the host's node over the kernel's nbd, writes with fsync while the node is killed
 * and started again, and looks at what is there then. `guest.mjs PORT OUTAGES`
 */
import { execFile, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { promisify } from 'node:util'
import { openVolumeMounts } from '@holdfast/attach'

const run = promisify(execFile)
const [port, outages] = process.argv.slice(2).map(Number)
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

async function main() {
  mkdirSync('/data/state', { recursive: true })
  await forward('/run/nbd.sock')
  const mounts = await openVolumeMounts({
    desk: { claim: async () => undefined, release: async () => undefined, holder: () => undefined },
    nbdSocket: '/run/nbd.sock',
    stateDir: '/data/state',
    mountRoot: '/data/mounts',
    bootId: 'guest',
    events: { event: (level, message, fields) => say('event', level, message, JSON.stringify(fields)) },
    timings: { lingerMs: 0, requestTimeoutSeconds: 3 },
  })
  const user = { namespace: 'default', name: 'v', mountId: 'one', mkfsOptions: [], mountOptions: [] }
  const { path } = await mounts.mount({ ...user, fileSystem: 'ext4', readOnly: false })
  const { device } = mounts.list()[0]
  say('mounted', device)
  const keeper = readdirSync('/data/state/keepers')[0]
  const log = () => readFileSync(`/data/state/keepers/${keeper}/keeper.log`, 'utf8')
  const writer = spawn('node', ['-e', WRITER, `${path}/log`], { stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  let count = 0
  writer.stdout.on('data', (text) => {
    output += text
    count = Number(/(\d+)\n$/.exec(output)?.[1] ?? count)
    say('written', count)
  })
  const ended = new Promise((resolve) => writer.once('close', resolve))
  await Promise.race([ended, until(() => (log().match(/connections replaced/g) ?? []).length >= outages)])
  const before = count
  await Promise.race([ended, until(() => count > before + 30)])
  await run('/bin/busybox', ['touch', '/run/stop'])
  const code = await ended
  const lines = readFileSync(`${path}/log`, 'utf8').trimEnd().split('\n')
  const right = lines.every((line, index) => line.startsWith(String(index + 1).padStart(8, '0')))
  await mounts.unmount('default', 'v', 'one')
  await until(() => mounts.list().length === 0)
  const left = existsSync(`/sys/block/${device.slice(5)}/pid`)
  const again = await mounts.attach('default', 'v')
  const fsck = await run('e2fsck', ['-f', '-n', again.device]).then(() => 0, (error) => error.code)
  await mounts.detach('default', 'v')
  const dmesg = (await run('/bin/busybox', ['dmesg'])).stdout
  const errors = dmesg.split('\n').filter((line) => /I\/O error|EXT4-fs error|EXT4-fs warning/.test(line))
  const longest = Number(/longest (\S+)/.exec(output)?.[1])
  say('result', JSON.stringify({ code, lines: lines.length, right, left, fsck, errors, longest, device }))
}

await main().catch((error) => say('failed', error.stack))
process.exit(0)
