/**
 * Brings a fresh checkout to where it can run: dependencies, native addon, TypeScript; with `--test` also what the
 * tests need of the system. Does nothing, fast, when nothing has changed.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const stamps = join(root, '.setup')
const forTests = process.argv.includes('--test')

/** Command that a package brings, and the package. */
const DEBIAN = [
  ['etcd', 'etcd-server'],
  ['etcdctl', 'etcd-client'],
  ['nbdinfo', 'libnbd-bin'],
  ['nbd-client', 'nbd-client'],
  ['qemu-io', 'qemu-utils'],
  ['qemu-storage-daemon', 'qemu-system-x86'],
  ['fio', 'fio'],
  ['nbdkit', 'nbdkit'],
  ['mkfs.ext4', 'e2fsprogs'],
  ['mkfs.xfs', 'xfsprogs'],
  ['losetup', 'mount'],
  ['ip', 'iproute2'],
  ['nft', 'nftables'],
  ['faketime', 'faketime'],
  ['python3', 'python3'],
  ['g++', 'g++'],
  ['make', 'make'],
]
/** Only for root, and not where systemd would start an engine that nobody asked for: their tests are skipped then. */
const DOCKER = [
  ['dockerd', 'docker.io'],
  ['docker-registry', 'docker-registry'],
  ['docker-compose', 'docker-compose'],
  ['busybox', 'busybox-static'],
  ['iptables', 'iptables'],
]
const PYTHON_NBD = '/usr/lib/python3/dist-packages/nbd.py'

function fail(message) {
  process.stderr.write(`setup: ${message}\n`)
  process.exit(1)
}

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'], ...options })
  if (result.status !== 0) fail(`${command} ${args.join(' ')} failed: see above`)
}

function checkNode() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  if (major < 20 || (major === 20 && minor < 19)) {
    fail(`Node ${process.versions.node} is too old: install Node 20.19 or newer`)
  }
}

function hashOf(paths) {
  const hash = createHash('sha256')
  for (const path of paths) hash.update(path).update(readFileSync(path))
  return hash.digest('hex')
}

/** Runs `task` unless the stamp of that name says that these contents were dealt with. */
function once(name, contents, task) {
  const stamp = join(stamps, name)
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === contents) return
  task()
  mkdirSync(stamps, { recursive: true })
  writeFileSync(stamp, contents)
}

function installDependencies() {
  const packages = readdirSync(join(root, 'packages')).map((name) => join(root, 'packages', name, 'package.json'))
  const manifests = [join(root, 'package.json'), join(root, 'package-lock.json'), ...packages.filter(existsSync)]
  const present = existsSync(join(root, 'node_modules', '.package-lock.json'))
  once('dependencies', `${hashOf(manifests)} ${present}`.replace('false', 'true'), () => {
    // Install scripts are not run: the one addon that is needed is built below, by name.
    run('npm', ['ci', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'])
  })
  // The package carries addons built elsewhere; what runs here is built here.
  const lz4 = join(root, 'node_modules', 'lz4')
  once('lz4', `${process.version} ${process.arch} ${statSync(lz4).ino}`, () => buildAddon(lz4))
}

function buildAddon(directory) {
  const prefix = dirname(dirname(process.execPath))
  const headers = existsSync(join(prefix, 'include', 'node', 'node_api.h')) ? [`--nodedir=${prefix}`] : []
  const gyp = join(root, 'node_modules', 'node-gyp', 'bin', 'node-gyp.js')
  const options = { stdio: 'pipe', encoding: 'utf8' }
  const result = spawnSync(process.execPath, [gyp, 'rebuild', '--directory', directory, ...headers], options)
  if (result.status === 0) return
  process.stderr.write(`${result.stdout}${result.stderr}`)
  fail(`the addon in ${directory} was not built: it needs python3, make and g++`)
}

function newest(directory) {
  let latest = 0
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name)
    if (entry.isDirectory()) {
      if (entry.name !== 'dist' && entry.name !== 'node_modules') latest = Math.max(latest, newest(path))
    } else latest = Math.max(latest, statSync(path).mtimeMs)
  }
  return latest
}

function buildTypeScript() {
  const contents = String(newest(join(root, 'packages')))
  const built = existsSync(join(root, 'packages', 'cli', 'dist', 'main.js'))
  once('typescript', built ? contents : `${contents} again`, () => {
    run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-b'])
  })
  writeFileSync(join(stamps, 'typescript'), contents)
}

function onPath(command) {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin']
  return folders.some((folder) => existsSync(join(folder, command)))
}

function installDebianPackages() {
  const isRoot = process.getuid?.() === 0
  const wanted = isRoot && !existsSync('/run/systemd/system') ? [...DEBIAN, ...DOCKER] : DEBIAN
  const missing = wanted.filter(([command]) => !onPath(command)).map(([, name]) => name)
  if (!existsSync(PYTHON_NBD)) missing.push('python3-libnbd')
  if (missing.length === 0) return
  const list = [...new Set(missing)].join(' ')
  if (!isRoot || !onPath('apt-get')) fail(`the tests need these Debian packages: apt-get install ${list}`)
  process.stderr.write(`setup: installing ${list}\n`)
  // The run level keeps Debian's scripts from starting what they install.
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
  // On a machine that has just started, something else may be installing too.
  const patience = ['-o', 'DPkg::Lock::Timeout=300']
  run('apt-get', ['update', '-qq', ...patience], { env })
  run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...patience, ...new Set(missing)], { env })
}

checkNode()
if (forTests) installDebianPackages()
if (!onPath('g++') || !onPath('make')) {
  if (process.getuid?.() === 0 && onPath('apt-get')) installDebianPackages()
  else fail('building the native addon needs python3, make and g++: install them')
}
installDependencies()
run(process.execPath, [join(root, 'scripts', 'build-native.mjs')])
buildTypeScript()
