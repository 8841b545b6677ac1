/**
 * A guest with a kernel that has nbd: Debian's cloud kernel, and a filesystem in memory with Node, the attach
 * package and the programs that it calls. Downloads go to a cache folder of this user; nothing is installed.
 */
import { execFileSync } from 'node:child_process'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { sh } from './attach-bed.ts'

const ROOT = new URL('../../', import.meta.url).pathname
const CACHE = process.env['HOLDFAST_TEST_CACHE'] ?? join(homedir(), '.cache', 'holdfast-test-kernel')
const MODULES = ['virtio_pci', 'virtio_net', 'nbd', 'crc32c_generic', 'crc32c_intel', 'ext4']
const PROGRAMS = ['mount', 'umount', 'blkid', 'blkdiscard', 'mkfs.ext4', 'e2fsck', 'losetup']

export interface Guest {
  readonly kernel: string
  readonly initramfs: string
}

/** Kernel and busybox, unpacked in the cache. */
function unpackedPackages(): string {
  const depends = sh('apt-cache', 'depends', 'linux-image-cloud-amd64')
  const kernel = /Depends: (linux-image-\S+)/.exec(depends)?.[1]
  if (kernel === undefined) throw new Error('Debian has no package linux-image-cloud-amd64')
  const root = join(CACHE, kernel)
  if (existsSync(join(root, 'complete'))) return root
  const downloads = join(root, 'downloads')
  mkdirSync(downloads, { recursive: true })
  execFileSync('apt-get', ['download', kernel, 'busybox-static'], { cwd: downloads, stdio: 'pipe' })
  for (const file of readdirSync(downloads)) sh('dpkg', '-x', join(downloads, file), root)
  writeFileSync(join(root, 'complete'), '')
  return root
}

/** Builds the guest; `script` is the module that it runs with `args`. */
export function buildGuest(folder: string, script: string, args: readonly string[]): Guest {
  const packages = unpackedPackages()
  const boot = readdirSync(join(packages, 'boot')).find((name) => name.startsWith('vmlinuz-')) ?? ''
  const version = boot.slice('vmlinuz-'.length)
  const archive = new Archive()
  archive.device('/dev/console', 5, 1)
  archive.file('/bin/busybox', join(packages, 'bin', 'busybox'))
  const modules = moduleFiles(join(packages, 'lib', 'modules', version))
  modules.forEach((path, index) => archive.file(`/modules/${index}.ko`, path))
  for (const program of PROGRAMS)
    archive.program(sh('sh', '-c', `PATH=$PATH:/usr/sbin:/sbin command -v ${program}`))
  archive.program(process.execPath, '/usr/bin/node')
  archive.libraries(join(ROOT, 'native/build/Release/holdfast.node'))
  for (const path of ['native/build/Release/holdfast.node', 'packages/addon/dist', 'packages/base/dist', 'packages/attach/dist']) {
    archive.tree(`/holdfast/${path}`, join(ROOT, path))
  }
  for (const name of ['addon', 'base', 'attach']) {
    archive.file(`/holdfast/packages/${name}/package.json`, join(ROOT, 'packages', name, 'package.json'))
    archive.link(`/holdfast/node_modules/@holdfast/${name}`, `../../packages/${name}`)
  }
  archive.file('/holdfast/guest.mjs', script)
  archive.text('/init', initScript(modules.length, args), 0o755)
  const initramfs = join(folder, 'initramfs')
  writeFileSync(initramfs, archive.bytes())
  return { kernel: join(packages, 'boot', boot), initramfs }
}

function initScript(moduleCount: number, args: readonly string[]): string {
  return `#!/bin/busybox sh
b=/bin/busybox
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/
$b mkdir -p /proc /sys /tmp /run /data
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
i=0
while [ $i -lt ${moduleCount} ]; do $b insmod /modules/$i.ko; i=$((i + 1)); done
$b ip link set lo up
$b ip link set eth0 up
$b ip addr add 10.0.2.15/24 dev eth0
node /holdfast/guest.mjs ${args.join(' ')}
$b dmesg | $b grep -iE 'nbd|ext4|I/O' | $b tail -n 60 | $b sed 's/^/DMESG /'
$b cat /data/state/keepers/*/keeper.log
echo GUEST-ENDS
$b poweroff -f
`
}

/**
 * Files of the modules and of all that they depend on, in the order to load them. What is built in is left
 * out.
 */
function moduleFiles(folder: string): string[] {
  const files = new Map<string, string>()
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.name.endsWith('.ko')) continue
    files.set(entry.name.slice(0, -3).replaceAll('-', '_'), join(entry.parentPath, entry.name))
  }
  const order: string[] = []
  const add = (name: string): void => {
    const file = files.get(name.replaceAll('-', '_'))
    if (file === undefined || order.includes(file)) return
    const depends = /\0depends=([^\0]*)\0/.exec(readFileSync(file).toString('latin1'))?.[1] ?? ''
    for (const other of depends.split(',').filter(Boolean)) add(other)
    order.push(file)
  }
  MODULES.forEach(add)
  return order
}

/** A cpio archive in the format "newc", as the kernel unpacks it. */
class Archive {
  readonly #parts: Buffer[] = []
  readonly #known = new Set<string>()
  #inode = 1

  bytes(): Buffer {
    this.#add('TRAILER!!!', 0, Buffer.alloc(0))
    return Buffer.concat(this.#parts)
  }
  file(path: string, from: string): void {
    this.#folder(dirname(path))
    this.#add(path, 0o100000 | (statSync(from).mode & 0o777), readFileSync(from))
  }
  text(path: string, text: string, mode: number): void {
    this.#add(path, 0o100000 | mode, Buffer.from(text))
  }
  link(path: string, target: string): void {
    this.#folder(dirname(path))
    this.#add(path, 0o120777, Buffer.from(target))
  }
  device(path: string, major: number, minor: number): void {
    this.#folder(dirname(path))
    this.#add(path, 0o020600, Buffer.alloc(0), major, minor)
  }
  tree(path: string, from: string): void {
    if (!lstatSync(from).isDirectory()) return this.file(path, from)
    for (const name of readdirSync(from)) this.tree(`${path}/${name}`, join(from, name))
  }
  program(from: string, path = from): void {
    this.file(path, realpathSync(from))
    this.libraries(realpathSync(from))
  }
  libraries(from: string): void {
    for (const [, library] of sh('ldd', from).matchAll(/(\/\S+) \(0x/g)) {
      if (library !== undefined && !this.#known.has(library)) this.file(library, realpathSync(library))
    }
  }

  #folder(path: string): void {
    if (path === '/' || this.#known.has(path)) return
    this.#folder(dirname(path))
    this.#add(path, 0o040755, Buffer.alloc(0))
  }

  #add(path: string, mode: number, data: Buffer, major = 0, minor = 0): void {
    if (this.#known.has(path)) return
    this.#known.add(path)
    const name = Buffer.from(`${path.replace(/^\//, '')}\0`)
    const fields = [this.#inode++, mode, 0, 0, 1, 0, data.length, 0, 0, major, minor, name.length, 0]
    const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`)
    this.#parts.push(padded(Buffer.concat([header, name])), padded(data))
  }
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)])
}
