/** Images for hosts that can pull none: a busybox, and a real registry with its libraries. */
import { execFileSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { command } from './box.ts'
import type { DockerHost } from './docker-host.ts'

const REGISTRY_CONFIG = `version: 0.1
log:
  level: warn
storage:
  filesystem:
    rootdirectory: /var/lib/registry
http:
  addr: 127.0.0.1:5000
`

export interface Image {
  readonly name: string
  /** A tar for `docker import`. */
  readonly tar: string
  readonly entrypoint: readonly string[]
}

const { PATH = '' } = process.env
/** `/usr/sbin` is not on everybody's path; and what Debian's packages bring comes first. */
export const SYSTEM_PATH = `/usr/sbin:/usr/bin:/sbin:/bin:${PATH}`

/** Where a program is; undefined if it is not installed. */
export function findProgram(name: string): string | undefined {
  try {
    const env = { ...process.env, PATH: SYSTEM_PATH }
    return execFileSync('sh', ['-c', `command -v ${name}`], { env, encoding: 'utf8' }).trim()
  } catch {
    return undefined
  }
}

/** Turns a folder into the tar beside it. */
async function pack(folder: string): Promise<string> {
  const tar = `${folder}.tar`
  await command('tar', '-C', folder, '-cf', tar, '.')
  rmSync(folder, { recursive: true })
  return tar
}

async function busybox(folder: string): Promise<Image> {
  const root = join(folder, 'busybox')
  mkdirSync(join(root, 'bin'), { recursive: true })
  for (const name of ['tmp', 'etc', 'data']) mkdirSync(join(root, name))
  copyFileSync(findProgram('busybox') ?? 'busybox', join(root, 'bin', 'busybox'))
  for (const applet of (await command(join(root, 'bin', 'busybox'), '--list')).split('\n')) {
    if (applet !== 'busybox') await command('ln', '-sf', 'busybox', join(root, 'bin', applet))
  }
  return { name: 'busybox', tar: await pack(root), entrypoint: [] }
}

async function registry(folder: string): Promise<Image> {
  const root = join(folder, 'registry')
  const program = findProgram('docker-registry') ?? 'docker-registry'
  const libraries = await command('ldd', program).catch(() => '')
  const found = [...libraries.matchAll(/(\/\S+) \(0x/g)].map(([, path]) => path ?? '')
  const files = [program, ...found]
  for (const path of files) {
    mkdirSync(join(root, dirname(path)), { recursive: true })
    copyFileSync(path, join(root, path))
    chmodSync(join(root, path), 0o755)
  }
  for (const name of ['etc/registry', 'tmp', 'var/lib/registry']) {
    mkdirSync(join(root, name), { recursive: true })
  }
  writeFileSync(join(root, 'etc/registry/config.yml'), REGISTRY_CONFIG)
  const entrypoint = [program, 'serve', '/etc/registry/config.yml']
  return { name: 'registry', tar: await pack(root), entrypoint }
}

/** Builds the tars of a run below `folder`. */
export async function buildImages(folder: string): Promise<Image[]> {
  mkdirSync(folder, { recursive: true })
  return [await busybox(folder), await registry(folder)]
}

export async function importImage(host: DockerHost, { name, tar, entrypoint }: Image): Promise<void> {
  const changes = ['ENV PATH=/bin:/usr/bin', 'CMD ["sh"]']
  if (entrypoint.length > 0) changes.splice(1, 1, `ENTRYPOINT ${JSON.stringify(entrypoint)}`)
  await host.docker(['import', ...changes.flatMap((change) => ['--change', change]), tar, name])
}
