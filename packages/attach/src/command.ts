/** External programs: found, run without a shell, and their failures turned into messages for people. */
import { execFile } from 'node:child_process'
import { access, constants } from 'node:fs/promises'
import { join } from 'node:path'
import { HoldfastError } from '@holdfast/base'

/** Services often run with a PATH that lacks these. */
const SYSTEM_FOLDERS = ['/usr/sbin', '/usr/bin', '/sbin', '/bin']
const PATH = [...new Set([...(process.env['PATH'] ?? '').split(':').filter(Boolean), ...SYSTEM_FOLDERS])]

const PACKAGES: Readonly<Record<string, string>> = {
  nbdfuse: 'libnbd-bin (libnbd on Fedora)',
  losetup: 'mount (util-linux)',
  mount: 'mount (util-linux)',
  umount: 'mount (util-linux)',
  blkid: 'util-linux',
  blkdiscard: 'util-linux',
  'mkfs.ext4': 'e2fsprogs',
  e2fsck: 'e2fsprogs',
  'mkfs.xfs': 'xfsprogs',
}

export interface CommandResult {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Environment for programs that are started here. */
export const commandEnvironment: NodeJS.ProcessEnv = { ...process.env, PATH: PATH.join(':'), LC_ALL: 'C' }

/** True if there is a program of that name. */
export async function isInstalled(program: string): Promise<boolean> {
  for (const folder of PATH) {
    try {
      await access(join(folder, program), constants.X_OK)
      return true
    } catch {
      // The next folder, then.
    }
  }
  return false
}

/**
 * Runs a program to its end, whatever its exit code.
 * @throws HoldfastError HF_UNAVAILABLE if it is not installed, with the package that has it.
 */
export function run(program: string, args: readonly string[]): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const options = { encoding: 'utf8', env: commandEnvironment, maxBuffer: 16 * 1024 * 1024 } as const
    execFile(program, args, options, (error, stdout, stderr) => {
      if (error === null) return resolve({ code: 0, stdout, stderr })
      if (typeof error.code === 'number') return resolve({ code: error.code, stdout, stderr })
      if (error.code !== 'ENOENT') return resolve({ code: 255, stdout, stderr: `${stderr}${error.message}` })
      reject(notInstalled(program))
    })
  })
}

/**
 * The same for a program that has to succeed; its standard output.
 * @throws HoldfastError HF_IO with what the program said.
 */
export async function runOrFail(program: string, args: readonly string[]): Promise<string> {
  const result = await run(program, args)
  if (result.code === 0) return result.stdout
  const said = (result.stderr.trim() || result.stdout.trim()).split('\n').slice(-3).join('; ')
  throw new HoldfastError(
    'HF_IO',
    `${program} ${args.join(' ')} failed: ${said || `exit code ${result.code}`}`,
  )
}

export function notInstalled(program: string): HoldfastError {
  const from = PACKAGES[program] ?? program
  return new HoldfastError('HF_UNAVAILABLE', `${program} is not installed: install the package ${from}`)
}
